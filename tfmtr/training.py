"""Training: Keras `fit` that survives a kill, with the paper's incremental daily training.

A run directory holds

    run.json        arguments, versions, seeds, data fingerprint, figures
    schema.json     the Schema the model was built from
    weights/window-<i>.npz   all variables, model and optimizer, as evaluated on test window i
    checkpoint/     state of the stage in progress
    logs/           TensorBoard

and, once it is evaluated, `evaluation.json` and `scores.parquet`; see `tfmtr.evaluation.evaluate`.
"""

import contextlib
import dataclasses
import functools
import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import time
from pathlib import Path
from typing import Literal

import keras
import numpy as np

from tfmtr import components, inputs, models, replicas
from tfmtr.datasets.groups import random_groups
from tfmtr.datasets.prepared import Prepared
from tfmtr.documents import read_json, write_json
from tfmtr.growth import grow_schema, warm_start
from tfmtr.heads.parallel import parallel
from tfmtr.schema import Scenario, Schema, check_choice
from tfmtr.sharing._shared import per_pair

OPTIMIZERS = ("adam", "sparse_adam", "row_wise_adagrad", "clippy_adagrad")
VERSIONS_OF = ("tensorflow", "keras", "numpy", "pyarrow", "duckdb", "ibis-framework", "scikit-learn")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What decides a run's result, beside the data; stored in `run.json`.

    Args:
        share: Name of a file in `tfmtr/sharing/`.
        head: Name of a file in `tfmtr/heads/`.
        upsample: Whether the disjoint set of active users is trained on too.
        groups: `"given"`: the schema's scenarios; as controls `"one"`: all in one, `"random"`: as many groups, drawn
            by `seed`; or the territories' groups themselves, `{territory: group}`.
        units: Widths of the towers' layers.
        embedding_dim: Width of one categorical embedding.
        unknown_rate: Share of rows that train the default branch.
        literal: Whether to build the paper's literal score.
        epochs: Most epochs over the training window.
        patience: Epochs without a better validation loss before training stops.
        batch_size: Rows of one step.
        learning_rate: Of Adam.
        seed: Of weights, order and dropped scenarios.
        deterministic: Whether TensorFlow's ops must be deterministic, so that a resumed run repeats an unbroken one.
        balance: Name of a file in `tfmtr/balancing/`, or `None` for the sum of the losses.
        optimizer: One of `OPTIMIZERS`; the row-sparse ones are for large tables.
        normalizer: `"rows"`: a loss is the mean over rows; `"groups"`: the sum of the scenarios' means, for the head
            `parallel`.
        per_pair: Whether a multi-task file of `tfmtr/sharing/` is made multi-domain: each pair of task and scenario is
            a task to it.
    """

    share: str = "territory_branches"
    head: str = "parallel"
    upsample: bool = True
    groups: Literal["given", "one", "random"] | dict[str, str] = dataclasses.field(default="given", hash=False)
    units: tuple[int, ...] = (512, 512)
    embedding_dim: int = 16
    unknown_rate: float = 0.05
    literal: bool = False
    epochs: int = 10
    patience: int = 2
    batch_size: int = 8192
    learning_rate: float = 1e-3
    seed: int = 0
    deterministic: bool = True
    balance: str | None = None
    optimizer: str = "adam"
    normalizer: Literal["rows", "groups"] = "rows"
    per_pair: bool = False

    def __post_init__(self):
        if not isinstance(self.groups, dict):
            check_choice("groups", self.groups, ("given", "one", "random"))
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("normalizer", self.normalizer, ("rows", "groups"))
        if self.normalizer == "groups" and self.head != "parallel":
            raise ValueError(f'`normalizer="groups"` is for the head `parallel`. Received: head={self.head!r}')
        object.__setattr__(self, "units", tuple(self.units))

    def document(self):
        """The recipe as it is stored; what it could not say earlier is left out while it is the default."""
        document = json.loads(json.dumps(dataclasses.asdict(self)))
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        later = ("balance", "optimizer", "normalizer", "per_pair")
        return {name: value for name, value in document.items() if name not in later or value != defaults[name]}

    def adapt(self, schema):
        """The schema with this recipe's scenarios and the features that its head reads in training."""
        schema = components.find("heads", self.head)(schema.tasks).complete(schema)
        scenario = schema.scenario
        if self.groups == "one":
            scenario = Scenario(scenario.columns, dict.fromkeys(scenario.groups, "all"))
        elif self.groups == "random":
            scenario = Scenario(scenario.columns, random_groups(scenario.groups, scenario.num_groups, self.seed))
        elif self.groups != "given":
            names = ["/".join(key) for key in scenario.groups]
            if missing := sorted(set(names) - set(self.groups)):
                raise ValueError(f"`groups` must have every territory of the data. Received: none for {missing}")
            groups = [self.groups[name] for name in names]
            scenario = Scenario(scenario.columns, dict(zip(scenario.groups, groups, strict=True)))
        return schema.replace(scenario=scenario)

    def build(self, schema):
        """The compiled model of this recipe, with seeded weights."""
        keras.utils.set_random_seed(self.seed)
        head, share = self.head, components.find("sharing", self.share)
        if self.normalizer == "groups":
            head = functools.partial(parallel, normalizer="groups", num_groups=schema.scenario.num_groups)
        model = models.two_tower(
            schema,
            share=per_pair(share) if self.per_pair else share,
            head=head,
            units=self.units,
            embedding_dim=self.embedding_dim,
            unknown_rate=self.unknown_rate,
            literal=self.literal,
        )
        model.compile(optimizer_of(self.optimizer)(self.learning_rate), balance=self.balance)
        model.optimizer.build(model.trainable_variables)
        return model


