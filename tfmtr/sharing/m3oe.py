"""Three mixtures of experts, common, by scenario and by task, under learnt fusion weights."""

from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import KerasTensor, ops

from tfmtr.layers._routing import route_dense
from tfmtr.layers._sizes import Shape, check_sizes
from tfmtr.layers.expert_gate import blend
from tfmtr.layers.experts import Experts
from tfmtr.layers.fusion_weight import FusionWeight
from tfmtr.layers.normalized_dense import NormalizedDense
from tfmtr.layers.routed_dense import RoutedDense
from tfmtr.layers.star_dense import StarDense
from tfmtr.sharing._shared import Shared

FUSIONS = ("weighted", "concat", "gated")


def m3oe(
    x: KerasTensor,
    scenario: KerasTensor,
    *,
    towers: Sequence[str],
    num_scenarios: int,
    units: Sequence[int] = (512, 256),
    expert_units: int = 64,
    tower_units: Sequence[int] = (64,),
    num_experts: int = 4,
    fusion: Literal["weighted", "concat", "gated"] = "weighted",
    domain_module: bool = True,
    task_module: bool = True,
    learn_fusion: bool = True,
) -> Shared:
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

    h = CommonSpace(units[0], units[1], num_scenarios, name="common_space")(x, scenario) + _domain_agnostic(x, units)

    def experts(number: int, name: str) -> KerasTensor:
        layer = Experts(number, expert_units, activation="relu", normalize=True, name=f"{name}_experts")
        return layer(h)  # (batch, number, expert_units)

    modules = [experts(num_experts, "shared")]
    modules += [experts(num_scenarios, "domain")] if domain_module else []
    modules += [experts(num_towers, "task")] if task_module else []
    if fusion == "gated":
        modules = [ops.concatenate(modules, axis=1)]

    # For each module and task, how much each of its experts counts for a row: (batch, experts), or (1, experts).
    weights = [_gates(h, scenario, modules[0].shape[1], num_towers, num_scenarios)]
    options = {"learn": learn_fusion, "has_alpha": fusion == "weighted"}
    if domain_module and fusion != "gated":
        own = ops.one_hot(scenario, num_scenarios, dtype=h.dtype)
        weights.append([_own_and_others(h, own, "d", **options)] * num_towers)
    if task_module and fusion != "gated":
        of_tasks = _own_and_others(h, ops.eye(num_towers, dtype=h.dtype), "t", **options)
        weights.append(ops.split(of_tasks, num_towers))

    vectors = {}
    for tower, *of_modules in zip(towers, *weights, strict=True):
        parts = [blend(*pair) for pair in zip(of_modules, modules, strict=True)]
        vector = ops.concatenate(parts, axis=-1) if fusion == "concat" else sum(parts)
        for i, width in enumerate(tower_units):
            vector = RoutedDense(width, num_scenarios, activation="relu", name=f"{tower}_tower_{i}")(vector, scenario)
        vectors[tower] = vector
    return Shared(vectors, routed_output=True)


def _domain_agnostic(x: KerasTensor, units: Sequence[int]) -> KerasTensor:
    """The network `f_DA` of equation 2, which does not know the scenario."""
    for i, width in enumerate(units):
        x = NormalizedDense(width, name=f"domain_agnostic_{i}")(x)
    return x


def _gates(
    h: KerasTensor, scenario: KerasTensor, num_experts: int, num_towers: int, num_scenarios: int
) -> list[KerasTensor]:
    """Equation 4: for each task the weights of the row's own scenario; a single expert needs none."""
    if num_experts == 1:
        return [ops.ones((1, 1), dtype=h.dtype)] * num_towers
    logits = RoutedDense(num_towers * num_experts, num_scenarios, name="gates")(h, scenario)
    return [ops.softmax(of_task) for of_task in ops.split(logits, num_towers, axis=1)]


def _own_and_others(h: KerasTensor, own: KerasTensor, name: str, *, learn: bool, has_alpha: bool) -> KerasTensor:
    """Equations 5 and 6, times alpha: weights of all scenarios' or tasks' experts, for rows whose own one is marked.

    `own` has a one where the row's own scenario or task is, `h` is any tensor of the graph.
    """
    number = own.shape[-1]

    def of_own(letter: str) -> KerasTensor:
        learnt = FusionWeight(number, trainable=learn, name=f"{letter}_{name}")(h)
        return ops.sum(learnt * own, axis=-1, keepdims=True)

    weights = own
    if number > 1:
        beta = of_own("beta")
        weights = beta * own + (1 - beta) / (number - 1) * (1 - own)
    return of_own("alpha") * weights if has_alpha else weights


@keras.saving.register_keras_serializable(package="tfmtr")
class CommonSpace(keras.layers.Layer):
    """The linear part of equations 1 and 2: a star layer and a dense layer on top of it, without activations.

        y = W_c ((W_d ⊗ W_sh) x + b_d + b_sh) + b_c

    A step of training multiplies the kernels with one another instead of each row with both: the same function, and for
    batches of more than some hundred rows with a fraction of the multiplications.

    Args:
        star_units: Width of the star layer.
        units: Width of the output.
        num_scenarios: Number of scenarios.

    Call arguments:
        inputs: Tensor of shape `(batch, width)`.
        scenario: Integer tensor of shape `(batch,)`.

    Returns:
        Tensor of shape `(batch, units)`.
    """

    def __init__(self, star_units: int, units: int, num_scenarios: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.star = StarDense(star_units, num_scenarios, name="star", dtype=self.dtype_policy)
        self.dense = keras.layers.Dense(units, name="dense", dtype=self.dtype_policy)
        self.supports_jit = self.star.supports_jit

    def build(self, inputs_shape: Shape, scenario_shape: Shape) -> None:
        """Creates both layers' weights."""
        self.star.build(inputs_shape, scenario_shape)
        self.dense.build((None, self.star.units))

    def call(self, inputs: KerasTensor, scenario: KerasTensor, training: bool = False) -> KerasTensor:
        """Multiplies rows or kernels."""
        if not training:
            return self.dense(self.star(inputs, scenario))
        kernels, biases = self.star.kernels_and_biases()
        kernels = [ops.matmul(kernel, self.dense.kernel) for kernel in kernels]
        biases = [ops.matmul(bias[None], self.dense.kernel)[0] + self.dense.bias for bias in biases]
        return route_dense(inputs, scenario, kernels, biases, routed=self.star.routed)

    def compute_output_shape(self, inputs_shape: Shape, scenario_shape: Shape) -> Shape:
        """Shape with the dense layer's width."""
        return (inputs_shape[0], self.dense.units)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        sizes = {"star_units": self.star.units, "units": self.dense.units, "num_scenarios": self.star.num_scenarios}
        return {**super().get_config(), **sizes}
