"""A shared model that groups and territories correct as far as their rows are evidence."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import KerasTensor, ops

from tfmtr import replicas
from tfmtr.layers._sizes import Shape, check_sizes
from tfmtr.sharing._shared import Shared


@keras.saving.register_keras_serializable(package="tfmtr")
class ShrunkenCoefficients(keras.layers.Layer):
    """Coefficients of each scenario, shrunk towards zero where few training rows were seen of it.

    A row of scenario s, with n_s training rows so far, gets

        y = n_s / (n_s + tau) e_s    with    tau = prior_rows exp(w)

    where `e_s` and `w` start at zero and are learnt. Nothing is counted outside training.

    Args:
        num_scenarios: Positive integer.
        units: Positive integer, number of coefficients.
        prior_rows: Positive float: of how many rows the factor is one half, at the start.
        places: Which place of the table each scenario has; its own by default. Scenarios of one place share their
            coefficients and their rows.

    Call arguments:
        scenario: Integer tensor of shape `(batch,)` with values in `[0, num_scenarios)`.

    Returns:
        Tensor of shape `(batch, units)`.

    Raises:
        ValueError: If a size is not positive, or `places` are not those of the scenarios.

    Example:
    >>> tuple(ShrunkenCoefficients(3, 4)(ops.array([0, 2])).shape)
    (2, 4)
    """

    def __init__(
        self,
        num_scenarios: int,
        units: int,
        *,
        prior_rows: float = 1000.0,
        places: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_sizes(num_scenarios=num_scenarios, units=units)
        if not 0.0 < prior_rows < math.inf:
            raise ValueError(f"`prior_rows` must be a positive number. Received: prior_rows={prior_rows}")
        self.places = list(range(num_scenarios) if places is None else places)
        if len(self.places) != num_scenarios or not all(0 <= place < num_scenarios for place in self.places):
            raise ValueError(
                f"`places` must be one place in [0, {num_scenarios}) for each scenario. Received: {self.places}"
            )
        self.num_scenarios = num_scenarios
        self.units = units
        self.prior_rows = prior_rows

    def build(self, scenario_shape: Shape) -> None:
        """Creates the table, tau and the counts."""
        shape = (self.num_scenarios, self.units)
        self.coefficients = self.add_weight(shape=shape, initializer="zeros", name="coefficients")
        self.log_tau = self.add_weight(shape=(), initializer="zeros", autocast=False, name="log_tau")
        # In float32, whatever the compute dtype.
        self.rows = self.add_weight(
            shape=shape[:1], initializer="zeros", trainable=False, dtype="float32", autocast=False, name="rows"
        )

    def call(self, scenario: KerasTensor, training: bool = False) -> KerasTensor:
        """Looks up each row's coefficients, and counts the row in training."""
        places = ops.take(ops.convert_to_tensor(np.asarray(self.places, "int32")), scenario)
        if training:
            own = ops.segment_sum(ops.ones_like(places, dtype="float32"), places, self.num_scenarios)
            self.rows.assign(self.rows + replicas.total(own))
        rows = ops.take(ops.convert_to_tensor(self.rows), places)
        tau = self.prior_rows * ops.exp(ops.cast(self.log_tau, "float32"))
        factor = ops.cast(rows / (rows + tau), self.compute_dtype)
        return factor[:, None] * ops.take(self.coefficients, places, axis=0)

    def compute_output_shape(self, scenario_shape: Shape) -> Shape:
        """Shape with the coefficients' number."""
        return (*scenario_shape, self.units)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "num_scenarios": self.num_scenarios,
            "units": self.units,
            "prior_rows": self.prior_rows,
            "places": self.places,
        }


