"""Finds the swappable parts: by file name, by the name that a package gives them, or by import path.

A part is chosen by what stands for it in a recipe:

* its name, `"ple"`: the function `ple` of the file `tfmtr/sharing/ple.py`, or what an installed package names so among
  its entry points `tfmtr.sharing`;
* its import path, `"package.module:function"`;
* either with options, `("ple", {"num_experts": 4})`, or `{"name": "ple", "num_experts": 4}` as in a file;
* a function like those of the folder; `functools.partial` for options.
"""

import ast
import contextlib
import functools
import importlib
import importlib.metadata
import inspect
import numbers
import pkgutil
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from tfmtr import declared
from tfmtr.checks import check_choice, is_finite, nearest

ARGUMENTS = {  # what a folder's parts are chosen by
    "encoders.interactions": "encode",
    "sharing": "share",
    "heads": "head",
    "balancing": "balance",
    "debiasing": "debias",
    "optimizers": "optimizer",
    "datasets.public": "data set",
    "retrieval.indexes": "index",
    "evaluation.list_metrics": "metrics",
    "signatures": "signatures",
}
# Arguments that every part of a folder is called with.
POSITIONAL = {"encoders.interactions": 2, "sharing": 2, "heads": 1, "balancing": 1, "debiasing": 2, "optimizers": 0}
POSITIONAL |= {"datasets.public": 2, "retrieval.indexes": 3, "evaluation.list_metrics": 1, "signatures": 1}
WITHOUT_OPTIONS = ("retrieval.indexes", "evaluation.list_metrics")
KEYWORDS = {"sharing": ("towers", "num_scenarios")}
SIDE_INPUTS = {"fields", "parents", "prior", "scenario_features", "task_representations"}  # a sharing file may ask for
TWO_TOWER_ONLY = "two_tower_only"  # the decorator of heads
NAME = "name"  # key of a part's name where it stands in a file together with its options
_LOCKED = []  # whether import paths are refused, in this process


def names(folder: str) -> list[str]:
    """Sorted names of the parts of a folder; files that begin with `_` are shared pieces.

    >>> "territory_branches" in names("sharing")
    True
    """
    return sorted({*_files(folder), *_entry_points(folder)})


def find(folder: str, part: Any) -> Any:
    """The function of a part, with its options; a function is returned as it is.

    Raises:
        ValueError: If there is no such part; the message lists what there is and the nearest name, under the argument
            that the part is chosen by.
    """
    if callable(part):
        _check_function(folder, part, part)
        return part
    name, options = parse(folder, part)
    function = name if callable(name) else _function(folder, name)
    return functools.partial(function, **options) if options else function


def parse(folder: str, part: Any, *, argument: str | None = None) -> tuple[str | Callable[..., Any], dict[str, Any]]:
    """`(name or function, options)` of what stands for a part.

    A function becomes the name or the import path that it can be found by, if it has one. Lists become tuples.

    Args:
        folder: Folder of the package.
        part: What stands for the part.
        argument: What it is given as, in messages; by default what parts of the folder are.

    Raises:
        ValueError: If it cannot stand for a part, or has an option that is called `name`.

    Example:
    >>> parse("sharing", {"name": "ple", "num_experts": 4})
    ('ple', {'num_experts': 4})
    """
    argument, name, options = argument or ARGUMENTS.get(folder, folder), part, {}
    if isinstance(part, Mapping):
        if NAME not in part:
            raise ValueError(
                f"`{argument}` must have the key `{NAME}` beside its options. Received: {argument}={part!r}"
            )
        name, options = part[NAME], {key: value for key, value in part.items() if key != NAME}
    elif isinstance(part, (tuple, list)) and len(part) == 2 and isinstance(part[1], Mapping):
        name, options = part
    if isinstance(name, functools.partial):
        if name.args:
            raise ValueError(f"`{argument}` must have its options by name. Received: {argument}={part!r}")
        name, options = name.func, {**name.keywords, **options}
    if callable(name):
        name = path_of(name, folder) or name
    elif not isinstance(name, str):
        check_choice(argument, part, names(folder))
    if NAME in options:
        raise ValueError(_name_is_taken(argument, name, f"{NAME}={options[NAME]!r}"))
    return name, {key: _plain(value) for key, value in options.items()}


