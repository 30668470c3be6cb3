"""An exported version as an object."""

import os
from typing import Any

from tfmtr.documents import read_facts
from tfmtr.folders import Folder, as_path, check_format
from tfmtr.schema import Schema

RANKING = "ranking"  # the folder in `assets.extra/` with the schema of the second stage


class Version(Folder):
    """A directory made by `tfmtr export`: a SavedModel, and in `assets.extra/` what it was made of.

    Args:
        path: The directory, `<model>/<number>`, or another `Version`.

    Raises:
        ValueError: If it is no such directory, or a newer version of this package wrote it.

    Attributes:
        path: The directory.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = as_path("version", path)
        check_format("version", self.facts, self.path)

    @property
    def number(self) -> int:
        """The version's number, which is the directory's name."""
        return int(self.path.resolve().name)

    @property
    def facts(self) -> dict[str, Any]:
        """What it was made of: run, fingerprints, recipe, versions, number of titles, kind of the index."""
        facts = read_facts(self.path)
        if facts is None:
            raise ValueError(
                f"`{self.path}` must be a version made by `tfmtr export`, `<model>/<number>`: it has no "
                "assets.extra/tfmtr.json"
            )
        return facts

    @property
    def schema(self) -> Schema:
        """What the model was built from."""
        return Schema.load(self.path / "assets.extra")

    @property
    def schemas(self) -> tuple[Schema, ...]:
        """Those of the models in it: of the first stage, and of the ranking model where there is a second."""
        second = self.path / "assets.extra" / RANKING
        return (self.schema, Schema.load(second)) if second.is_dir() else (self.schema,)

    @property
    def needs(self) -> str:
        """What it needs of the server; empty where TensorFlow Serving's stock image serves it."""
        return self.facts.get("needs", "")
