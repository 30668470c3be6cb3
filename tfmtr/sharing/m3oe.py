"""Three mixtures of experts, common, by scenario and by task, under learnt fusion weights."""

import keras
from keras import ops

from tfmtr.layers._sizes import check_sizes
from tfmtr.layers.experts import Experts
from tfmtr.layers.fusion_weight import FusionWeight
from tfmtr.layers.routed_dense import RoutedDense
from tfmtr.layers.star_dense import StarDense
from tfmtr.sharing._shared import SelectScenario, Shared

FUSIONS = ("weighted", "concat", "gated")


def m3oe(
    x,
    scenario,
    *,
    towers,
    num_scenarios,
    units=(512, 256),
    expert_units=64,
    tower_units=(64,),
    num_experts=4,
    fusion="weighted",
    domain_module=True,
    task_module=True,
    learn_fusion=True,
):
    """Adds what common experts, experts by scenario (domain) and experts by task say, in learnt proportions.

    For a row of scenario d and task t, with experts `f_e = ReLU(norm(W_e h + b_e))` (equation numbers in brackets):

        h = W_c ((W_d ⊗ W_sh) x + b_d + b_sh) + b_c + f_DA(x)                           (1, 2)
        S = sum_e softmax(G_dt h)_e f_e(h)                                              (3, 4)
        D = beta_d f_d(h) + (1 - beta_d) / (D - 1) sum_{d' != d} f_d'(h)                (5)
        T = beta_t f_t(h) + (1 - beta_t) / (T - 1) sum_{t' != t} f_t'(h)                (6)
        u_dt = ReLU(W_dt (S + alpha_d D + alpha_t T) + b_dt)                            (7, 8)

    and the logit is linear in `u_dt` with weights of scenario d's own. Each of `alpha_d`, `beta_d` (one number for
    each scenario), `alpha_t` and `beta_t` (one for each task) is a `FusionWeight` of that name (10). They train with
    all other weights here; the bi-level optimisation (11) belongs to the training.

    Reference: Zhang et al., M3oE: Multi-Domain Multi-Task Mixture-of-Experts Recommendation Framework, SIGIR 2024,
    https://doi.org/10.1145/3626772.3657686. Where it contradicts itself or is silent: `alpha_d` weights the
    domain module and `alpha_t` the task module, as its discussion says and equation 7 does not; with one
    scenario or one task there are no others and beta is 1; `f_DA` has the layers of widths `units`, each linear,
    layer normalisation, ReLU; "fully gated" is one gate for each scenario and task over the experts of all modules.
    Widths are those of the published code, whose gates do not train `h`, whose `f_DA` is one layer, and whose
    fusion weights are four numbers for all scenarios and tasks; here the paper's equations hold.

    Args:
        x: Tensor of shape `(batch, width)`.
        scenario: Integer tensor of shape `(batch,)`.
        towers: Names of the towers, the tasks.
        num_scenarios: Number of scenarios, the domains.
        units: Widths of the star layer and of `h`.
        expert_units: Width of all experts.
        tower_units: Widths of each tower's layers.
        num_experts: Number of common experts.
        fusion: `"weighted"`; Table 3's `"concat"`, the modules side by side without alpha; or its `"gated"`.
        domain_module: Whether there are experts by scenario.
        task_module: Whether there are experts by task.
        learn_fusion: Whether the fusion weights train; otherwise all stay at 0.5 (Table 3's "w/o AutoML").

    Returns:
        A `Shared` with vectors of shape `(batch, tower_units[-1])` and a scenario-specific output layer.

    Raises:
        ValueError: If `fusion` is unknown, `units` has not two widths, or a size is not positive.
    """
    if fusion not in FUSIONS:
        raise ValueError(f"`fusion` must be one of {', '.join(FUSIONS)}. Received: fusion={fusion}")
    check_sizes(units=units, expert_units=expert_units, tower_units=tower_units, num_experts=num_experts)
    if len(units) != 2:
        raise ValueError(f"`units` must have two widths, of the star layer and of what follows. Received: {units=}")
    num_towers = len(towers)

    h = StarDense(units[0], num_scenarios, name="domain_representation")(x, scenario)
    h = keras.layers.Dense(units[1], name="common_space")(h) + _domain_agnostic(x, units)

    def experts(number, name):
        layer = Experts(number, expert_units, activation="relu", normalize=True, name=f"{name}_experts")
        return layer(h)  # (batch, number, expert_units)

    common = experts(num_experts, "shared")
    domain = experts(num_scenarios, "domain") if domain_module else None
    task = experts(num_towers, "task") if task_module else None

    if fusion == "gated":
        modules = [module for module in (common, domain, task) if module is not None]
        h_bar = _gate(h, scenario, ops.concatenate(modules, axis=1), num_towers, num_scenarios)
    else:
        parts = [_gate(h, scenario, common, num_towers, num_scenarios)]  # each (batch, towers, expert_units)
        if domain_module:
            domain = _own_and_others(domain, learn_fusion, name="beta_d")
            if fusion == "weighted":
                domain = FusionWeight(num_scenarios, trainable=learn_fusion, name="alpha_d")(domain)
            domain = SelectScenario(name="own_domain")(domain, scenario)
            parts.append(ops.repeat(domain[:, None], num_towers, axis=1))
        if task_module:
            task = _own_and_others(task, learn_fusion, name="beta_t")
            if fusion == "weighted":
                task = FusionWeight(num_towers, trainable=learn_fusion, name="alpha_t")(task)
            parts.append(task)
        h_bar = sum(parts) if fusion == "weighted" else ops.concatenate(parts, axis=-1)

    vectors = {tower: h_bar[:, t] for t, tower in enumerate(towers)}
    for tower in towers:
        for i, width in enumerate(tower_units):
            layer = RoutedDense(width, num_scenarios, activation="relu", name=f"{tower}_tower_{i}")
            vectors[tower] = layer(vectors[tower], scenario)
    return Shared(vectors, routed_output=True)


def _domain_agnostic(x, units):
    """The network `f_DA` of equation 2, which does not know the scenario."""
    for i, width in enumerate(units):
        x = keras.layers.Dense(width, name=f"domain_agnostic_{i}")(x)
        x = keras.layers.LayerNormalization(name=f"domain_agnostic_norm_{i}")(x)
        x = keras.layers.ReLU(name=f"domain_agnostic_relu_{i}")(x)
    return x


def _gate(h, scenario, experts, num_towers, num_scenarios):
    """Equation 4: blends with one gate for each scenario and task; a single expert needs none."""
    num_experts = experts.shape[1]
    if num_experts == 1:
        return ops.repeat(experts, num_towers, axis=1)
    logits = RoutedDense(num_towers * num_experts, num_scenarios, name="gates")(h, scenario)
    weights = ops.softmax(ops.reshape(logits, (-1, num_towers, num_experts)))
    return ops.einsum("btn,bnu->btu", weights, experts)


def _own_and_others(experts, learn, *, name):
    """Equations 5 and 6 for all scenarios or tasks at once: each with the mean of the others."""
    number = experts.shape[1]
    if number == 1:
        return experts
    others = (ops.sum(experts, axis=1, keepdims=True) - experts) / (number - 1)
    return FusionWeight(number, trainable=learn, name=name)(experts, others)