def stored(folder: str, part: Any) -> Any:
    """What stands for a part in a recipe: its name, or `(name, options)` where there are options.

    An option that is `None` where that is its default is left out: a TOML file has no word for it.

    >>> stored("sharing", ["ple", {"units": [64, 32]}])
    ('ple', {'units': (64, 32)})
    """
    name, options = parse(folder, part)
    if any(value is None for value in options.values()):
        parameters, _ = _options_of(folder, name)
        defaults = {key: parameter.default for key, parameter in parameters.items()}
        options = {
            key: value for key, value in options.items() if value is not None or defaults.get(key, "") is not None
        }
    return (name, options) if options else name


def check_part(folder: str, part: Any) -> None:
    """Raises a `ValueError` unless there is such a part, and it has the options that it is given.

    Args:
        folder: Folder of the package.
        part: What stands for the part.

    Raises:
        ValueError: If there is no such part, it has no such option, it needs one that is not given, or a value is not
            of the kind that the option's default is of.
    """
    argument, (name, options) = ARGUMENTS[folder], parse(folder, part)
    shown = name if isinstance(name, str) else getattr(name, "__qualname__", repr(name))
    parameters, is_open = _options_of(folder, name)
    for key, value in options.items():
        if key not in parameters and not is_open:
            has = f"one of {sorted(parameters)}" if parameters else "left out: there are none"
            raise ValueError(
                f"Options of `{argument}={shown}` must be {has}.{nearest(key, parameters)} Received: {key}={value!r}"
            )
        if key in parameters and not _fits(value, kind := _kind_of(parameters[key])):
            default = parameters[key].default
            must = f"a value like its default, {default!r}"
            if typing.get_origin(kind) is typing.Literal:
                must = f"one of {list(typing.get_args(kind))}"
            elif default is None or default is inspect.Parameter.empty:
                must = f"of the type {inspect.formatannotation(kind)}"
            raise ValueError(f"`{key}` of `{argument}={shown}` must be {must}. Received: {key}={value!r}")
    if NAME in parameters and parameters[NAME].default is inspect.Parameter.empty:
        raise ValueError(_name_is_taken(argument, shown, f"{argument}={part!r}"))
    missing = [p.name for p in parameters.values() if p.default is p.empty and p.name not in options]
    if missing:
        example = ", ".join(f'"{key}": ...' for key in missing)
        raise ValueError(
            f"`{argument}={shown}` needs a value for {' and '.join(f'`{key}`' for key in missing)}, which has no "
            f'default: {argument}=("{shown}", {{{example}}}), or `--set {argument}.{missing[0]}=...`. '
            f"Received: {argument}={part!r}"
        )


def _name_is_taken(argument: str, part: Any, received: Any) -> str:
    return (
        f"An option of `{argument}={part}` must not be called `{NAME}`: where a recipe, a run or a model is stored, "
        f"that is the key of the part's own name. Give the option another name in the function. Received: {received}"
    )


def path_of(function: Any, folder: str) -> str | None:
    """The name or import path that a function can be found by again; `None` where it has none.

    >>> from tfmtr.sharing.ple import ple
    >>> path_of(ple, "sharing"), path_of(lambda x: x, "sharing")
    ('ple', None)
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
    if module is None or module == "__main__" or "<" in name:
        return None
    try:
        if _attribute(importlib.import_module(module), name) is not function:
            return None
    except (ImportError, AttributeError):
        return None
    own = name if folder != "optimizers" else module.rpartition(".")[2]
    return own if module == f"tfmtr.{folder}.{own}" else f"{module}:{name}"


def lock() -> None:
    """Refuses import paths in this process from now on: with them, a recipe or a run decides what code is run."""
    _LOCKED.append(True)


def check_pairable(share: Any) -> None:
    """Raises a `ValueError` if a sharing system knows the scenario by itself, or has tables of each task."""
    asked = SIDE_INPUTS & {parameter.name for parameter in _parameters("sharing", parse("sharing", share)[0])}
    if asked:
        raise ValueError(
            "`share` of `per_pair` must be a system that needs x alone, such as shared_bottom, mmoe, ple or adatt. "
            f"Received: one that asks for {sorted(asked)}"
        )


def is_two_tower_only(head: Any, folder: str = "heads") -> bool:
    """Whether a head, or a way to debias, is one for two-tower models only.

    `tfmtr.heads.two_tower_only` says it above its function.
    """
    name, _ = parse(folder, head)
    if not isinstance(name, str):
        return getattr(name, TWO_TOWER_ONLY, False)
    try:
        return TWO_TOWER_ONLY in declared.decorators(_declared(folder, name))
    except declared.UnreadableError:
        return getattr(_function(folder, name), TWO_TOWER_ONLY, False)


def has_word(folder: str, part: Any, word: str) -> bool:
    """Whether a part's own file has a word, such as a layer's name; `True` of what is of another package."""
    name, _ = parse(folder, part)
    if not isinstance(name, str) or ":" in name or name in _entry_points(folder):
        return True
    return any(word in file.read_text(encoding="utf-8") for file in _own_files(folder, name))


def tower_width(share: Any) -> int | None:
    """Width of a sharing file's towers, the last of its option `tower_units` or `units`; `None` where it has none."""
    name, options = parse("sharing", share)
    if not isinstance(name, str) or ":" in name or name in _entry_points("sharing"):
        return None
    parameters, _ = _options_of("sharing", name)
    for option in ("tower_units", "units"):
        if option in parameters:
            value = options.get(option, parameters[option].default)
            return (value[-1] if value else None) if isinstance(value, tuple) else value
    return None


