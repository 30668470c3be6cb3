"""One try: a recipe that is trained on the training windows, judged on its way and at its end."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras

from tfmtr import precision
from tfmtr.datasets.dataset import Dataset
from tfmtr.diagnosis import not_finite
from tfmtr.listwise.fit import fit_list_model, why_not
from tfmtr.recipe import Recipe
from tfmtr.training import op_determinism, train_first_window
from tfmtr.tuning.objective import Judged, Objective

REDUCTION = 3  # a third of the tries that come to a rung go on
NUM_RUNGS = 2  # at a ninth and a third of the budget


class Tried(NamedTuple):
    """A try that came to its end.

    Attributes:
        judged: What the objective found.
        updates: Updates that were made.
    """

    judged: Judged
    updates: int


class Rungs(keras.callbacks.Callback):
    """Has the model looked at after some numbers of updates, wherever in an epoch that is, and counts them.

    Args:
        rungs: Numbers of updates, growing.
        look: Function of the model and of how many updates it has had.
    """

    def __init__(self, rungs: Sequence[int], look: Callable[[Any, int], None]) -> None:
        super().__init__()
        self.rungs, self.look, self.updates = list(rungs), look, 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Counts, and looks at the model on a rung."""
        model: Any = self.model
        self.updates = int(model.optimizer.iterations)
        if self.updates in self.rungs:
            self.look(model, self.updates)


def rungs_of(updates: int) -> list[int]:
    """After how many updates a try of so many is judged on its way.

    >>> rungs_of(900), rungs_of(4)
    ([100, 300], [1, 3])
    """
    least = max(updates // REDUCTION**NUM_RUNGS, 1)
    return [rung for rung in (least * REDUCTION**place for place in range(NUM_RUNGS)) if rung < updates]


def run_trial(
    recipe: Recipe,
    data: Dataset,
    folder: Path,
    objective: Objective,
    report: Callable[[float, int], None],
    *,
    of: Dataset,
    is_judged_early: bool = True,
) -> Tried:
    """Trains and judges a recipe as `tfmtr train` would train it for the first test window.

    On its way the towers alone are judged; at its end the list model beside them, too, where the recipe has one.

    Args:
        recipe: The `Recipe`, whose `updates` is the budget.
        data: The `Dataset` of the training windows alone, see `tfmtr.tuning.view`.
        folder: Run directory, which does not exist.
        objective: The `Objective`.
        report: Function of a figure and of the updates after which it was found; what it raises ends the try.
        of: The whole `Dataset`, of whose `prepare.json` the run's document is.
        is_judged_early: Whether there are any rungs.

    Returns:
        A `Tried`.

    Raises:
        ValueError: If the recipe does not fit the data, or the model or the figure is not finite.
    """
    schema = recipe.adapt(data.schema)

    def look(model: Any, updates: int) -> None:
        if bad := not_finite(model.variables):
            raise ValueError(
                f"The model must be finite. Received: {len(bad)} variables that are not after {updates} updates, the "
                f"first one {bad[0]}"
            )
        report(objective(model, schema).value, updates)

    rungs = Rungs(rungs_of(recipe.updates or 0) if is_judged_early else (), look)
    model = train_first_window(data, folder, recipe, of=of, callbacks=[rungs])
    list_model = None
    with op_determinism(recipe.deterministic), precision.use(recipe.precision or precision.current()):
        if recipe.listwise and why_not(data, recipe.form) is None:
            list_model, _ = fit_list_model(model, data, schema, seed=recipe.seed)
        return Tried(objective(model, schema, list_model), rungs.updates)
