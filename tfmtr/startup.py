"""A quicker start of commands: what TensorFlow and Keras import only because it is installed is left out.

TensorFlow Lite looks for JAX, Keras for scikit-learn and Matplotlib, to convert, wrap and draw what no command of ours
does: two of the five seconds of CPU that `import tensorflow` takes. Whoever imports them afterwards gets them. In other
programs nothing is left out, as they may use these parts of Keras.
"""

import importlib.abc
import json
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

NEEDLESS = frozenset(("jax", "matplotlib", "sklearn"))


class WithoutNeedless(importlib.abc.MetaPathFinder):
    """Says that there is no such package while TensorFlow or Keras are imported."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        """Leaves the name to others.

        Raises:
            ModuleNotFoundError: If it is needless, and TensorFlow or Keras are being imported.
        """
        if name in NEEDLESS and any(is_importing(package) for package in ("tensorflow", "keras")):
            raise ModuleNotFoundError(f"No module named {name!r} for the time of TensorFlow's import", name=name)


def is_importing(package: str) -> bool:
    """Whether the import of a package has begun and not ended."""
    spec: ModuleSpec | None = getattr(sys.modules.get(package), "__spec__", None)
    return getattr(spec, "_initializing", False)


def start_quickly() -> None:
    """Lets TensorFlow and Keras do without what no command needs, when they are imported; not with other backends."""
    if backend() == "tensorflow" and not any(isinstance(finder, WithoutNeedless) for finder in sys.meta_path):
        sys.meta_path.insert(0, WithoutNeedless())


def backend() -> str:
    """Name of Keras's backend, as Keras will find it: from the environment or its configuration file."""
    if name := os.environ.get("KERAS_BACKEND"):
        return name
    folder = os.environ.get("KERAS_HOME") or Path("~/.keras").expanduser()
    try:
        return json.loads(Path(folder, "keras.json").read_text(encoding="utf-8")).get("backend", "tensorflow")
    except (OSError, ValueError, AttributeError):
        return "tensorflow"
