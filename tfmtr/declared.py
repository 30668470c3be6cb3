"""What a part's function takes, read from its file: importing that would take Keras, which takes seconds.

What a file says in another way than the files of this package do cannot be read here (`UnreadableError`): then the
function itself is asked.
"""

import ast
import functools
import importlib.util
import inspect
import threading
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

POSITIONAL, KEYWORD = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
EMPTY = inspect.Parameter.empty
TYPES: dict[str, Any] = {kind.__name__: kind for kind in (bool, int, float, str, tuple, list, dict)}
TYPES |= {"Any": Any, "Callable": Callable, "Mapping": Mapping, "Sequence": Sequence, "Literal": typing.Literal}
PARSER = threading.Lock()


class UnreadableError(Exception):
    """A file says in another way what is looked for."""


def function_of(file: Path, name: str) -> ast.FunctionDef:
    """The function of a name in a file."""
    definitions = [node for node in _parse(file).body if isinstance(node, ast.FunctionDef) and node.name == name]
    if len(definitions) != 1:
        raise UnreadableError(f"{file} has no function {name}")
    return definitions[0]


def decorators(function: ast.FunctionDef) -> set[str]:
    """Names of a function's decorators."""
    return {node.id for node in function.decorator_list if isinstance(node, ast.Name)}


def parameters(function: ast.FunctionDef) -> list[inspect.Parameter]:
    """The parameters of a function, as `inspect.signature` has them; types that are not Python's are `object`."""
    given, result = function.args, []
    named = [*given.posonlyargs, *given.args]
    defaults = [None] * (len(named) - len(given.defaults)) + given.defaults
    for kind, arguments, values in ((POSITIONAL, named, defaults), (KEYWORD, given.kwonlyargs, given.kw_defaults)):
        for argument, default in zip(arguments, values, strict=True):
            value = EMPTY if default is None else _value(default)
            annotation = EMPTY if argument.annotation is None else _kind(argument.annotation)
            result.append(inspect.Parameter(argument.arg, kind, default=value, annotation=annotation))
    if given.kwarg is not None:
        result.append(inspect.Parameter(given.kwarg.arg, inspect.Parameter.VAR_KEYWORD))
    return result


def constructors(module: str, name: str) -> Iterator[list[inspect.Parameter]]:
    """The parameters of a class's constructor, and of those of its bases, as far as they have one of their own."""
    file, name = _home(module, name)
    tree = _parse(file)
    (definition,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name] or [None]
    if definition is None:
        raise UnreadableError(f"{file} has no class {name}")
    for node in definition.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            yield parameters(node)
    for base in definition.bases:
        path = ast.unparse(base)
        root, _, rest = path.partition(".")
        if root in (imported := _imports(tree)):
            yield from constructors(*f"{imported[root]}.{rest}".rstrip(".").rsplit(".", 1))


def _home(module: str, name: str) -> tuple[Path, str]:
    """The file that a class is written in, and its name there, whatever module it is imported from."""
    top, *path = module.split(".")
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        raise UnreadableError(f"{top} is not installed")
    place = Path(spec.origin).parent.joinpath(*path)
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    imported = _imports(_parse(file)).get(name, "")
    return _home(*imported.rsplit(".", 1)) if "." in imported else (file, name)


def _imports(tree: ast.Module) -> dict[str, str]:
    """`{name: what it is imported from}`; what is imported under a condition, by the backend, has no options."""
    origins = {}
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            start = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            origins |= {alias.asname or alias.name: f"{start}{alias.name}" for alias in node.names}
    return origins


def _parse(file: Path) -> ast.Module:
    try:
        return _parsed(file, file.stat().st_mtime_ns)
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableError(str(error)) from error


@functools.lru_cache(maxsize=256)
def _parsed(file: Path, changed: int) -> ast.Module:
    """A file as it is since a moment; one at a time, as Python 3.11 fails now and then where two threads parse."""
    with PARSER:
        return ast.parse(file.read_text(encoding="utf-8"))


def _value(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise UnreadableError(f"{ast.unparse(node)} is no plain value") from error


def _kind(node: ast.expr) -> Any:
    """A type as it is written: `int | None`, `Sequence[int]`."""
    if isinstance(node, ast.BinOp):
        return _kind(node.left) | _kind(node.right)
    if isinstance(node, ast.Subscript):
        origin = _kind(node.value)
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        items = [_value(one) if origin is typing.Literal else _kind(one) for one in inner]
        return object if origin in (object, Callable) else origin[tuple(items)]
    if isinstance(node, ast.Constant):
        return node.value
    return TYPES.get(ast.unparse(node), object)
