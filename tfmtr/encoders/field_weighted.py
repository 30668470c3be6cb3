"""Field-weighted factorisation machines of many tasks: as an interaction of a ranking model, and as two towers."""

import itertools
from collections.abc import Mapping, Sequence

import keras
from keras import KerasTensor, ops

from tfmtr.kinds import KINDS
from tfmtr.layers.field_query import FieldQuery
from tfmtr.schema import Feature


def pair_products(fields: KerasTensor) -> KerasTensor:
    """Inner products of all pairs of fields: `<v_i, v_j>` for i < j, in order.

    Args:
        fields: Tensor of shape `(batch, fields, width)`.

    Returns:
        Tensor of shape `(batch, fields (fields - 1) / 2)`.
    """
    products = ops.matmul(fields, ops.transpose(fields, (0, 2, 1)))  # (batch, fields, fields)
    size = fields.shape[1]
    pairs = [i * size + j for i, j in itertools.combinations(range(size), 2)]
    return ops.take(ops.reshape(products, (-1, size * size)), pairs, axis=1)


def field_towers(
    user_fields: Mapping[str, KerasTensor], title_fields: Mapping[str, KerasTensor], towers: Sequence[str]
) -> tuple[dict[str, KerasTensor], KerasTensor, dict[str, KerasTensor]]:
    """MT-FwFM as one dot product a task, so that an index of titles can serve it.

    With user fields U, title fields T and the sum over pairs split by who is in it:

        logit_t = <q_t, v> + term_t
        v       = [v_j for j in T,                                 <v_j, v_k> for j < k in T]
        q_t     = [w_t,j + sum_{i in U} r_t,ij v_i for j in T,     r_t,jk for j < k in T]
        term_t  = sum_{i in U} <w_t,i, v_i> + sum_{i < k in U} r_t,ik <v_i, v_k>

    The title vector `v` knows no task. Numbers and vectors become fields by a linear map to the embeddings' width.

    Reference: as `fwfm`; the factorisation is ours.

    Args:
        user_fields: `{feature: tensor of shape (batch, width)}`, all of one width.
        title_fields: The same of titles.
        towers: Names of the towers.

    Returns:
        `(queries, title, terms)`: `{tower: (batch, d)}`, `(batch, d)` and `{tower: (batch, 1)}`.
    """
    users, titles = (ops.stack(list(fields.values()), axis=1) for fields in (user_fields, title_fields))
    flat = keras.layers.Flatten()
    title = ops.concatenate([flat(titles), pair_products(titles)], axis=1)
    user = ops.concatenate([flat(users), pair_products(users)], axis=1)
    queries, terms = {}, {}
    for tower in towers:
        queries[tower] = FieldQuery(len(title_fields), name=f"{tower}_field_query")(users)
        terms[tower] = keras.layers.Dense(1, use_bias=False, name=f"{tower}_field_term")(user)
    return queries, title, terms


def as_fields(fields: Mapping[str, KerasTensor], features: Sequence[Feature], width: int) -> dict[str, KerasTensor]:
    """Fields of one width: numbers and vectors through a linear map of their own."""
    linear = {feature.name for feature in features if not KINDS[feature.kind].is_categorical}
    return {
        name: keras.layers.Dense(width, use_bias=False, name=f"{name}_field")(value) if name in linear else value
        for name, value in fields.items()
    }