def optimizer_of(name):
    """The class of an optimizer's name: Keras's Adam, or the one class of the file `tfmtr/optimizers/<name>.py`."""
    if name == "adam":
        return keras.optimizers.Adam
    module = importlib.import_module(f"tfmtr.optimizers.{name}")
    return getattr(module, name.title().replace("_", ""))


# The three models of Gampa et al. 2023, section 4.2, and the controls that a gain of branches is compared with.
PAPER = {
    "baseline": Recipe(share="none", upsample=False),
    "baseline + upsampling": Recipe(share="none"),
    "multi-task": Recipe(share="territory_branches"),
}
CONTROLS = {
    "one group": Recipe(share="territory_branches", groups="one"),
    "random groups": Recipe(share="territory_branches", groups="random"),
}


def train(data, workdir, recipe=None, *, verbose="auto"):
    """Trains a two-tower model, window by window, and leaves everything in `workdir`.

    The training window is fitted with early stopping on validation users. Then, for each further test
    window i, the model is trained for one epoch on the slice of window i - 1 (users disjoint from all test
    users), as in Gampa et al. 2023, section 4.2. A run that was killed goes on where it was: finished
    windows are kept, the interrupted epoch starts again with the same order.

    In the scope of a `tf.distribute` strategy (see `tfmtr.replicas`) the replicas share each batch: `batch_size` is
    that of all. Workers read their own part of the files, and the first one writes `workdir`, which all must see.

    Args:
        data: Directory made by `tfmtr prepare`.
        workdir: Run directory; made if it does not exist.
        recipe: The `Recipe`; a run that is resumed must have the same one.
        verbose: As for Keras `fit`.

    Returns:
        The trained `TwoTower` model, as of the last test window.

    Raises:
        ValueError: If `workdir` holds a run of another recipe or of other data, or the recipe has a balancer and
            there are several replicas.
    """
    recipe, data, workdir = recipe or Recipe(), Prepared(data), Path(workdir)
    schema = recipe.adapt(data.schema)
    run = _open_run(workdir, recipe, schema, data)
    with op_determinism(recipe.deterministic):
        return _train(data, workdir, recipe, schema, run, verbose)


