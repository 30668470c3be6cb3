"""A run directory as an object: the one place where it is opened.

A run directory holds

    run.json        recipe, versions, seeds, data fingerprint, figures
    schema.json     the Schema the model was built from
    weights/window-<i>.npz   all variables, model and optimizer, as evaluated on test window i
    listwise.npz    what orders lists beside the towers, where the recipe has a list model
    checkpoint/     state of the stage in progress
    logs/           TensorBoard

and, once it is evaluated, `evaluation.json`, `scores.parquet` and `list_scores.parquet`; once it is calibrated,
`calibration.json`.
"""

import functools
import importlib.metadata
import os
import platform
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfmtr.datasets.dataset import Dataset
from tfmtr.documents import read_json
from tfmtr.folders import Folder, as_path, check_format
from tfmtr.recipe import Recipe, with_former_defaults
from tfmtr.schema import Schema

if TYPE_CHECKING:
    from tfmtr.evaluation.evaluation import Evaluation
    from tfmtr.listwise.model import ListModel
    from tfmtr.models import JointModel

VERSIONS_OF = ("tensorflow", "keras", "numpy", "pyarrow", "duckdb", "ibis-framework", "scikit-learn")
LIST_MODEL = "listwise.npz"
DEFAULT_PRECISION = "float32"  # of runs that do not say


