"""Interactions between features, made explicit before a ranking model's sharing."""

import keras
import keras_rs
from keras import ops

from tfmtr.encoders.embed import CATEGORICAL, embed, join, stack
from tfmtr.encoders.field_weighted import fwfm
from tfmtr.layers._sizes import check_sizes


def first_order(inputs, features, towers):
    """A linear model of the features beside the joint one, one for each tower.

        term_t = sum_f w_tf[value of f] + sum_n w_tn n

    over the categorical features f and the numbers and vectors n. It is the first-order part of factorisation
    machines and the "wide" part of wide and deep models. An unknown value has a weight too.

    Args:
        inputs: `{name: tensor}` as `encode_inputs` describes.
        features: The features.
        towers: Names of the towers.

    Returns:
        `{tower: tensor of shape (batch, 1)}`, to be added to the logits.
    """
    terms = []
    for feature in features:
        value = embed(inputs, [feature], embedding_dim=len(towers), name="first_order")
        if feature.kind not in CATEGORICAL:
            name = f"first_order_{feature.name}"
            value = keras.layers.Dense(len(towers), use_bias=False, kernel_initializer="zeros", name=name)(value)
        terms.append(value)
    total = sum(terms)  # (batch, towers)
    return {tower: total[:, t : t + 1] for t, tower in enumerate(towers)}


def fm(x, fields):
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


def cross(x, fields, *, num_layers=2, projection_dim=None):
    """Multiplies features layer by layer, so that layer l holds products of up to l + 1 of them.

        x_{l+1} = x_0 ⊗ (W_l x_l + b_l) + x_l,    x_0 = x

    Reference: Wang et al., DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale Learning to
    Rank Systems, WWW 2021, https://arxiv.org/abs/2008.13535, section 3.2; the layer is keras-rs's `FeatureCross`.

    Args:
        x: Tensor of shape `(batch, width)`.
        fields: Ignored.
        num_layers: Number of cross layers.
        projection_dim: Rank of each `W_l`; full by default (section 3.3).

    Returns:
        Tensor of shape `(batch, width)`.

    Raises:
        ValueError: If a size is not positive.
    """
    check_sizes(num_layers=num_layers, **({} if projection_dim is None else {"projection_dim": projection_dim}))
    crossed = x
    for i in range(num_layers):
        crossed = keras_rs.layers.FeatureCross(projection_dim=projection_dim, name=f"cross_{i}")(x, crossed)
    return crossed


INTERACTIONS = {"fm": fm, "fwfm": fwfm, "cross": cross}
