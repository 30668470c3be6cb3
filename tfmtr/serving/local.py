"""A server in this process, for a notebook, a test or a first look: `tfmtr.serve`."""

import dataclasses
import numbers
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format
from rich.table import Table
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig  # pyright: ignore[reportAttributeAccessIssue]

from tfmtr.checks import check_choice, check_integer, is_finite
from tfmtr.evaluation.fitting_table import as_text
from tfmtr.evaluation.tables import FALLBACKS
from tfmtr.kinds import KINDS
from tfmtr.names import HISTORY
from tfmtr.schema import Feature
from tfmtr.serving.client import Client
from tfmtr.serving.options import ServerOptions
from tfmtr.serving.recommendations import ask, history_inputs, user_inputs, weight_inputs
from tfmtr.serving.server import Server
from tfmtr.version import Version

OWN = ("model_base_path", "model_name", "model_config_file")  # options that the version says


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
        """A line a title, as text, and a line for each thing that was not known of the user."""
        table = Table("", "title", "score")
        for place, (title, score) in enumerate(zip(self.titles, self.scores, strict=True), start=1):
            table.add_row(str(place), title, f"{score:.4f}")
        return "\n".join([as_text(table), *(FALLBACKS[name] for name in self.fallback)])

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
        flags = [field.name for field in dataclasses.fields(ServerOptions) if field.name not in OWN]
        for name in options:
            check_choice("options", name, flags)
        if port is None:
            raise ValueError("`port` must be an integer: a local server is asked over gRPC. Received: port=None")
        if rest_api_port and rest_api_port == port:
            raise ValueError(f"`rest_api_port` must be another port than `port`. Received: {rest_api_port} for both")
        self.version = Version(version)
        path = self.version.path.resolve()
        self.name = path.parent.name
        config = ModelServerConfig()
        model = config.model_config_list.config.add(name=self.name, base_path=str(path.parent))
        model.model_platform = "tensorflow"
        model.model_version_policy.specific.versions.append(self.version.number)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "models.config")
            file.write_text(text_format.MessageToString(config), encoding="utf-8")
            super().__init__(port=port, rest_api_port=rest_api_port, model_config_file=str(file), **options)

    def start(self) -> bool:
        """As of `Server`, but there must be the version: nobody is going to write it.

        Raises:
            ValueError: If the version is gone.
        """
        if not self.version.path.is_dir():
            raise ValueError(f"`version` must be there still when the server starts. Received: {self.version}")
        return super().start()

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
        weights: Mapping[str, float] | None = None,
    ) -> Recommendations:
        """The best titles for a user.

        Args:
            features: `{feature: value}` of the user; what is left out is unknown.
            k: How many titles.
            territory: Whose catalogue is searched; the user's own by default.
            seen: Ids of titles that are left out.
            history: What the user had, `{title: days since then}`, the newest last; for models that order lists by it.
            weights: `{task: weight}`; by default the tasks have their own.

        Raises:
            ValueError: If the model has no such feature, a value is not of its kind, or the model takes no history.
            ServerError: If the server refuses the request.
        """
        accepted: dict[str, Feature | None] = {}
        for schema in self.version.schemas:
            accepted |= {name: None for name in schema.scenario.columns if name not in accepted}
            accepted |= {feature.name: feature for feature in schema.by_role("user", "context")}
        for name, value in features.items():
            check_choice("features", name, accepted)
            _check_value(name, value, accepted[name])
        k = check_integer("k", k, least=1, most=2**31 - 1)
        if territory is not None and not isinstance(territory, str):
            raise ValueError(f"`territory` must be text. Received: territory={territory!r}")
        if not _are_texts(seen):
            raise ValueError(f"`seen` must be a list of ids, which are text. Received: seen={seen!r}")
        with self.client() as client:
            signature = client.metadata()["recommend"]
            inputs = user_inputs(self.version, dict(features), signature)
            inputs |= weight_inputs(weights or {}, signature)
            if history is not None:
                check_choice("history", HISTORY[0], [name for name in signature.inputs if name in HISTORY])
                inputs |= history_inputs(history)
            answer = ask(client, inputs, territory=territory or features.get("territory"), seen=seen, k=k)
        return Recommendations(*answer)


def _are_texts(values: Any) -> bool:
    """Whether these are texts, and not one text, whose letters Python takes for texts, too."""
    return isinstance(values, (list, tuple, set, np.ndarray)) and all(isinstance(value, str) for value in values)


def _check_value(name: str, value: Any, feature: Feature | None) -> None:
    """Raises a `ValueError` unless a value is of its feature's kind; a column that is no feature is text."""
    kind = feature.kind if feature else "text"
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if feature and kind == "vector":
        must = f"{feature.width} finite numbers"
        row = np.asarray(value)
        is_it = row.shape == (feature.width,) and row.dtype.kind in "fiu" and bool(np.isfinite(row).all())
    elif kind in ("set", "sequence"):
        must, is_it = "a list of texts", _are_texts(value)
    elif kind == "number" or (feature and not KINDS[kind].is_text):
        must, is_it = "a finite number", is_number and is_finite(value)
    else:
        is_whole = kind == "id" and is_number and isinstance(value, numbers.Integral)
        must, is_it = "one text", isinstance(value, str) or is_whole
    if value is not None and not is_it:
        raise ValueError(f"`features` must have {must} for {name!r}. Received: {name}={value!r}")


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
        ValueError: If it is no version, there is no such option, or one does not fit.
    """
    return LocalServer(version, port=port, rest_api_port=rest_api_port, **options)
