"""How large the house is: README, tracked files, the longest module, class and function, long signatures, circles.

    python benchmarks/house.py

Lines are those of the package's files, docstrings included. Of arguments `self` is left out; functions with more than
seven are listed. A circle is one of modules that import each other while they are imported.

Expected: a line for each of these figures, and "circles of imports: none".
"""

import ast
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "tfmtr"
MANY = 7  # arguments


def main(root=ROOT):
    """Prints the figures and returns them, `{words: figure}`."""
    tracked = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout
    trees = {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in modules(root).items()}
    nodes = [(name, node) for name, tree in trees.items() for node in ast.walk(tree)]
    functions = [(name, node) for name, node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    classes = [(name, node) for name, node in nodes if isinstance(node, ast.ClassDef)]
    lengths = {name: len(file.read_text(encoding="utf-8").splitlines()) for name, file in modules(root).items()}
    longest = max(lengths, key=lambda name: lengths[name])
    figures = {
        "README, bytes": (root / "README.md").stat().st_size,
        "tracked files": len(tracked.splitlines()),
        "longest module": f"{longest}, {lengths[longest]} lines",
        "longest class": longest_of(classes),
        "longest function": longest_of(functions),
        f"functions with more than {MANY} arguments": ", ".join(sorted(
            f"{name}.{node.name} ({arguments(node)})" for name, node in functions if arguments(node) > MANY
        )) or "none",
        "circles of imports": "; ".join(map(", ".join, circles(trees))) or "none",
    }  # fmt: skip
    print("\n".join(f"{words}: {figure}" for words, figure in figures.items()))
    return figures


def modules(root) -> dict[str, Path]:
    """`{module: file}` of the package."""
    return {
        ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): file
        for file in sorted((root / PACKAGE).rglob("*.py"))
    }


def longest_of(nodes) -> str:
    """The longest of classes or functions, with its lines."""
    if not nodes:
        return "none"
    name, node = max(nodes, key=lambda pair: pair[1].end_lineno - pair[1].lineno)
    return f"{name}.{node.name}, {node.end_lineno - node.lineno + 1} lines"


def arguments(node) -> int:
    """Arguments of a function, `self` and `cls` left out."""
    of = node.args
    names = [argument.arg for argument in (*of.posonlyargs, *of.args, *of.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def imported(body: Iterable[ast.AST]) -> Iterator[str]:
    """Names that a module imports while it is imported: not those in functions, nor for the type checker alone."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imported(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imported(ast.iter_child_nodes(node))


def circles(trees) -> list[list[str]]:
    """Modules that reach themselves by imports, those of one circle together."""
    arrows = {}
    for name, tree in trees.items():
        targets = {target if target in trees else target.rpartition(".")[0] for target in imported(tree.body)}
        arrows[name] = {target for target in targets if target in trees and target != name}
    reached = {name: reach(name, arrows) for name in arrows}
    together = {tuple(sorted(b for b in reached[a] if a in reached[b])) for a in arrows if a in reached[a]}
    return [list(names) for names in sorted(together)]


def reach(name, arrows) -> set[str]:
    """Modules that one imports, directly or by others."""
    found, open_ones = set(), [name]
    while open_ones:
        fresh = arrows[open_ones.pop()] - found
        found |= fresh
        open_ones += fresh
    return found


if __name__ == "__main__":
    main()