def shrunken_branches(
    x: KerasTensor,
    scenario: KerasTensor,
    *,
    towers: Sequence[str],
    num_scenarios: int,
    parents: Sequence[int] = (),
    rank: int = 32,
    prior_rows: float = 1000.0,
) -> Shared:
    """Adds low-rank corrections of the row's group and territory to the vectors of a shared model.

    For a row of scenario s (a territory) with parent g (its group), and n rows seen in training:

        u = shared(x) + V (a ⊗ U x + c)
        (a, c) = n_g / (n_g + tau_1) e_g + n_s / (n_s + tau_2) e_s

    `shared` is what `none` does: the identity, in two-tower form the user tower's own last layer, or a linear
    projection for each of several towers. `U` and `V`, of rank r, are learnt from all rows; a scenario has the 2 r
    numbers `e_s` alone, which start at zero: a model starts as that of `none`, and a scenario without rows stays
    there. The recipe's `groups="territories"` makes territories scenarios and groups their parents; without parents
    scenarios are groups, and there is no second level. Corrections are looked up row by row, at a cost that does not
    grow with the number of scenarios. Take it in place of `territory_branches` where scenarios are many or small.

    Why this factor: let the best `e_s` of scenarios be normal around zero, with variance A, and what n rows tell of it
    have the sampling variance K / n. Then the mean of `e_s` given its rows is the estimate by these rows alone times

        A / (A + K / n) = n / (n + tau),    tau = K / A.

    K is the inverse information of a row: with a positive in eleven rows and corrections that move a logit by a
    tenth, `1 / K = 0.08` for each squared unit of the logit, `A = 0.01`, so tau is about 1,000 rows, the start. Each
    level's tau is learnt with the weights. In the first epoch that is honest: a batch judges corrections that were
    learnt from other rows, and noise makes it worse; later epochs know their rows, and open the gates.

    An optimizer could make up for the factor by longer coefficients. Adam, whose step is as long for a rare scenario
    as for a frequent one, moves a correction by at most its learning rate times the factor: with T steps until
    training stops early, it is at most T times that, so the factor is the evidence that Adam's step leaves out. It is
    no bound for training without end. Rows are counted each time they are seen, two epochs twice.

    Reference: Gampa et al., Multi-Task Learning For Reduced Popularity Bias In Multi-Territory Video Recommendations,
    2023, for the branches; the factor is that of Said, Empirical Bayes for Multiple Sample Sizes, 2017,
    https://chris-said.io/2017/05/03/empirical-bayes-for-multiple-sample-sizes/, derived above; that corrections are
    low-rank and start at zero is after Hu et al., LoRA, https://arxiv.org/abs/2106.09685. Their combination, one basis
    for all scenarios, two levels and tau as a weight are chosen here.

    Args:
        x: Tensor of shape `(batch, width)`.
        scenario: Integer tensor of shape `(batch,)`.
        towers: Names of the towers, each with its own blocks.
        num_scenarios: Number of scenarios.
        parents: Of each scenario the first one that has the same parent; none where scenarios have no parents.
        rank: Rank r of the corrections.
        prior_rows: Where tau starts: of how many rows a correction's factor is one half.

    Returns:
        A `Shared` with vectors of shape `(batch, width)`, and corrections of them.

    Raises:
        ValueError: If `rank` or `prior_rows` is not positive.
    """
    check_sizes(rank=rank)
    levels: dict[str, Sequence[int] | None] = {"scenario": None, **({"parent": parents} if parents else {})}
    vectors, corrections = {}, {}
    for tower in towers:
        vectors[tower] = x if len(towers) == 1 else keras.layers.Dense(x.shape[-1], name=f"{tower}_vector")(x)
        coefficients = sum(
            ShrunkenCoefficients(
                num_scenarios, 2 * rank, prior_rows=prior_rows, places=places, name=f"{tower}_{level}_coefficients"
            )(scenario)
            for level, places in levels.items()
        )
        inner = keras.layers.Dense(rank, use_bias=False, name=f"{tower}_inner")(x)
        inner = coefficients[:, :rank] * inner + coefficients[:, rank:]
        corrections[tower] = keras.layers.Dense(x.shape[-1], use_bias=False, name=f"{tower}_outer")(inner)
    return Shared(vectors, is_linear=True, corrections=corrections)
