"""The two-tower form: a user's and a title's vectors, and their dot product."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import keras
from keras import ops

from tfmtr import components, replicas
from tfmtr.checks import check_choice, check_widths
from tfmtr.debiasing._debiased import debiased
from tfmtr.encoders.embed import embed, embed_fields, encode_inputs
from tfmtr.encoders.field_weighted import as_fields, field_towers
from tfmtr.heads._head import Head, TrainingGraph
from tfmtr.layers.score import DotScore, QueryScale
from tfmtr.models.building import add_terms, as_float32, check_sizes, named_tensors
from tfmtr.models.joint import JointModel, Tensors
from tfmtr.models.rebuilding import rebuildable
from tfmtr.models.side_inputs import Side, call_share, find_share
from tfmtr.schema import PAIR, TRAINING, Schema

NOTHING: Mapping[str, Any] = MappingProxyType({})


@keras.saving.register_keras_serializable(package="tfmtr")
class TwoTower(JointModel):
    """A joint model whose logits are `<query, title> + bias`.

    Attributes:
        user_tower: Model from the user's inputs and `scenario` to `{tower: query of shape (batch, d)}`.
        title_tower: Model from the title's inputs to vectors of shape `(batch, d)`.
        biases: `{tower: bias}`, floats to add to the dot product to have the logit.
    """

    def __init__(
        self,
        inputs: Tensors,
        outputs: dict[str, Tensors],
        name: str | None = None,
        *,
        head: Head | None = None,
        schema: Schema | None = None,
        queries: Mapping[str, keras.KerasTensor] = NOTHING,
        title: Mapping[str, Any] = NOTHING,
        scores: Mapping[str, DotScore] = NOTHING,
    ) -> None:
        super().__init__(inputs, outputs, name, head=head, schema=schema)
        self.score_names = {tower: layer.name for tower, layer in scores.items()}
        served: Any = self.predictor.input
        users = {name: value for name, value in served.items() if name not in title["inputs"]}
        self.user_tower = keras.Model(users, dict(queries), name="user_tower")
        self.title_tower = keras.Model(title["inputs"], title["vector"], name="title_tower")

    @property
    def biases(self) -> dict[str, float]:
        """Learnt bias of every tower, 0 where it has none."""
        layers = {tower: self.get_layer(self.score_names[tower]) for tower in self.user_tower.output}
        return {
            tower: 0.0 if layer.initial_bias is None else float(ops.convert_to_numpy(layer.bias))  # pyright: ignore[reportArgumentType]
            for tower, layer in layers.items()
        }


@rebuildable
def two_tower(
    schema: Schema,
    *,
    share: Any = "none",
    head: Any = "parallel",
    units: Sequence[int] = (512, 512),
    embedding_dim: int = 16,
    unknown_rate: float = 0.05,
    literal: bool = False,
    encode: str | None = None,
    dropout: float = 0.0,
    per_pair: bool = False,
    debias: Any = None,
) -> TwoTower:
    """Builds a two-tower model: the dot product of a user's and a title's vector, in one or many scenarios.

    Both towers are dense layers with batch normalisation and ReLU. `share` acts on the user's side only:
    the title tower sees neither scenario nor task, so one index serves all. Score of tower t:

        logit_t = s_t <u_t, v> / sqrt(d) + b_t

    with `s_t > 0` and `b_t` learnt, `b_t` starting at the label's log-odds. The last layer of each tower
    is linear.

    Reference: Gampa et al., Multi-Task Learning For Reduced Popularity Bias In Multi-Territory Video
    Recommendations, 2023, section 3.3. The paper says ReLU on all layers and a plain dot product, which
    makes every probability at least one half; `literal=True` builds that form.

    Args:
        schema: The `Schema`.
        share: Name of a file in `tfmtr/sharing/` or a function like theirs (`functools.partial` for options).
        head: Name of a file in `tfmtr/heads/` or a function like theirs.
        units: Widths of the towers' dense layers; the last is the width of the vectors.
        embedding_dim: Width of one categorical embedding.
        unknown_rate: Share of training rows whose scenario is called unknown, to train the default branch.
            With 0 there is none, and unknown scenarios take the first group's branch.
        literal: Whether to build the paper's own form.
        encode: `"fwfm"` for field-weighted factorisation machines in place of dense layers (see
            `tfmtr/encoders/field_weighted.py`); tasks share the embeddings, so `share` must be `"none"`.
        dropout: Share of each hidden layer's outputs that a training step leaves out.
        per_pair: Whether a multi-task file is made multi-domain: each pair of task and scenario is a task to it.
        debias: Name of a file in `tfmtr/debiasing/` or a function like theirs: what is done about popularity bias.

    Returns:
        A `TwoTower` model.

    Raises:
        ValueError: If `share`, `head` or `encode` is unknown, `units` is no tuple of widths or another size is not
            what it must be, a tower has no feature, or `encode` is given with another `share` or with `literal`.

    Example:
    >>> from tfmtr.schema import Feature, Scenario, Schema, Task
    >>> schema = Schema(
    ...     [Feature("age", "user", "number"), Feature("title_vector", "title", "vector", width=3)],
    ...     [Task("click")], Scenario(["territory"], {("DE",): "west"}))
    >>> model = two_tower(schema, share="territory_branches", units=(8, 4))
    >>> sorted(model.user_tower.output)
    ['click']
    """
    units = check_widths("units", units)
    check_sizes(embedding_dim, unknown_rate, dropout)
    if pairs := [feature.name for feature in schema.by_role(PAIR)]:
        raise ValueError(
            "A two-tower model knows no feature of a user and a title; train it on the log's own examples, "
            f"and form=ranking on its candidates. Received: {pairs[:3]}"
        )
    given, share = share, find_share(share, per_pair)
    head = debiased(head, debias, schema.tasks)
    schema, towers = head.complete(schema), head.towers()
    user_inputs = encode_inputs(schema, "user", "context", scenario=True)
    title_inputs = encode_inputs(schema, "title")
    user = Side(user_inputs, schema, schema.by_role("user", "context"))
    if encode is None:
        layers = DenseTowers(units, embedding_dim, unknown_rate, literal=literal, dropout=dropout)
        vectors, title, terms, bases = layers(user, title_inputs, share, tuple(towers))
    else:
        check_choice("encode", encode, ("fwfm",))
        if share is not components.find("sharing", "none") or literal or dropout:
            raise ValueError(
                '`encode="fwfm"` is a two-tower model of its own, whose tasks share their embeddings: it needs '
                f'share="none", literal=False and no dropout. Received: share={given!r}, literal={literal}, '
                f"dropout={dropout}"
            )
        vectors, title, terms, bases = _field_towers(
            user, title_inputs, towers=tuple(towers), embedding_dim=embedding_dim
        )
    vectors, title = head.relate(vectors), as_float32(title)

    queries, logits, scores = {}, {}, {}
    for tower, vector in vectors.items():
        scaled = vector if literal or encode else QueryScale(name=f"{tower}_query")(vector)
        queries[tower] = as_float32(scaled)
    queries, title, extra = head.pair(queries, title)
    for tower in vectors:
        bias = None if literal else towers[tower].start
        scores[tower] = DotScore(bias, name=f"{tower}_score", dtype="float32")
        logits[tower] = scores[tower](queries[tower], title)
    inputs = {**user_inputs, **title_inputs, **encode_inputs(schema, TRAINING)}
    logits = add_terms(logits, terms)
    graph = TrainingGraph(schema, inputs, dict(bases), vectors, logits, queries, title)
    return TwoTower(
        inputs,
        named_tensors(head, graph, extra),
        "two_tower",
        head=head,
        schema=schema,
        queries={name: queries[name] for name, tower in towers.items() if tower.is_served},
        title={"inputs": title_inputs, "vector": title},
        scores=scores,
    )


@dataclasses.dataclass(frozen=True)
class DenseTowers:
    """User vectors by tower, the title vector, terms beside the logits and bases, from dense layers and `share`.

    Args are those of `two_tower`.
    """

    units: Sequence[int]
    embedding_dim: int
    unknown_rate: float
    literal: bool
    dropout: float

    def __call__(
        self, side: Side, title_inputs: Tensors, share: Callable[..., Any], towers: tuple[str, ...]
    ) -> tuple[Tensors, keras.KerasTensor, Mapping[str, keras.KerasTensor], Mapping[str, keras.KerasTensor]]:
        """Draws the graph between the inputs and the scores."""
        user = embed(side.inputs, side.features, embedding_dim=self.embedding_dim)
        user, user_linear = _tower(user, self.units, "user", self.dropout)
        title = embed(title_inputs, side.schema.by_role("title"), embedding_dim=self.embedding_dim)
        title, title_linear = _tower(title, self.units, "title", self.dropout)
        shared = call_share(share, user, side, towers, unknown_rate=self.unknown_rate, embedding_dim=self.embedding_dim)
        vectors = {}
        for tower, vector in shared.vectors.items():
            if self.literal:
                vector = keras.layers.ReLU(name=f"{tower}_relu")(vector)
            elif vector is user:  # the identity adds no layer: the user tower's own last layer is the linear one
                vector = user_linear
            elif not shared.is_linear:
                vector = keras.layers.Dense(self.units[-1], name=f"{tower}_projection")(vector)
            vectors[tower] = vector
        vectors = add_terms(vectors, shared.corrections)
        return vectors, title if self.literal else title_linear, shared.terms, shared.bases


def _field_towers(
    user: Side, title_inputs: Tensors, *, towers: tuple[str, ...], embedding_dim: int
) -> tuple[Tensors, keras.KerasTensor, Tensors, Tensors]:
    """The same from the fields of a field-weighted factorisation machine."""
    sides = []
    for inputs, features in (
        (user.inputs, user.features),
        (title_inputs, user.schema.by_role("title")),
    ):
        sides.append(as_fields(embed_fields(inputs, features, embedding_dim=embedding_dim), features, embedding_dim))
    queries, title, terms = field_towers(sides[0], sides[1], towers)
    return queries, title, terms, queries  # a query is the tower's only layer


def _tower(
    x: keras.KerasTensor, units: Sequence[int], name: str, dropout: float
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Dense layers with batch normalisation and ReLU; returns the last layer's output with and without them."""
    for i, width in enumerate(units):
        linear = keras.layers.Dense(width, name=f"{name}_dense_{i}")(x)
        # Momentum 0.99 would take hundreds of steps to forget the initial statistics; batches here are large and few.
        norm = keras.layers.BatchNormalization(
            momentum=0.9, synchronized=replicas.number() > 1, name=f"{name}_norm_{i}"
        )
        x = norm(linear)
        x = keras.layers.ReLU(name=f"{name}_relu_{i}")(x)
        if dropout and i + 1 < len(units):
            x = keras.layers.Dropout(dropout, name=f"{name}_dropout_{i}")(x)
    return x, linear
