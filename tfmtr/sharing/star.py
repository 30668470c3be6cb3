"""A shared network that each scenario rescales weight by weight."""

from collections.abc import Sequence

import keras
from keras import KerasTensor, ops

from tfmtr.layers._sizes import check_sizes
from tfmtr.layers.routed_batch_norm import RoutedBatchNorm
from tfmtr.layers.star_dense import StarDense
from tfmtr.sharing._shared import Shared


def star(
    x: KerasTensor,
    scenario: KerasTensor,
    *,
    towers: Sequence[str],
    num_scenarios: int,
    scenario_features: KerasTensor,
    units: Sequence[int] = (512, 256, 64),
    auxiliary_units: Sequence[int] = (64,),
    momentum: float = 0.9,
) -> Shared:
    """Lets every scenario have a network of its own that is a rescaled shared one.

    For a row of scenario s, with normalisation by the statistics of scenario s (`RoutedBatchNorm`):

        h^0 = norm_s(x),    h^l = ReLU((W_s^l ⊗ W^l) h^{l-1} + b_s^l + b^l),    u = h^L
        logit = w_s u + auxiliary([scenario features, x])

    Scenarios with few rows lean on the shared weights, which learn from all rows. The small auxiliary network
    gives the scenario a short way to the logit.

    Reference: Sheng et al., One Model to Serve All: Star Topology Adaptive Recommender for Multi-Domain CTR
    Prediction, CIKM 2021, https://doi.org/10.1145/3459637.3481941, sections 4.2 to 4.4. The paper normalises
    with "PN" in place of batch normalisation and does not say after which layers; here it is the input alone.
    Its output layer is one more star layer; here it is the assembly's, in ranking a scenario-specific one
    without the shared factor. The paper has one task: with several, all layers but the last are shared by the
    tasks, and each has its own last layer and auxiliary output.

    In two-tower form the auxiliary term depends on the user and the scenario alone.

    Args:
        x: Tensor of shape `(batch, width)`.
        scenario: Integer tensor of shape `(batch,)`.
        towers: Names of the towers.
        num_scenarios: Number of scenarios.
        scenario_features: Tensor of shape `(batch, width)`, embedding of the scenario.
        units: Widths of the layers; the last are the towers'.
        auxiliary_units: Widths of the auxiliary network's hidden layers.
        momentum: Share of the moving statistics that a batch keeps, see `RoutedBatchNorm`.

    Returns:
        A `Shared` with vectors of shape `(batch, units[-1])`, one term for each tower, and a scenario-specific
        output layer.

    Raises:
        ValueError: If `units` is empty or a width is not positive.
    """
    check_sizes(units=units)
    h = RoutedBatchNorm(num_scenarios, momentum=momentum, name="partitioned_norm")(x, scenario)
    for i, width in enumerate(units[:-1]):
        h = StarDense(width, num_scenarios, activation="relu", name=f"star_{i}")(h, scenario)
    vectors = {
        tower: StarDense(units[-1], num_scenarios, activation="relu", name=f"{tower}_star")(h, scenario)
        for tower in towers
    }
    a = ops.concatenate([scenario_features, x], axis=-1)
    for i, width in enumerate(auxiliary_units):
        a = keras.layers.Dense(width, activation="relu", name=f"auxiliary_{i}")(a)
    a = keras.layers.Dense(len(towers), name="auxiliary_logits", dtype="float32")(a)
    terms = {tower: a[:, t : t + 1] for t, tower in enumerate(towers)}
    return Shared(vectors, terms, routed_output=True)