def check_name(folder: str, name: str) -> None:
    """Raises a `ValueError` unless there is a part of a name, or the name is an import path; imports none."""
    if ":" not in name:
        check_choice(ARGUMENTS.get(folder, folder), name, names(folder))


def _places(folder: str) -> list[str]:
    """The folders of a folder's files; its package, which may import Keras, is not imported for it."""
    package = sys.modules.get(f"tfmtr.{folder}")
    return list(package.__path__) if package else [str(Path(__file__).parent / _path(folder))]


def _files(folder: str) -> list[str]:
    return [m.name for m in pkgutil.iter_modules(_places(folder)) if not m.name.startswith("_")]


def _own_files(folder: str, name: str) -> list[Path]:
    return [file for place in _places(folder) if (file := Path(place, f"{name}.py")).is_file()]


def _declared(folder: str, name: str) -> ast.FunctionDef:
    """The function of a part's own file, as it is written there."""
    if ":" in name or name in _entry_points(folder):
        raise declared.UnreadableError(f"{name} is of another package")
    check_choice(ARGUMENTS.get(folder, folder), name, names(folder))
    files = _own_files(folder, name)
    if not files:
        raise declared.UnreadableError(f"{name} is no file of its own")
    return declared.function_of(files[0], name)


def _parameters(folder: str, part: str | Callable[..., Any]) -> list[inspect.Parameter]:
    """What a part's function takes, or its class's constructor: read from its file where that is possible."""
    if isinstance(part, str):
        with contextlib.suppress(declared.UnreadableError):
            if folder != "optimizers" or ":" in part or part in _entry_points(folder):
                return declared.parameters(_declared(folder, part))
            check_choice(ARGUMENTS[folder], part, names(folder))
            lists = list(declared.constructors(f"tfmtr.{folder}.{part}", _class_name(part)))
            return [parameter for one in reversed(lists) for parameter in one]
        part = _function(folder, part)
    if folder == "optimizers" and inspect.isclass(part):
        own = [c for c in part.__mro__ if "__init__" in vars(c) and hasattr(c, "apply_gradients")]
        return [p for c in reversed(own) for p in inspect.signature(c.__init__).parameters.values()]
    try:
        return list(inspect.signature(part).parameters.values())
    except ValueError:
        raise ValueError(
            f"`{ARGUMENTS[folder]}` must be a function like those of tfmtr/{_path(folder)}. Received: {part!r}"
        ) from None


def _class_name(name: str) -> str:
    """`"sparse_adam"` as `"SparseAdam"`."""
    return name.title().replace("_", "")


@functools.cache
def _entry_points(folder: str) -> dict[str, importlib.metadata.EntryPoint]:
    paths = {}
    for point in importlib.metadata.entry_points(group=f"tfmtr.{folder}"):
        if point.name in paths or point.name in _files(folder):
            raise ValueError(
                f"Entry points of the group `tfmtr.{folder}` must have names of their own. Received: {point.name!r} of "
                f"{point.value}, which is also {paths[point.name].value if point.name in paths else 'one of tfmtr'}"
            )
        paths[point.name] = point
    return paths


def _function(folder: str, name: str) -> Callable[..., Any]:
    """The function of a name or an import path."""
    if ":" in name:
        return _imported(folder, name)
    if name in (points := _entry_points(folder)):
        return points[name].load()
    check_choice(ARGUMENTS.get(folder, folder), name, names(folder))
    attribute = _class_name(name) if folder == "optimizers" else name  # those are classes
    return getattr(importlib.import_module(f"tfmtr.{folder}.{name}"), attribute)


