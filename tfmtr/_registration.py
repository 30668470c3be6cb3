"""Keras finds this package's classes by their registered names, in a process that has imported no more than `tfmtr`.

Keras looks a class of a saved model up in a dictionary, where importing the class's module puts it. `import tfmtr`
imports neither Keras nor such a module. So the dictionary is replaced, when Keras makes it, by one that imports them
when it is first asked for a name of this package.
"""

import importlib
import importlib.machinery
import pkgutil
import sys
from collections.abc import Sequence
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType

from tfmtr.private_names import KERAS_CLASSES

PREFIX = "tfmtr>"
FOLDERS = ("tfmtr.layers", "tfmtr.sharing", "tfmtr.optimizers")
MODULES = ("tfmtr.models", "tfmtr.encoders.raw", "tfmtr.calibration", "tfmtr.parameter_servers")


def import_all() -> None:
    """Imports every module that has a class for saved models."""
    for folder in FOLDERS:
        for module in pkgutil.iter_modules(importlib.import_module(folder).__path__):
            importlib.import_module(f"{folder}.{module.name}")
    for module in MODULES:
        importlib.import_module(module)


class Classes(dict):
    """Keras's dictionary of classes by registered name."""

    is_complete = False

    def __contains__(self, name: object) -> bool:
        if (
            not super().__contains__(name)
            and isinstance(name, str)
            and name.startswith(PREFIX)
            and not self.is_complete
        ):
            self.is_complete = True
            import_all()
        return super().__contains__(name)


class _Loader:
    """Loads Keras's module of the dictionary, and replaces that."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        replace(module)


class _Finder:
    """Finds Keras's module of the dictionary for `_Loader`, once."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != KERAS_CLASSES:
            return None
        sys.meta_path.remove(_Finder)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)  # pyright: ignore[reportAttributeAccessIssue]
        return spec


def replace(module: ModuleType) -> None:
    """Replaces the dictionary of Keras's module, with what is in it."""
    module.GLOBAL_CUSTOM_OBJECTS = Classes(module.GLOBAL_CUSTOM_OBJECTS)  # pyright: ignore[reportAttributeAccessIssue]


def install() -> None:
    """Replaces Keras's dictionary now, or when Keras is imported."""
    if KERAS_CLASSES in sys.modules:
        replace(sys.modules[KERAS_CLASSES])
    elif _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
