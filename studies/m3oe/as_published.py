"""M3oE as its published code has it, where that is not what the paper says.

Reference: https://github.com/Applied-Machine-Learning-Lab/M3oE, `model.py`, `ctr_trainer.py` and `run_movielens.py`.
"""

import math

import keras
from keras import ops

from tfmtr.layers.expert_gate import blend
from tfmtr.layers.experts import Experts
from tfmtr.layers.fusion_weight import FusionWeight
from tfmtr.layers.normalized_dense import NormalizedDense
from tfmtr.layers.routed_dense import RoutedDense
from tfmtr.layers.star_dense import StarDense
from tfmtr.sharing._shared import SelectScenario, Shared

START = 1 / (1 + math.exp(-1))  # of the fusion weights: .731


def as_published(
    x,
    scenario,
    *,
    towers,
    num_scenarios,
    num_experts=4,
    learn_fusion=True,
    normalize_star=True,
    normalize_towers=True,
):
    """The network of the published code: a sharing function for two or more scenarios and tasks.

    What it has and equations 1 to 8 have not: layer normalisation and ReLU after the star layer's second layer and in
    the towers, `f_DA` of one layer, gates that do not train `h`, one number for all scenarios and tasks for each of
    alpha and beta, which starts at sigmoid(1). Their own optimiser's step an epoch is left out: the code trains
    them in every step with all other weights too. The star layer starts as the package's do.

    Args:
        x: Tensor of shape `(batch, width)`.
        scenario: Integer tensor of shape `(batch,)`.
        towers: Names of the tasks.
        num_scenarios: Number of the domains.
        num_experts: Number of common experts.
        learn_fusion: Whether the fusion weights train; otherwise all stay at 0.5, Table 3's "w/o AutoML".
        normalize_star: Whether what follows the star layer has layer normalisation and ReLU; equation 1 has neither.
        normalize_towers: Whether the towers have a layer normalisation; equation 8 has none.

    Returns:
        A `Shared` with vectors of shape `(batch, 64)` and a scenario-specific output layer.
    """
    star_top = (NormalizedDense if normalize_star else keras.layers.Dense)(256, name="star_top")
    h = star_top(StarDense(512, num_scenarios, name="star")(x, scenario))
    h = h + NormalizedDense(256, name="domain_agnostic")(x)

    def module(name, number, weights):
        """What experts of one kind say for each task, given `{task: weights of shape (batch or 1, number)}`."""
        experts = Experts(number, 64, activation="relu", normalize=True, name=f"{name}_experts")(h)
        return {tower: blend(of_tower, experts) for tower, of_tower in weights.items()}

    def own_and_others(own, name):
        start = START if learn_fusion else 0.5
        alpha, beta = (
            FusionWeight(1, start=start, trainable=learn_fusion, name=f"{letter}_{name}")(h)
            for letter in ("alpha", "beta")
        )
        return alpha * (beta * own + (1 - beta) / (own.shape[-1] - 1) * (1 - own))

    logits = RoutedDense(len(towers) * num_experts, num_scenarios, name="gates")(ops.stop_gradient(h), scenario)
    gates = map(ops.softmax, ops.split(logits, len(towers), axis=1))
    of_domain = own_and_others(ops.one_hot(scenario, num_scenarios, dtype=h.dtype), "d")
    of_tasks = ops.split(own_and_others(ops.eye(len(towers), dtype=h.dtype), "t"), len(towers))
    modules = [
        module("shared", num_experts, dict(zip(towers, gates, strict=True))),
        module("domain", num_scenarios, dict.fromkeys(towers, of_domain)),
        module("task", len(towers), dict(zip(towers, of_tasks, strict=True))),
    ]
    vectors = {}
    for tower in towers:
        fused = sum(vectors_of[tower] for vectors_of in modules)
        if normalize_towers:
            of_scenarios = [NormalizedDense(64, name=f"{tower}_tower_{i}")(fused) for i in range(num_scenarios)]
            vectors[tower] = SelectScenario(name=f"{tower}_of_scenario")(ops.stack(of_scenarios, axis=1), scenario)
        else:
            tower_layer = RoutedDense(64, num_scenarios, activation="relu", name=f"{tower}_tower")
            vectors[tower] = tower_layer(fused, scenario)
    return Shared(vectors, routed_output=True)
