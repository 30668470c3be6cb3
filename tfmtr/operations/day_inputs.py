"""What a day is made from, so that a day that is run again knows what has changed since."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfmtr.documents import read_json, write_json
from tfmtr.scratch import remove


def state_of(path: Path) -> str:
    """A text that changes with a table's or a store's files: their names, sizes and times of change.

    Args:
        path: File or folder.
    """
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    total = hashlib.sha256()
    for file in files:
        facts = file.stat()
        total.update(f"{file.relative_to(path)}\n{facts.st_size}\n{facts.st_mtime_ns}\n".encode())
    return f"{len(files)} files, {total.hexdigest()[:16]}"


class Steps:
    """Which results of a day's folder are still what its inputs give.

    `keys.json` holds, for each step that has begun, what it was made from. A step whose key has changed loses its
    results, and so do all that come after it.

    Args:
        folder: The day's folder.
        results: `{step: names of its results in the folder}`, in order.
        say: Function that shows a line.
        again_from: Name of the first step to do again in any case, or `None`.
    """

    def __init__(
        self,
        folder: Path,
        results: Mapping[str, Sequence[str]],
        say: Callable[[str], object],
        again_from: str | None = None,
    ) -> None:
        self.folder, self.results, self.say = folder, results, say
        self.keys = read_json(folder / "keys.json") or {}
        if again_from is not None:
            self._drop(again_from)

    def open(self, step: str, key: Mapping[str, Any], keep: str | None = None) -> None:
        """Begins a step with its key, a dictionary that JSON can hold; says what has changed since it was done.

        With `keep`, a name, its last result is not removed but has that name.
        """
        stored_key = self.keys.get(step)
        if stored_key != key:
            if stored_key is not None and self._has_results(step):
                changed = sorted(name for name in {*stored_key, *key} if stored_key.get(name) != key.get(name))
                self.say(f"{step} again, and what comes after it: since then {' and '.join(changed)} changed")
            if keep is not None and (self.folder / self.results[step][-1]).exists():
                remove(self.folder / keep)
                (self.folder / self.results[step][-1]).rename(self.folder / keep)
            self._drop(step)
            self.keys[step] = key
            write_json(self.folder / "keys.json", self.keys)

    def forget(self, step: str) -> None:
        """Removes a step's key: whatever its results are made from, they are not its."""
        if self.keys.pop(step, None) is not None:
            write_json(self.folder / "keys.json", self.keys)

    def _has_results(self, step: str) -> bool:
        return any((self.folder / name).exists() for name in self.results[step])

    def _drop(self, first: str) -> None:
        """Removes the results of a step and of those after it; last ones first, so that an interruption is no harm."""
        steps = list(self.results)
        for step in reversed(steps[steps.index(first) :]):
            for name in self.results[step]:
                remove(self.folder / name)
            self.keys.pop(step, None)
        if self.folder.is_dir():
            write_json(self.folder / "keys.json", self.keys)
