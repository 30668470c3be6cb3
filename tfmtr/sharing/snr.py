"""Sub-networks whose connections are switched on and off by learnt gates."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import KerasTensor, ops

from tfmtr.checks import check_choice
from tfmtr.layers._sizes import Shape, check_sizes
from tfmtr.layers.experts import Experts, stacked_glorot
from tfmtr.sharing._shared import Shared
from tfmtr.sharing._towers import dense_towers


def snr(
    x: KerasTensor,
    scenario: KerasTensor,
    *,
    towers: Sequence[str],
    num_scenarios: int,
    units: Sequence[int] = (256, 256),
    num_experts: int = 4,
    variant: Literal["trans", "aver"] = "trans",
    penalty: float = 1e-4,
    tower_units: Sequence[int] = (64,),
    normalize: bool = False,
) -> Shared:
    """Routes sub-networks to the next level's sub-networks, and the last level's to the towers.

    With sub-networks `u_1 .. u_n` of one level, input i of the next level, or of tower i after the last, is

        trans:  v_i = sum_j z_ij W_ij u_j          aver:  v_i = sum_j z_ij u_j

    and its sub-network is `f_i(v_i)`: linear, ReLU. The gates `z_ij` in [0, 1] are the
    same for all rows, random in training and fixed in inference. Their expected number that are not zero is
    a penalty, so connections that do not pay are closed for good and need not be computed when serving.

    Reference: Ma et al., SNR: Sub-Network Routing for Flexible Parameter Sharing in Multi-Task Learning,
    AAAI 2019, https://doi.org/10.1609/aaai.v33i01.3301216, with the hard concrete gates of Louizos et al.,
    Learning Sparse Neural Networks through L0 Regularization, ICLR 2018, https://arxiv.org/abs/1712.01312.

    The paper says weighted average, its formula is a weighted sum; this is the sum. It tunes the constants of
    the gates and `penalty`; here the constants are those of Louizos et al.

    Args:
        x: Tensor of shape `(batch, width)`.
        scenario: Ignored.
        towers: Names of the towers.
        num_scenarios: Ignored.
        units: Width of the sub-networks of each level, so that its length is the number of levels.
        num_experts: Number of sub-networks at each level.
        variant: `"trans"` for connections with a matrix each, `"aver"` for connections without.
        penalty: Float of at least 0, weight of the expected number of open connections in the loss.
        tower_units: Widths of each tower's layers; none for the tower's input itself.
        normalize: Whether layers have layer normalisation before the ReLU, which the paper does not have.

    Returns:
        A `Shared`: `{tower: tensor of shape (batch, width of the last layer)}`, and what each tower starts from.

    Raises:
        ValueError: If a size is not positive, `units` is empty, `variant` is unknown or `penalty` negative.
    """
    check_sizes(units=units, num_experts=num_experts)
    check_choice("variant", variant, ("trans", "aver"))
    for i, width in enumerate(units):
        x = Experts(num_experts, width, activation="relu", normalize=normalize, name=f"subnetworks_{i}")(x)
        num_outputs = num_experts if i < len(units) - 1 else len(towers)
        x = SubnetworkRoutes(num_outputs, transform=variant == "trans", penalty=penalty, name=f"routes_{i}")(x)
    return dense_towers(x, towers, tower_units, normalize=normalize)


@keras.saving.register_keras_serializable(package="tfmtr")
class SubnetworkRoutes(keras.layers.Layer):
    """Connects all inputs with all outputs through hard concrete gates.

        v_i = sum_j z_ij W_ij u_j,    z = min(1, max(0, s (zeta - gamma) + gamma))
        s = sigmoid((log u - log(1 - u) + log_alpha) / beta) in training, with u uniform in (0, 1)
        s = sigmoid(log_alpha) in inference

    The expected number of open gates, `sum_ij sigmoid(log_alpha - beta log(-gamma / zeta))`, is a loss.

    Args:
        num_outputs: Positive integer.
        transform: Whether connections have a matrix `W_ij` each.
        penalty: Float of at least 0, weight of the loss.
        seed: Optional integer seed.

    Call arguments:
        inputs: Tensor of shape `(batch, num_inputs, width)`.
        training: Whether gates are drawn.

    Returns:
        Tensor of shape `(batch, num_outputs, width)`.

    Raises:
        ValueError: If `penalty` is negative.
    """

    beta, gamma, zeta = 2 / 3, -0.1, 1.1  # temperature and stretch of Louizos et al.

    def __init__(
        self, num_outputs: int, *, transform: bool = True, penalty: float = 1e-4, seed: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if penalty < 0:
            raise ValueError(f"`penalty` must be at least 0. Received: penalty={penalty}")
        self.num_outputs = num_outputs
        self.transform = transform
        self.penalty = penalty
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def build(self, input_shape: Shape) -> None:
        """Creates the gates and the matrices."""
        _, num_inputs, width = input_shape
        # The gates are float32 under mixed precision too: bfloat16 has too few digits for u near 1.
        self.log_alpha = self.add_weight(
            shape=(self.num_outputs, num_inputs),
            initializer=keras.initializers.RandomNormal(stddev=0.01),
            autocast=False,
            name="log_alpha",
        )
        if self.transform:
            self.kernel = self.add_weight(
                shape=(width, self.num_outputs * num_inputs, width), initializer=stacked_glorot, name="kernel"
            )

    def gates(self, training: bool = False) -> KerasTensor:
        """The gates `z` of shape `(num_outputs, num_inputs)`."""
        if training:
            u = keras.random.uniform(self.log_alpha.shape, 1e-6, 1 - 1e-6, dtype="float32", seed=self.seed_generator)
            s = ops.sigmoid((ops.log(u) - ops.log(1 - u) + self.log_alpha) / self.beta)
        else:
            s = ops.sigmoid(self.log_alpha)
        return ops.clip(s * (self.zeta - self.gamma) + self.gamma, 0, 1)

    def call(self, inputs: KerasTensor, training: bool = False) -> KerasTensor:
        """Routes the inputs, and adds the loss."""
        shift = self.beta * math.log(-self.gamma / self.zeta)
        self.add_loss(self.penalty * ops.sum(ops.sigmoid(self.log_alpha - shift)))
        z = ops.cast(self.gates(training), self.compute_dtype)
        if not self.transform:
            return ops.einsum("ij,bjw->biw", z, inputs)
        width = inputs.shape[-1]
        kernel = ops.reshape(self.kernel, (width, *z.shape, width)) * z[:, :, None]
        return ops.einsum("bjw,wijv->biv", inputs, kernel)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Shape with the outputs' number."""
        return (input_shape[0], self.num_outputs, input_shape[2])

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {
            **super().get_config(),
            "num_outputs": self.num_outputs,
            "transform": self.transform,
            "penalty": self.penalty,
            "seed": self.seed,
        }
