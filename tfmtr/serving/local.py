"""A server in this process, for a notebook, a test or a first look: `tfmtr.serve`."""

import dataclasses
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from tfmtr.evaluation.fitting_table import as_text
from tfmtr.names import HISTORY
from tfmtr.schema import check_choice
from tfmtr.serving.client import Client
from tfmtr.serving.recommend import ask, history_inputs, user_inputs
from tfmtr.serving.server import Server
from tfmtr.version import Version

CONFIG = """model_config_list {{ config {{
  name: "{name}" base_path: "{path}" model_platform: "tensorflow"
  model_version_policy {{ specific {{ versions: {number} }} }}
}} }}
"""


@dataclasses.dataclass(frozen=True)
class Recommendations:
    """An answer to one user.

    Args:
        titles: Ids of the titles, best first.
        scores: Their scores.
        fallback: What was not known of the user; see `tfmtr.retrieval.recommender.Recommender`.
    """

    titles: tuple[str, ...]
    scores: tuple[float, ...]
    fallback: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.table()

    def table(self) -> str:
        """A line a title, as text."""
        table = Table("", "title", "score")
        for place, (title, score) in enumerate(zip(self.titles, self.scores, strict=True), start=1):
            table.add_row(str(place), title, f"{score:.4f}")
        return as_text(table)

    def to_json(self) -> dict[str, Any]:
        """The answer as JSON can hold it."""
        return {name: list(value) for name, value in dataclasses.asdict(self).items()}


class LocalServer(Server):
    """A server of one version that can be asked with a user's features; a context manager that starts and stops it.

    Args:
        version: A `Version`, or its path.
        port: gRPC port; 0 for any free one.
        rest_api_port: REST port; 0 for any free one, `None` for no REST.
        **options: The other fields of `tfmtr.serving.options.ServerOptions`.
    """

    def __init__(
        self, version: str | os.PathLike, *, port: int = 0, rest_api_port: int | None = None, **options: Any
    ) -> None:
        self.version = Version(version)
        path = self.version.path.resolve()
        self.name = path.parent.name
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder, "models.config")
            text = CONFIG.format(name=self.name, path=path.parent, number=self.version.number)
            config.write_text(text, encoding="utf-8")
            super().__init__(port=port, rest_api_port=rest_api_port, model_config_file=str(config), **options)

    def client(self, **options: Any) -> Client:
        """A `Client` of the running server."""
        return Client(f"127.0.0.1:{self.port}", self.name, **options)

    def recommend(
        self,
        features: Mapping[str, Any],
        *,
        k: int = 10,
        territory: str | None = None,
        seen: Sequence[str] = (),
        history: Mapping[str, float] | None = None,
    ) -> Recommendations:
        """The best titles for a user.

        Args:
            features: `{feature: value}` of the user; what is left out is unknown.
            k: How many titles.
            territory: Whose catalogue is searched; the user's own by default.
            seen: Ids of titles that are left out.
            history: What the user had, `{title: days since then}`, the newest last; for models that order lists by it.

        Raises:
            ValueError: If the model has no such feature, or takes no history.
            ServerError: If the server refuses the request.
        """
        schema = self.version.schema
        known = {feature.name for feature in schema.by_role("user", "context")} | set(schema.scenario.columns)
        for name in features:
            check_choice("features", name, known)
        with self.client() as client:
            signature = client.metadata()["recommend"]
            inputs = user_inputs(self.version, dict(features), signature)
            if history is not None:
                check_choice("history", HISTORY[0], [name for name in signature.inputs if name in HISTORY])
                inputs |= history_inputs(history)
            found = ask(client, inputs, territory=territory or features.get("territory"), seen=seen, k=k)
        return Recommendations(*found)


def serve(
    version: str | os.PathLike, *, port: int = 0, rest_api_port: int | None = None, **options: Any
) -> LocalServer:
    """A server of one version in this process: `with tfmtr.serve(version) as server: server.recommend(...)`.

    For a service see `tfmtr serve`, and TensorFlow Serving.

    Args:
        version: What `tfmtr.export` returned, or its path.
        port: gRPC port; 0 for any free one.
        rest_api_port: REST port; 0 for any free one, `None` for no REST.
        **options: The other fields of `tfmtr.serving.options.ServerOptions`.

    Raises:
        ValueError: If it is no version, or an option does not fit.
    """
    return LocalServer(version, port=port, rest_api_port=rest_api_port, **options)