@contextlib.contextmanager
def op_determinism(is_on):
    """Makes TensorFlow's ops deterministic while it lasts; the setting is the process's, and other models may mind."""
    from tensorflow.python.framework import config  # TensorFlow exports no way to ask or to switch it off

    if not is_on or config.is_op_determinism_enabled():
        yield
        return
    config.enable_op_determinism()
    try:
        yield
    finally:
        config.disable_op_determinism()


def _train(data, workdir, recipe, schema, run, verbose):
    """Trains what `run` still lacks, window by window."""
    model = recipe.build(schema)
    sampling = ("random", "active") if recipe.upsample else ("random",)
    validation = data.examples("validation")
    weights = {window: workdir / "weights" / f"window-{window}.npz" for window in data.test_windows}
    finished = [window for window in data.test_windows if weights[window].exists()]
    if finished:
        restore(model, weights[finished[-1]])
    for window in data.test_windows[len(finished) :]:
        first = window == data.test_windows[0]
        windows = None if first else [window - 1]  # the whole training window, or the slice of the day before
        files = data.examples("train", windows=windows, sampling=sampling)
        started = time.perf_counter()
        history = []
        if files or first:
            history = _fit_stage(
                model, data, files, schema, recipe, workdir, window=window,
                validation=validation if first else None, epochs=recipe.epochs if first else 1, verbose=verbose,
            )  # fmt: skip
        run["stages"][str(window)] = {"history": history, "seconds": round(time.perf_counter() - started, 2)}
        _keep_stage(run, model, workdir, weights[window])
    return model


def _keep_stage(run, model, workdir, weights):
    """Writes what is known after a stage, and drops its checkpoint."""
    replicas.wait()  # until all workers have read the checkpoint
    if replicas.is_chief():
        write_json(workdir / "run.json", run)
        save(model, weights)
        shutil.rmtree(workdir / "checkpoint", ignore_errors=True)


def go_on(run, data, files, workdir, *, epochs=1, verbose="auto"):
    """Trains a run's newest model on more data, as a run of its own: what a service does every day.

    The model starts with the weights and the optimizer's state of `run`; vocabularies and territory groups may have
    grown, see `tfmtr.growth`. A run that was killed goes on where it was; a finished one is left as it is.

    Args:
        run: Run directory of the model so far.
        data: Directory made by `tfmtr prepare`, of the new data.
        files: Example files to train on.
        workdir: Run directory; made if it does not exist.
        epochs: Times that each row is seen.
        verbose: As for Keras `fit`.

    Returns:
        Names of the variables that grew or are new, sorted.

    Raises:
        ValueError: If `data` does not fit the model, `files` is empty, or `workdir` holds another run.
    """
    data, workdir, before = Prepared(data), Path(workdir), read_run(run)
    recipe, window = recipe_of(before), data.next_window
    old = Schema.load(run)
    schema = grow_schema(old, recipe.adapt(data.schema))
    document = _open_run(workdir, recipe, schema, data, start=before["run_id"])
    weights = workdir / "weights" / f"window-{window}.npz"
    if weights.exists():
        return document["grown"]
    with op_determinism(recipe.deterministic):
        model = recipe.build(schema)
        document["grown"] = warm_start(model, schema, old, newest_weights(run))
        started = time.perf_counter()
        history = _fit_stage(
            model, data, files, schema, recipe, workdir, window=window, validation=None, epochs=epochs, verbose=verbose
        )
    document["stages"] = {str(window): {"history": history, "seconds": round(time.perf_counter() - started, 2)}}
    _keep_stage(document, model, workdir, weights)
    return document["grown"]


def newest_weights(workdir):
    """File with the variables of a run's newest model."""
    there = _windows(workdir)
    if not there:
        raise ValueError(f"`{workdir}` must be a finished run: it has no weights. Finish it with `tfmtr train`.")
    return Path(workdir, "weights", f"window-{there[-1]}.npz")


def _windows(workdir):
    return sorted(int(file.stem.removeprefix("window-")) for file in Path(workdir, "weights").glob("window-*.npz"))


