"""A model of rows that are at hand, without a run directory."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from tfmtr import inputs, precision
from tfmtr.at_hand import chosen_by_sampling, rows_at_hand
from tfmtr.private_names import op_determinism
from tfmtr.recipe import Recipe
from tfmtr.schema import Schema
from tfmtr.training.callbacks import Judge, StopAfter, averages_of

if TYPE_CHECKING:
    pass


class Fitted(NamedTuple):
    """What `fit` returns.

    Attributes:
        model: The `JointModel` as of the best epoch.
        history: `{figure: [one float an epoch]}`, as Keras has it; `judged` where there is a judge.
    """

    model: Any
    history: dict[str, list[float]]


def fit(
    recipe: Recipe,
    schema: Schema,
    train: Any,
    validation: Any = None,
    *,
    judge: Callable[[Any], float] | None = None,
    callbacks: Sequence[Any] = (),
    verbose: str | int = 0,
) -> Fitted:
    """Trains a recipe's model on rows that are at hand, without a run directory: what studies and notebooks do.

    Args:
        recipe: The `Recipe`. With `row_weights` the rows must have weights; without `upsample` they must tell which are
            of active users.
        schema: The `Schema` of the rows.
        train: `(x, y)` or `(x, y, weights of rows)`, arrays encoded with `recipe.adapt(schema)`, see
            `tfmtr.inputs.encode_frame`; a DataFrame, whose column `row_weights` are the weights, and whose column
            `sampling` may tell `"random"` and `"active"` users' rows apart; or a `tf.data.Dataset` of such batches that
            knows how many they are. Arrays are shuffled anew in each epoch, by the recipe's seed.
        validation: The same, or `None`; its rows are all used.
        judge: Function of the model whose value is the better the lower it is; by default the loss of `validation`.
            It decides which epoch is kept, and with the recipe's patience when training ends. Without it and without
            `validation` the last epoch is kept.
        callbacks: Keras callbacks of one's own, called before the judge; what they add to an epoch's `logs` is in the
            history.
        verbose: As for Keras `fit`.

    Returns:
        A `Fitted`.

    Raises:
        ValueError: If an argument is of another kind, the recipe does not fit the schema, the rows lack what the recipe
            asks of them, arrays are not encoded, a dataset does not know how many batches it has, or no epoch has a
            finite figure to be judged by.

    Example:
    >>> from tfmtr.schema import Feature, Scenario, Task
    >>> schema = Schema([Feature("age", "user", "number")], [Task("click")], Scenario(["land"], {("DE",): "west"}))
    >>> x = {"age": np.linspace(-1, 1, 64, dtype="float32"), "scenario": np.ones(64, "int32")}
    >>> recipe = Recipe(form="ranking", share="none", epochs=5, batch_size=16, learning_rate=0.1)
    >>> losses = fit(recipe, schema, (x, {"click": (x["age"] > 0).astype("float32")})).history["loss"]
    >>> losses[-1] < losses[0]
    True
    """
    for name, value, kind in (("recipe", recipe, Recipe), ("schema", schema, Schema)):
        if not isinstance(value, kind):
            raise ValueError(f"`{name}` must be a {kind.__name__}. Received: a {type(value).__name__}")
    if judge is not None and not callable(judge):
        raise ValueError(f"`judge` must be a function from a model to a number. Received: judge={judge!r}")
    schema = recipe.adapt(schema)
    train = rows_at_hand("train", chosen_by_sampling(train, recipe), schema, recipe)
    if validation is not None:
        validation = rows_at_hand("validation", validation, schema, recipe)
    batches = hasattr(train, "cardinality")
    if not batches and not (isinstance(train, tuple) and len(train) in (2, 3) and isinstance(train[0], Mapping)):
        raise ValueError(
            "`train` must be (x, y) or (x, y, weights) of arrays by name, a DataFrame, or a `tf.data.Dataset` of "
            f"batches. Received: a {type(train).__name__}"
        )
    if batches:
        steps, arguments = int(train.cardinality()), {"x": train}  # pyright: ignore[reportAttributeAccessIssue]
    else:
        x, y = inputs.as_arrays(train[0], train[1], schema)
        steps = -(-len(x["scenario"]) // recipe.batch_size)
        arguments = {"x": x, "y": y, "sample_weight": (*train, None)[2]}
    if steps < 1:
        raise ValueError(
            "`train` must be a dataset that knows how many batches it has "
            f"(`tf.data.experimental.assert_cardinality`). Received: {steps} batches"
        )
    with op_determinism(recipe.deterministic), precision.use(recipe.precision or precision.current()):
        model = recipe.build(schema)
        chain: list[Any] = [*averages_of(model), *callbacks, *([] if judge is None else [Judge(judge)])]
        monitor = "judged" if judge is not None else None if validation is None else "val_loss"
        if monitor is not None:
            patience = recipe.patience_of(steps)
            stop = keras.callbacks.EarlyStopping(monitor, mode="min", patience=patience, restore_best_weights=True)
            chain.append(stop)
        if recipe.updates is not None:
            chain.append(StopAfter(recipe.updates))
        history = model.fit(
            **arguments,
            batch_size=None if batches else recipe.batch_size,
            shuffle=not batches,  # a dataset has its own order
            epochs=recipe.epochs_of(steps),
            validation_data=validation,
            validation_batch_size=recipe.batch_size,  # a loss is a mean of batches' means
            callbacks=chain,
            verbose=verbose,
        ).history
    if not np.isfinite(history[monitor or "loss"]).any():
        raise ValueError(
            f"No epoch has a finite {monitor or 'loss'}: lower `learning_rate`, or look at the data. Received: "
            f"{history[monitor or 'loss']}"
        )
    return Fitted(model, history)
