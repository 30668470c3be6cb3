"""Products of pairs of embeddings, as in factorisation machines."""

from collections.abc import Mapping

from keras import KerasTensor, ops

from tfmtr.encoders.embed import join, stack


def fm(x: KerasTensor, fields: Mapping[str, KerasTensor]) -> KerasTensor:
    """Appends the products of all pairs of embeddings, summed over the pairs.

        f = sum_{i < j} e_i ⊗ e_j = ((sum_i e_i)^2 - sum_i e_i^2) / 2

    with element-wise products and squares. The sum of `f` is the second-order term of a factorisation machine;
    kept as a vector, every task weighs it its own way.

    Reference: Rendle, Factorization Machines, ICDM 2010, section III; the vector form is the bi-interaction
    pooling of He and Chua, Neural Factorization Machines, SIGIR 2017, https://arxiv.org/abs/1708.05027, section 3.1.

    Args:
        x: Tensor of shape `(batch, width)`.
        fields: `{feature: tensor of shape (batch, embedding_dim)}`, the embeddings.

    Returns:
        Tensor of shape `(batch, width + embedding_dim)`.

    Raises:
        ValueError: If there are fewer than two embeddings.
    """
    stacked = stack("fm", fields)
    squares = ops.square(ops.sum(stacked, axis=1)) - ops.sum(ops.square(stacked), axis=1)
    return join({"x": x, "fm": squares / 2})