def load(workdir, *, window=None):
    """The model of a run, as it was evaluated on a test window (the last one by default).

    Raises:
        ValueError: If `workdir` is no finished run or has no weights for `window`.
    """
    workdir = Path(workdir)
    run = read_run(workdir)
    there = _windows(workdir)
    window = window if window is not None or not there else there[-1]
    if window not in there:
        raise ValueError(
            f"`window` must be one that {workdir} has weights for; finish the run with `tfmtr train`. "
            f"Received: window={window}, there are {there}"
        )
    model = recipe_of(run).build(Schema.load(workdir))
    restore(model, workdir / "weights" / f"window-{window}.npz")
    return model


def read_run(workdir):
    """The document `run.json` of a run directory."""
    document = read_json(Path(workdir, "run.json"))
    if document is None:
        raise ValueError(f"`{workdir}` must be a directory made by `tfmtr train`: it has no run.json.")
    return document


def recipe_of(run):
    """The `Recipe` of a run document."""
    return Recipe(**run["recipe"])


def save(model, file):
    """Writes all variables of a compiled model and its optimizer, at once or not at all."""
    arrays = {f"{kind}/{i}": np.asarray(v) for kind, vs in _variables(model).items() for i, v in enumerate(vs)}
    paths = {f"{kind}_paths": np.asarray([v.path for v in vs]) for kind, vs in _variables(model).items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".tmp")
    with temporary.open("wb") as stream:
        np.savez(stream, **arrays, **paths)
    os.replace(temporary, file)


def restore(model, file):
    """Reads what `save` wrote into a model of the same architecture.

    Raises:
        ValueError: If the model's variables are not those of the file.
    """
    with np.load(file) as archive:
        for kind, variables in _variables(model).items():
            arrays = [archive[f"{kind}/{i}"] for i in range(len(archive[f"{kind}_paths"]))]
            if [array.shape for array in arrays] != [tuple(variable.shape) for variable in variables]:
                raise ValueError(
                    f"`{file}` must hold the variables of this model: it was written by another recipe or schema. "
                    f"Received: {len(arrays)} {kind} variables, expected {len(variables)} of this model's shapes"
                )
            for variable, array in zip(variables, arrays, strict=True):
                variable.assign(array)


def _variables(model):
    return {"model": model.variables, "optimizer": model.optimizer.variables}


def _fit_stage(model, data, files, schema, recipe, workdir, *, window, validation, epochs, verbose):
    """Fits one window; returns the history, one dictionary of figures an epoch.

    `files` and `validation` are example files, those of validation `None` where there is no early stopping.
    """
    keep = KeepState(workdir / "checkpoint" / f"window-{window}", model)
    callbacks = []  # the chief's own last: the others take over the state of the first ones
    if validation is not None:
        callbacks.append(keras.callbacks.EarlyStopping("val_loss", patience=recipe.patience))
    if replicas.is_chief():
        callbacks.append(keras.callbacks.TensorBoard(workdir / "logs" / f"window-{window}", write_graph=False))
    keep.others = callbacks
    if not keep.is_finished:
        known, known_steps = _batches(data, validation, recipe, schema) if validation is not None else (None, None)
        # Epochs of different windows must differ in order too, hence the window in the seed.
        seed = [recipe.seed, window]
        order, steps = _batches(data, files, recipe, schema, seed=seed, first_epoch=keep.next_epoch)
        model.fit(
            order, steps_per_epoch=steps, validation_data=known, validation_steps=known_steps, epochs=epochs,
            initial_epoch=keep.next_epoch, verbose=verbose if replicas.is_chief() else 0, shuffle=False,
            callbacks=[*callbacks, keep],
        )  # fmt: skip
        replicas.wait()  # until the chief has written the best epoch
    restore(model, keep.best)
    return keep.history


def _batches(data, files, recipe, schema, **order):
    """Batches for `fit`, and the steps of an epoch where several replicas share them."""

    def read(context=None):
        return inputs.batches(data, files, batch_size=recipe.batch_size, schema=schema, context=context, **order)

    if replicas.number() == 1:
        return read(), None
    shared = replicas.strategy().distribute_datasets_from_function(lambda context: read(context).repeat())
    return shared, inputs.num_steps(files, recipe.batch_size)


