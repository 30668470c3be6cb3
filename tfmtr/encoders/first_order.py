"""A linear model of the features beside the joint one."""

from collections.abc import Mapping, Sequence

import keras
from keras import KerasTensor

from tfmtr.encoders.embed import embed
from tfmtr.kinds import KINDS
from tfmtr.schema import Feature


def first_order(
    inputs: Mapping[str, KerasTensor], features: Sequence[Feature], towers: Sequence[str]
) -> dict[str, KerasTensor]:
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
        if not KINDS[feature.kind].is_categorical:
            name = f"first_order_{feature.name}"
            value = keras.layers.Dense(len(towers), use_bias=False, kernel_initializer="zeros", name=name)(value)
        terms.append(value)
    total = sum(terms)  # (batch, towers)
    return {tower: total[:, t : t + 1] for t, tower in enumerate(towers)}
