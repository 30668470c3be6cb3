"""What is wrong with a training, from its variables and the losses of some rows."""

import itertools
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfmtr import inputs, replicas

if TYPE_CHECKING:
    import keras

    from tfmtr.datasets.dataset import Dataset
    from tfmtr.models import JointModel
    from tfmtr.recipe import Recipe
    from tfmtr.schema import Schema, Task

MOST_RATIO = 100  # between two tasks' losses that are added, without a word
NUM_BATCHES = 4


def warn(text: str) -> None:
    """Prints one line to stderr."""
    if replicas.is_chief():
        print(f"warning: {text}", file=sys.stderr, flush=True)


def losses_of(
    model: "JointModel",
    data: "Dataset",
    files: Sequence[Path],
    schema: "Schema",
    *,
    batch_size: int,
    num_batches: int = NUM_BATCHES,
) -> dict[str, float]:
    """The head's losses as the model is, without training: means over the first batches of the files.

    Returns:
        `{name: float}`.

    Raises:
        ValueError: If the files lack a column that the model or a task needs.
    """
    stores, batch_losses = inputs.open_stores(data), []
    for table in itertools.islice(inputs.read_tables(files, rows=batch_size), num_batches):
        x: Any = inputs.model_inputs(table, schema, stores)  # arrays in the place of tensors
        lacking = sorted({*model.input, *(task.column for task in schema.tasks)} - {*x, *table.column_names})
        if lacking:
            raise ValueError(
                f"Examples must have what {data.path}/schema.json and the recipe's head name; prepare them anew. "
                f"Received: {files[0]} without {lacking}"
            )
        x = {name: x[name] for name in model.input}
        y: Any = inputs.labels(table, schema)
        losses = model.losses_by_name(x, y, model(x, training=False))
        batch_losses.append({name: float(loss) for name, loss in losses.items()})
    return {name: float(np.mean([losses[name] for losses in batch_losses])) for name in batch_losses[0]}


def uneven_losses(losses: Mapping[str, float], tasks: Sequence["Task"]) -> str | None:
    """A warning where the losses of two tasks differ so much that their sum is one of them; otherwise `None`.

    Args:
        losses: `{name: float}` at the start.
        tasks: The schema's tasks; with a weight other than 1 somebody has thought of it.

    Example:
    >>> from tfmtr.schema import Task
    >>> tasks = [Task("click"), Task("seconds", kind="regression")]
    >>> uneven_losses({"click": 0.7, "seconds": 20_600.0}, tasks)[:65]
    'the losses of the tasks are added, and that of seconds is 29,429 '
    >>> uneven_losses({"click": 0.7, "seconds": 2.0}, tasks)
    """
    finite = {task.name: losses[task.name] for task in tasks if 0 < losses.get(task.name, 0) < math.inf}
    if len(finite) < 2 or any(task.weight != 1 for task in tasks):
        return None
    small, large = min(finite, key=finite.__getitem__), max(finite, key=finite.__getitem__)
    if finite[large] <= MOST_RATIO * finite[small]:
        return None
    kinds = {task.name: task.kind for task in tasks}
    scaled = [name for name in (large, small) if kinds[name] == "regression"]
    scale = f"scale the label of {scaled[0]} (its loss is half the squared error), " if scaled else ""
    values = ", ".join(f"{name} {loss:.4g}" for name, loss in finite.items())
    return (
        f"the losses of the tasks are added, and that of {large} is {finite[large] / finite[small]:,.0f} times that of "
        f"{small}, which hardly counts ({values} at the start): {scale}train with --balance uncertainty or another "
        "balancer that rescales, such as db_mtl, geometric or imtl, or give weights in Python (`Task.weight`)"
    )


def not_finite(variables: Iterable["keras.Variable"]) -> list[str]:
    """Paths of the variables that have a value which is not finite, in their order."""
    paths = []
    for variable in variables:
        array = np.asarray(variable)
        # The extremes, as they need no memory: a NaN is both.
        if array.size and not (np.isfinite(array.min()) and np.isfinite(array.max())):
            paths.append(variable.path)
    return paths


def describe(problems: Sequence[Mapping[str, Any]]) -> str:
    """The first epoch that is not finite and the first after which a variable is not, as text.

    Args:
        problems: List of what `tfmtr.checkpoints.KeepState` noted, not empty.

    Example:
    >>> problem = {"epoch": 0, "figures": {"loss": math.nan}, "losses": {}, "variable": None, "count": "0 of 2"}
    >>> describe([problem, problem | {"epoch": 2, "figures": {}, "variable": "kernel", "count": "1 of 2"}])
    'epoch 1: loss nan; epoch 3: 1 of 2 variables, the first one kernel'
    """
    lost = next((problem for problem in problems if problem["variable"]), problems[0])
    return "; ".join(_describe(problem) for problem in problems if problem in (problems[0], lost))


def _describe(problem: Mapping[str, Any]) -> str:
    parts = [f"{name} {value:.4g}" for name, value in problem["figures"].items()]
    if problem["losses"]:
        losses = " and ".join(f"{name} {loss:.4g}" for name, loss in problem["losses"].items())
        parts.append(f"losses of the first rows {losses}")
    if problem["variable"]:
        parts.append(f"{problem['count']} variables, the first one {problem['variable']}")
    return f"epoch {problem['epoch'] + 1}: {', '.join(parts)}"


def not_finite_error(window: int, problems: Sequence[Mapping[str, Any]], recipe: "Recipe", policy: str) -> str:
    """The message for a stage none of whose epochs is finite."""
    return (
        f"Training must have an epoch whose loss, validation loss and variables are all finite, and that for window "
        f"{window} has none ({describe(problems)}). Look at `learning_rate` (lower it), the scale of features and "
        "labels (values that are huge or not numbers), the tasks' losses (one that is much larger than the others: "
        "scale its label, or choose a balancer), `batch_size` (too few rows) and mixed precision. The run directory "
        f"may be used again, with any recipe. Received: learning_rate={recipe.learning_rate:g}, "
        f"batch_size={recipe.batch_size}, dtype policy {policy}"
    )
