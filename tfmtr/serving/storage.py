"""Files of this machine, or at an address such as `gs://bucket/model`, which TensorFlow's file systems read."""

import os
from pathlib import Path
from typing import TypeVar

import tensorflow as tf

Location = Path | str  # of this machine, or an address
AnyLocation = TypeVar("AnyLocation", Path, str, Path | str)


def locate(path: str | os.PathLike) -> Location:
    """An address as it is, anything else as a path of this machine.

    Example:
    >>> locate("gs://bucket/model"), locate("/models/toy").name
    ('gs://bucket/model', 'toy')
    """
    text = os.fspath(path)
    return text if "://" in text else Path(text)


def check_scheme(path: str | os.PathLike) -> None:
    """Raises a `ValueError` if an address is of a scheme that TensorFlow has no file system of here."""
    scheme, is_address, _ = os.fspath(path).partition("://")
    schemes = sorted(filter(None, tf.io.gfile.get_registered_schemes()))
    if is_address and scheme not in schemes:
        raise ValueError(
            f"an address must be of a scheme that TensorFlow has a file system of, which are {schemes} here; copy the "
            f"model to this machine, or install what adds the scheme. Received: {path}"
        )


def join(location: AnyLocation, name: str | os.PathLike) -> AnyLocation:
    """The location of what is called `name` below another."""
    if isinstance(location, Path):
        return location / name
    return f"{location.rstrip('/')}/{os.fspath(name)}"  # pyright: ignore[reportReturnType] - of a text a text


def is_file(location: Location) -> bool:
    """Whether there is a file.

    Raises:
        OSError: If that cannot be told.
    """
    if isinstance(location, Path):
        return location.is_file()
    return tf.io.gfile.exists(location) and not tf.io.gfile.isdir(location)


def is_directory(location: Location) -> bool:
    """Whether there is a directory."""
    return location.is_dir() if isinstance(location, Path) else tf.io.gfile.isdir(location)


def list_names(location: Location) -> list[str]:
    """Names of what is in a directory, in order.

    Raises:
        OSError: If it cannot be listed.
    """
    if isinstance(location, Path):
        return sorted(path.name for path in location.iterdir())
    try:
        return sorted(name.rstrip("/") for name in tf.io.gfile.listdir(location))
    except tf.errors.OpError as error:
        raise OSError(error.message) from error


def read_text(location: Location) -> str:
    """The text of a file.

    Raises:
        OSError: If it cannot be read.
        UnicodeDecodeError: If it is no UTF-8.
    """
    if isinstance(location, Path):
        return location.read_text(encoding="utf-8")
    try:
        with tf.io.gfile.GFile(location, "rb") as file:
            return file.read().decode()
    except tf.errors.OpError as error:
        raise OSError(error.message) from error