class Run(Folder):
    """A directory made by `tfmtr train`.

    Args:
        path: The directory, or another `Run`.

    Raises:
        ValueError: If there is no `run.json`, or a newer version of this package wrote it.

    Attributes:
        path: The directory.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = as_path("run", path)
        check_format("run", self.document, self.path)

    @property
    def document(self) -> dict[str, Any]:
        """The document `run.json` as it is now."""
        document = read_json(self.path / "run.json")
        if document is None:
            raise ValueError(f"`{self.path}` must be a directory made by `tfmtr train`: it has no run.json.")
        return document

    @property
    def recipe(self) -> Recipe:
        """What the run was made with."""
        try:
            return recipe_of(self.document)
        except ValueError as error:
            raise ValueError(f"{self.path / 'run.json'}: {error}") from None

    @property
    def schema(self) -> Schema:
        """What the model was built from: the data's schema, with the scenarios and features of the recipe."""
        return Schema.load(self.path)

    @property
    def run_id(self) -> str:
        """What tells this run from all others."""
        return self.document["run_id"]

    @property
    def data(self) -> Dataset:
        """What the run was trained on.

        Raises:
            ValueError: If it is not where it was, or another one is there.
        """
        document = self.document
        data = Dataset(document["data"])
        if data.report["fingerprint"] != document["fingerprint"]:
            raise ValueError(
                f"`{self.path}` must have the data that it was trained on, with the fingerprint "
                f"{document['fingerprint'][:8]}; bring them back, or correct `data` in its run.json. Received: "
                f"{data.path.absolute()} with {data.report['fingerprint'][:8]}"
            )
        return data

    @property
    def windows(self) -> list[int]:
        """Numbers of the windows that there are weights for, in order."""
        return windows_of(self.path)

    @property
    def evaluation(self) -> "Evaluation | None":
        """What `tfmtr evaluate` found; `None` before it."""
        from tfmtr.evaluation.evaluation import Evaluation

        document = read_json(self.path / "evaluation.json")
        if document is not None and "tasks" not in document:
            raise ValueError(
                f"`{self.path / 'evaluation.json'}` must be what `tfmtr evaluate` wrote; run it again. Received: a "
                "document without 'tasks'"
            )
        return None if document is None else Evaluation(document, self.path)

    @functools.cached_property
    def model(self) -> "JointModel":
        """The newest model; `load` has the others."""
        return self.load()

    @property
    def list_model(self) -> "ListModel | None":
        """What orders lists beside the towers; `None` where towers alone do.

        A warning says that a run should have one and has none: it is not finished so far, or the file was removed.

        Raises:
            ValueError: If the file is damaged.
        """
        from tfmtr.diagnosis import warn
        from tfmtr.listwise.model import ListModel

        file = self.path / LIST_MODEL
        if not file.exists():
            if self._asks_for_list_model:
                warn(
                    f"{self.path} has no {LIST_MODEL}: its lists are ordered by the towers alone. `tfmtr train` with "
                    "the same recipe fits what is missing"
                )
            return None
        try:
            if not zipfile.is_zipfile(file):  # of another file numpy would say that it may be loaded "unsafely"
                raise zipfile.BadZipFile("not a zip file, or a part of one")
            return ListModel.load(file)
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
            raise ValueError(
                f"`{file}` must be a whole file of a list model, as training writes it; copy it again, or remove it "
                f"and run `tfmtr train` with the same recipe. Received: {' '.join(str(error).split())}"
            ) from None

    @property
    def _asks_for_list_model(self) -> bool:
        """Whether the run is one that has a list model when it is finished."""
        document = self.document
        fitted = document.get("listwise")  # days of earlier versions do not say
        has_one = "start" not in document if fitted is None else fitted.get("reason") is None
        return has_one and recipe_of(document).listwise

    def weights(self, window: int | None = None) -> Path:
        """File with the variables as of a window, the last one by default.

        Raises:
            ValueError: If the run is not finished so far.
        """
        windows = self.windows
        if not windows:
            raise ValueError(f"`{self.path}` must be a finished run: it has no weights. Finish it with `tfmtr train`.")
        if window is None and (missing := sorted(set(self.document.get("windows", ())) - set(windows))):
            raise ValueError(
                f"`{self.path}` must be a finished run for its newest model; finish it with `tfmtr train`, or name a "
                f"window. Received: no weights for the windows {missing}, there are {windows}"
            )
        window = windows[-1] if window is None else window
        if window not in windows:
            raise ValueError(
                f"`window` must be one that {self.path} has weights for; finish the run with `tfmtr train`. "
                f"Received: window={window}, there are {windows}"
            )
        return weights_of(self.path, window)

    def check_form(self, form: str = "two_tower") -> None:
        """Raises a `ValueError` unless the run's model is of a form."""
        if (own_form := self.recipe.form) != form:
            raise ValueError(
                f"The run in {self.path} must be of form={form} for this step: an index is of two towers, and a "
                f"ranking model orders what an index finds. Received: form={own_form}"
            )

    def load(self, *, window: int | None = None, form: str | None = None) -> "JointModel":
        """The model as it was evaluated on a test window (the last one by default).

        Args:
            window: The window.
            form: What the model's form must be, if anything.

        Raises:
            ValueError: If the run is not finished, has no weights for `window`, or is of another form.
        """
        from tfmtr import precision
        from tfmtr.checkpoints import restore

        if form is not None:
            self.check_form(form)
        file, document = self.weights(window), self.document
        with precision.use(precision_of(document)):
            model = self.recipe.build(self.schema)
        restore(model, file)
        return model


def recipe_of(document: dict[str, Any]) -> Recipe:
    """The `Recipe` of a run's document.

    One that does not speak of a list model is of a run without one, and one of before format 3 means the defaults that
    parts had then.
    """
    recipe = {"listwise": False, **document["recipe"]}
    return Recipe.from_document(with_former_defaults(recipe) if document.get("format", 1) < 3 else recipe)


def precision_of(document: dict[str, Any]) -> str:
    """Name of the dtype policy of a run's document."""
    return document.get("dtype_policy", DEFAULT_PRECISION)


def weights_of(path: str | os.PathLike, window: int | str) -> Path:
    """File with the variables as of a window."""
    return Path(path, "weights", f"window-{window}.npz")


def windows_of(path: str | os.PathLike) -> list[int]:
    """Numbers of the windows that a directory has weights for, in order."""
    numbers = (file.stem.removeprefix("window-") for file in Path(path, "weights").glob("window-*.npz"))
    return sorted(int(number) for number in numbers if number.isdecimal())


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in VERSIONS_OF}}
