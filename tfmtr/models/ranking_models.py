"""The ranking form: one vector of a user with a title, and a dense layer."""

from collections.abc import Sequence
from typing import Any

import keras

from tfmtr import components
from tfmtr.debiasing._debiased import debiased
from tfmtr.encoders.embed import embed_fields, encode_inputs, join
from tfmtr.encoders.first_order import first_order
from tfmtr.heads._head import TrainingGraph
from tfmtr.kinds import KINDS
from tfmtr.layers.routed_dense import RoutedDense
from tfmtr.models.building import add_terms, check_sizes, named_tensors
from tfmtr.models.joint import JointModel
from tfmtr.models.rebuilding import rebuildable
from tfmtr.models.side_inputs import Side, call_share, find_share, row_scenario
from tfmtr.schema import ROLES, TRAINING, Schema


@rebuildable
def ranking(
    schema: Schema,
    *,
    share: Any = "none",
    head: Any = "parallel",
    embedding_dim: int = 16,
    unknown_rate: float = 0.0,
    prior: Sequence[str] = (),
    encode: Any = None,
    has_first_order: bool = False,
    dropout: float = 0.0,
    per_pair: bool = False,
    debias: Any = None,
) -> JointModel:
    """Builds a ranking model: embeddings of all features, sharing, one logit per tower.

        x = encode([e_1 .. e_n]),    {tower: u_t} = share(x, scenario),    logit_t = w_t u_t + b_t (+ first order)

    Args:
        schema: The `Schema`.
        share: Name of a file in `tfmtr/sharing/` or a function like theirs (`functools.partial` for options).
        head: Name of a file in `tfmtr/heads/` or a function like theirs.
        embedding_dim: Width of one categorical embedding.
        unknown_rate: As for `two_tower`.
        prior: Names of the features that a sharing file with prior information personalises by; all ids by default.
        encode: Name of a file in `tfmtr/encoders/interactions/` or a function like theirs (`functools.partial` for
            options): what happens to `x` before sharing. By default nothing.
        has_first_order: Whether a linear model of the features is added to the logits.
        dropout: Share of what sharing is given that a training step leaves out.
        per_pair: As for `two_tower`.
        debias: As for `two_tower`.

    Returns:
        A `JointModel`.

    Raises:
        ValueError: If `share`, `head` or `encode` is unknown or needs what the schema does not have, or a size is not
            what it must be.

    Example:
    >>> from tfmtr.schema import Feature, Scenario, Schema, Task
    >>> schema = Schema(
    ...     [Feature("user", "user", "id", ["a"]), Feature("movie", "title", "id", ["b"])],
    ...     [Task("click"), Task("like")], Scenario(["age"], {("18",): "young"}))
    >>> ranking(schema, share="shared_bottom").output["outputs"]["like"].shape
    (None, 1)
    """
    check_sizes(embedding_dim, unknown_rate, dropout)
    name, made, share = head, components.find("heads", head)(schema.tasks), find_share(share, per_pair)
    head = debiased(made, debias, schema.tasks)
    if head.is_two_tower_only and not made.is_two_tower_only:
        raise ValueError(
            "This way to debias needs queries and title vectors, which a ranking model does not have; use `two_tower`. "
            f"Received: debias={debias!r}"
        )
    if head.is_two_tower_only:
        raise ValueError(
            "This head compares a row's query with the titles of other rows, which a ranking model does not have; use "
            f"`two_tower`. Received: head={name!r}"
        )
    schema = head.complete(schema)
    inputs = encode_inputs(schema, *ROLES, scenario=True)
    features = schema.by_role(*ROLES)
    fields = embed_fields(inputs, features, embedding_dim=embedding_dim)
    x = join(fields)
    if encode is not None:
        encode = components.find("encoders.interactions", encode)
        x = encode(x, {f.name: fields[f.name] for f in features if KINDS[f.kind].is_categorical})
    if dropout:
        x = keras.layers.Dropout(dropout, name="dropout")(x)
    towers = head.towers()
    shared = call_share(
        share, x, Side(inputs, schema, features), tuple(towers),
        embedding_dim=embedding_dim, unknown_rate=unknown_rate, prior=prior,
    )  # fmt: skip
    vectors = head.relate(add_terms(dict(shared.vectors), shared.corrections))
    logits = {}
    for tower, vector in vectors.items():
        bias = keras.initializers.Constant(towers[tower].start)
        if shared.routed_output:
            scenario, num_scenarios = row_scenario(inputs, schema, unknown_rate)
            layer = RoutedDense(1, num_scenarios, bias_initializer=bias, name=f"{tower}_logit", dtype="float32")
            logits[tower] = layer(vector, scenario)
        else:
            layer = keras.layers.Dense(1, bias_initializer=bias, name=f"{tower}_logit", dtype="float32")  # pyright: ignore[reportArgumentType]
            logits[tower] = layer(vector)
    logits = add_terms(logits, shared.terms)
    if has_first_order:
        logits = add_terms(logits, first_order(inputs, features, tuple(logits)))
    inputs = {**inputs, **encode_inputs(schema, TRAINING)}
    graph = TrainingGraph(schema, inputs, dict(shared.bases), vectors, logits, {}, None)
    return JointModel(inputs, named_tensors(head, graph, {}), "ranking", head=head, schema=schema)
