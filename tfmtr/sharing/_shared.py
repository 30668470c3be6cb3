"""What a sharing file may return beside its vectors, and the wrapper that makes a multi-task system multi-domain."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import keras
from keras import KerasTensor, ops

from tfmtr import components
from tfmtr.layers._sizes import Shape


class Shared(NamedTuple):
    """Vectors of a sharing file that has more to say than `{tower: vector}`.

    Attributes:
        vectors: `{tower: tensor of shape (batch, units)}`.
        terms: `{tower: tensor of shape (batch, 1)}` to add to the logits.
        routed_output: Whether a ranking model's last `Dense(1)` has weights of its own for each scenario.
        is_linear: Whether the vectors come from a linear layer as wide as `x`, as a dot product wants them; a
            two-tower model puts a linear projection on top of all others.
        bases: `{tower: tensor of shape (batch, width)}`, what each tower's own layers start from, where that is not
            `x` itself.
        corrections: `{tower: tensor as wide as the tower's vector}` to add to the vectors after all that the assembly
            does to them, such as a two-tower model's last linear layer; for towers that start as another system's.
    """

    vectors: dict[str, KerasTensor]
    terms: Mapping[str, KerasTensor] = MappingProxyType({})
    routed_output: bool = False
    is_linear: bool = False
    bases: Mapping[str, KerasTensor] = MappingProxyType({})
    corrections: Mapping[str, KerasTensor] = MappingProxyType({})


def as_shared(result: Shared | dict[str, KerasTensor]) -> Shared:
    """What a sharing file returned, as a `Shared`.

    Raises:
        ValueError: If it is neither that nor `{tower: vector}`.
    """
    if not isinstance(result, Shared) and (not isinstance(result, Mapping) or not result):
        raise ValueError(
            f"`share` must be a function that returns {{tower: vector}} or a `Shared`. Received: {result!r}"
        )
    return result if isinstance(result, Shared) else Shared(result)


@keras.saving.register_keras_serializable(package="tfmtr")
class SelectScenario(keras.layers.Layer):
    """Picks each row's own scenario out of one tensor per scenario.

    Call arguments:
        inputs: Tensor of shape `(batch, num_scenarios, units)`.
        scenario: Integer tensor of shape `(batch,)`.

    Returns:
        Tensor of shape `(batch, units)`.

    Example:
    >>> x = ops.reshape(ops.arange(4), (1, 2, 2))
    >>> SelectScenario()(x, ops.array([1])).numpy().tolist()
    [[2, 3]]
    """

    def call(self, inputs: KerasTensor, scenario: KerasTensor) -> KerasTensor:
        """Picks the rows."""
        return ops.squeeze(ops.take_along_axis(inputs, scenario[:, None, None], axis=1), axis=1)

    def compute_output_shape(self, inputs_shape: Shape, scenario_shape: Shape) -> Shape:
        """Shape without the scenario axis."""
        return (inputs_shape[0], inputs_shape[2])


def per_pair(share: Callable[..., Shared | dict[str, KerasTensor]]) -> Callable[..., Shared]:
    """Makes a multi-task system multi-domain: one tower for each pair of task and scenario, the row's selected.

    The multi-domain multi-task versions of shared bottom, MMoE and PLE in Table 2 of Zhang et al., M3oE, SIGIR
    2024: to the wrapped system a pair `task.scenario` is a task.

    Args:
        share: A sharing function that ignores the scenario and returns `{tower: vector}`.

    Returns:
        A sharing function.

    Raises:
        ValueError: If `share` asks for a side input: it knows the scenario by itself, or has tables of each task.
    """
    components.check_pairable(share)

    def shared(
        x: KerasTensor, scenario: KerasTensor, *, towers: Sequence[str], num_scenarios: int, **options: Any
    ) -> Shared:
        pairs = [f"{tower}.{i}" for tower in towers for i in range(num_scenarios)]
        result = as_shared(share(x, scenario, towers=tuple(pairs), num_scenarios=num_scenarios, **options))

        def select(tensors: Mapping[str, KerasTensor], name: str) -> dict[str, KerasTensor]:
            return {
                tower: SelectScenario(name=f"{tower}_{name}")(
                    ops.stack([tensors[f"{tower}.{i}"] for i in range(num_scenarios)], axis=1), scenario
                )
                for tower in towers
            }

        # A pair's tower ends in an output of its own.
        bases = select(result.bases, "base_of_scenario") if result.bases else {}
        corrections = select(result.corrections, "correction_of_scenario") if result.corrections else {}
        vectors = select(result.vectors, "of_scenario")
        return Shared(vectors, routed_output=True, bases=bases, corrections=corrections)

    return shared