class KeepState(keras.callbacks.Callback):
    """Keeps all that an interrupted `fit` needs to go on, at the end of every epoch.

    `keras.callbacks.BackupAndRestore` keeps epoch and weights, not the other callbacks' state, and knows no
    best epoch. Here one folder holds `last.npz` and `best.npz` (all variables, with the optimizer's) and
    `state.json` (history, and the plain attributes of the other callbacks, such as early stopping's
    counters). `state.json` is written last: what it says is there.

    Args:
        folder: Where the state is kept; an existing state is restored at once.
        model: The compiled model.
    """

    def __init__(self, folder, model):
        super().__init__()
        self.folder = folder
        self.others = []
        self.state = {"history": [], "callbacks": [], "best_epoch": None, "finished": False}
        if state := read_json(folder / "state.json"):
            self.state = state
            restore(model, self._last(len(self.history) - 1))

    @property
    def history(self):
        """Figures of the finished epochs."""
        return self.state["history"]

    @property
    def next_epoch(self):
        """The epoch to go on with."""
        return len(self.history)

    @property
    def is_finished(self):
        """Whether the stage ended, by early stopping or by its last epoch."""
        return self.state["finished"]

    @property
    def best(self):
        """File with the variables of the best epoch."""
        return self._last(self.state["best_epoch"])

    def _last(self, epoch):
        return self.folder / f"epoch-{epoch}.npz"

    def on_train_begin(self, logs=None):
        """Gives the other callbacks the state they had."""
        for callback, attributes in zip(self.others, self.state["callbacks"], strict=False):
            vars(callback).update(attributes)

    def on_epoch_end(self, epoch, logs=None):
        """Writes the state."""
        figures = {name: float(value) for name, value in (logs or {}).items()}
        monitored = [row.get("val_loss", -i) for i, row in enumerate([*self.history, figures])]  # else: the last one
        previous, best_epoch = self.state["best_epoch"], int(np.argmin(monitored))
        self.state = {
            "history": [*self.history, figures],
            "callbacks": [_plain_attributes(callback) for callback in self.others],
            "best_epoch": best_epoch,
            "finished": bool(self.model.stop_training) or epoch + 1 == self.params["epochs"],
        }
        if not replicas.is_chief():
            return
        save(self.model, self._last(epoch))
        write_json(self.folder / "state.json", self.state)
        for old in {epoch - 1, previous} - {epoch, best_epoch, None}:
            self._last(old).unlink(missing_ok=True)


def _plain_attributes(callback):
    """Attributes of a callback that JSON can hold: counters, best values, flags."""
    plain = {}
    for name, value in vars(callback).items():
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, (int, float, str, bool, type(None))) and not name.startswith("__"):
            plain[name] = value
    return plain


def _open_run(workdir, recipe, schema, data, **facts):
    fingerprint = data.report["fingerprint"]
    document = {"recipe": recipe.document(), "fingerprint": fingerprint, **facts}
    if (workdir / "run.json").exists():
        run = read_run(workdir)
        same = {key: run[key] == value for key, value in document.items()}
        same["schema"] = Schema.load(workdir) == schema
        if not all(same.values()):
            different = sorted(key for key, is_same in same.items() if not is_same)
            raise ValueError(
                f"`workdir` must be new, or hold the same run to resume; choose another directory. "
                f"Received: {workdir}, whose {' and '.join(different)} differ"
            )
        return run
    run = {
        **document,
        "run_id": f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{fingerprint[:8]}-{recipe.seed}",
        "data": str(data.path),
        "versions": versions(),
        "stages": {},
    }
    if replicas.is_chief():
        workdir.mkdir(parents=True, exist_ok=True)
        schema.save(workdir)
        write_json(workdir / "run.json", run)
    return run


def versions():
    """Versions of Python and of the packages that decide a result."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in VERSIONS_OF}}
