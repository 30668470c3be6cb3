"""Folders for work that is not done yet; what a process that was ended left of its own, the next one removes.

A folder is `<parent>/<prefix>scratch-<8 letters>`: no watcher takes the name for a version, and nobody else gives it. A
lock on a file in it is held while its owner lives and goes with the owner's process, however that ends. Removing
begins with everything else and ends with the lock's file, so that a removal that was cut short is gone on with.

Example:
>>> import tempfile
>>> with tempfile.TemporaryDirectory() as parent:
...     with scratch(parent, ".data.") as folder:
...         names = [path.name.partition("-")[0] for path in Path(parent).iterdir()]
...     names, list(Path(parent).iterdir())
(['.data.scratch'], [])
"""

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

MARK = "scratch-"
LOCK = ".lock"


@contextlib.contextmanager
def scratch(parent: str | os.PathLike, prefix: str, rescue: Callable[[Path], object] | None = None) -> Iterator[Path]:
    """Makes a folder that is there for the `with` block only, and first removes those of ended processes.

    What is to stay is renamed out of the folder: it is on the same file system as its place.

    Args:
        parent: Folder to make it in; made if it does not exist, and then removed if the work fails.
        prefix: What its name begins with, one prefix for each target, such as `".data."` for work on `data`.
        rescue: Function that is called with a folder before it is removed, also with one of an ended process, to move
            what must not be lost out of it.

    Yields:
        Path of the folder, in which only the lock's file is.
    """
    sweep(parent, prefix, rescue)
    is_new = not Path(parent).exists()
    folder, lock = _make(Path(parent), prefix)
    has_failed = True
    try:
        yield folder
        has_failed = False
    finally:
        try:
            _remove(folder, rescue)
        except BaseException:  # a second signal: once more, then it has its way
            _remove(folder, rescue)
            raise
        finally:
            os.close(lock)
            if has_failed and is_new:  # work that failed leaves nothing
                with contextlib.suppress(OSError):  # unless others wrote into it
                    Path(parent).rmdir()


def sweep(parent: str | os.PathLike, prefix: str, rescue: Callable[[Path], object] | None = None) -> None:
    """Removes the folders of ended processes; those of living ones, of other threads too, are left alone.

    Args:
        parent: As for `scratch`; may not exist.
        prefix: As for `scratch`.
        rescue: As for `scratch`.
    """
    if not Path(parent).is_dir():
        return
    name = re.compile(re.escape(prefix + MARK) + "[a-z0-9_]{8}")
    for folder in sorted(path for path in Path(parent).iterdir() if name.fullmatch(path.name)):
        try:
            lock = os.open(folder / LOCK, os.O_RDWR)
        except FileNotFoundError:  # just made, or nearly removed: if it is empty, its owner makes another one
            with contextlib.suppress(OSError):
                folder.rmdir()
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(folder, rescue)
        except OSError:
            pass  # its owner lives, or it may not be removed
        finally:
            os.close(lock)


def remove(path: Path) -> None:
    """Removes a file, a link or a folder, if it is there."""
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def _make(parent: Path, prefix: str) -> tuple[Path, int]:
    """A new folder and the descriptor that holds its lock."""
    parent.mkdir(parents=True, exist_ok=True)
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix + MARK, dir=parent))
        try:
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT)
        except FileNotFoundError:
            continue  # another process swept it before there was a lock
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_nlink:
                return folder, lock
        except BlockingIOError:
            pass  # another process is removing it
        except OSError:
            return folder, lock  # no locks on this file system: nobody sweeps there either
        os.close(lock)


def _remove(folder: Path, rescue: Callable[[Path], object] | None) -> None:
    if rescue is not None and folder.is_dir():
        rescue(folder)
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name != LOCK:
            remove(path)
    (folder / LOCK).unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        folder.rmdir()
