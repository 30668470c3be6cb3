"""Field-weighted factorisation machines of many tasks."""

from collections.abc import Mapping

from keras import KerasTensor

from tfmtr.encoders.embed import join, stack
from tfmtr.encoders.field_weighted import pair_products


def fwfm(x: KerasTensor, fields: Mapping[str, KerasTensor]) -> KerasTensor:
    """Appends the inner products of all pairs of embeddings, so that every task weighs each pair its own way.

        logit_t = w_0t + <w_t, x> + sum_{i < j} r_t,ij <v_i, v_j>

    with the weights in the tower's own linear layers: with `share="none"` this is MT-FwFM.

    Reference: Pan et al., Predicting Different Types of Conversions with Multi-Task Learning in Online Advertising,
    KDD 2019, https://arxiv.org/abs/1907.10235, section 4. Numbers and vectors enter linearly.

    Args:
        x: Tensor of shape `(batch, width)`.
        fields: `{feature: tensor of shape (batch, embedding_dim)}`, the embeddings.

    Returns:
        Tensor of shape `(batch, width + pairs)`.

    Raises:
        ValueError: If there are fewer than two embeddings.
    """
    return join({"x": x, "fwfm": pair_products(stack("fwfm", fields))})