def _imported(folder: str, path: str) -> Callable[..., Any]:
    """The function of an import path."""
    argument = ARGUMENTS.get(folder, folder)
    if _LOCKED:
        raise ValueError(
            f"`{argument}` must be the name of a part with `--no-import-paths`, which runs no code that a recipe or a "
            f"run names. Received: {argument}={path!r}"
        )
    module, _, name = path.partition(":")
    must = f"`{argument}` must be the import path of a function, package.module:function, that can be imported here"
    if not all(word.isidentifier() for word in (*module.split("."), *name.split("."))):
        raise ValueError(f"{must}. Received: {argument}={path!r}")
    try:
        function = _attribute(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # a module is code, which may do anything
        raise ValueError(
            f"{must}: {type(error).__name__}: {' '.join(str(error).split())}. Received: {argument}={path!r}"
        ) from error
    if not callable(function):
        raise ValueError(f"`{argument}` must be the import path of a function. Received: {path!r}, a {type(function)}")
    _check_function(folder, function, path)
    return function


def _check_function(folder: str, function: Callable[..., Any], received: Any) -> None:
    """Raises a `ValueError` unless a function takes what every part of a folder is called with."""
    if not _can_be_called(folder, function):
        raise ValueError(
            f"`{ARGUMENTS.get(folder, folder)}` must be a function like those of tfmtr/{_path(folder)}. Received: "
            f"{received!r}"
        )


def _can_be_called(folder: str, function: Callable[..., Any]) -> bool:
    """Whether a function takes what every part of a folder is called with."""
    try:
        signature = inspect.signature(function)
        bind = signature.bind if folder in WITHOUT_OPTIONS else signature.bind_partial
        bind(*[None] * POSITIONAL[folder], **dict.fromkeys(KEYWORDS.get(folder, ())))
    except (TypeError, ValueError):  # also of functions that are not written in Python
        return False
    return True


def _path(folder: str) -> str:
    return folder.replace(".", "/")


def _attribute(module: ModuleType, name: str) -> Any:
    return functools.reduce(getattr, name.split("."), module)


def _options_of(folder: str, part: str | Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """`({name: Parameter} of the options that a recipe may set, whether it takes any others)`."""
    parameters = _parameters(folder, part)[POSITIONAL[folder] :]
    given = {"towers", "num_scenarios", *SIDE_INPUTS} if folder == "sharing" else set()
    is_open = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    if folder == "optimizers" and any(
        p.name == "self" for p in parameters
    ):  # each class passes on what it does not know
        given, is_open = {"self", "learning_rate", "name"}, False
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {p.name: p for p in parameters if p.kind not in open_ended and p.name not in given}, is_open


def _kind_of(parameter: inspect.Parameter) -> Any:
    """The type of an option: what its function says, else its default's."""
    said = parameter.annotation
    if said not in (parameter.empty, Any) and not isinstance(said, str):
        return said
    return Any if parameter.default in (None, parameter.empty) else type(parameter.default)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type, as far as the values of a file can be told apart; it is of any other type.

    >>> _fits(2, float), _fits(2.5, int), _fits((2, 3), Sequence[int]), _fits({"a": "b"}, Mapping[str, float])
    (True, False, True, False)
    """
    if value is not None and not isinstance(value, (bool, numbers.Number, str, tuple, list, Mapping)):
        return True  # no file can hold it, such as a data set: the part itself knows whether it can stand there
    origin, inner = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin is typing.Literal:
        return value in inner
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if origin in (Sequence, tuple, list):
        return isinstance(value, tuple) and all(_fits(item, inner[0]) for item in value if inner)
    if origin in (Mapping, dict):
        return isinstance(value, Mapping) and all(_fits(item, inner[1]) for item in value.values() if inner)
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind not in (int, float, str, types.NoneType)
    if kind is float:
        return isinstance(value, numbers.Real) and is_finite(value)
    kinds = {int: numbers.Integral, str: str, types.NoneType: types.NoneType}
    return kind not in kinds or isinstance(value, kinds[kind])


def _plain(value: Any) -> Any:
    """An option as a file can hold it, as far as one can."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)):
        return tuple(_plain(item) for item in value)
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return {name: _plain(item) for name, item in value.items()}
    return value  # a recipe with it can be built, and not stored
