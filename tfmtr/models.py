"""Puts the parts together: encode, share, score, head."""

import math

import keras
from keras import ops

from tfmtr import components
from tfmtr.encoders.embed import embed, encode_inputs
from tfmtr.layers.score import DotScore, QueryScale
from tfmtr.layers.unknown_scenario import UnknownScenario


class JointModel(keras.Model):
    """A joint model with its head's losses, trained by Keras `fit`.

    Its outputs are all tensors that a loss may need: `{"outputs": ..., "logits": ..., "vectors": ...}`.
    What is served is `predictor`, a plain functional model.

    Args:
        inputs: `{name: KerasTensor}`.
        tensors: `{"outputs": {task: tensor}, "logits": {tower: tensor}, "vectors": {tower: tensor}}`.
        head: The `Head`.

    Attributes:
        predictor: Model from the inputs to `{task: probability of shape (batch, 1)}`.
    """

    def __init__(self, inputs, tensors, head, **kwargs):
        super().__init__(inputs=inputs, outputs=tensors, **kwargs)
        self.head = head
        self.predictor = keras.Model(inputs, tensors["outputs"], name="predictor")

    def compile(self, optimizer="adam", **kwargs):
        """Compiles with the head's losses; `jit_compile` is off, routed layers have sizes that depend on data."""
        super().compile(optimizer=optimizer, **{"jit_compile": False, **kwargs})

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Sum of the head's losses and the layers' own."""
        context = {"scenario": x["scenario"], "sample_weight": sample_weight}
        losses = self.head.losses(y_pred["outputs"], y_pred["logits"], y_pred["vectors"], y, context)
        return sum(losses.values()) + sum(self.losses)

    def predict(self, x, **kwargs):
        """Probabilities `{task: array of shape (rows, 1)}`; arguments as for `keras.Model.predict`."""
        return self.predictor.predict(x, **kwargs)


class TwoTower(JointModel):
    """A joint model whose logits are `<query, title> + bias`.

    Attributes:
        user_tower: Model from the user's inputs and `scenario` to `{tower: query of shape (batch, d)}`.
        title_tower: Model from the title's inputs to vectors of shape `(batch, d)`.
        biases: `{tower: bias}`, floats to add to the dot product to have the logit.
    """

    def __init__(self, inputs, tensors, head, *, queries, title, **kwargs):
        super().__init__(inputs, tensors, head, **kwargs)
        users = {name: inputs[name] for name in _feeds(inputs, title["inputs"])}
        self.user_tower = keras.Model(users, queries, name="user_tower")
        self.title_tower = keras.Model(title["inputs"], title["vector"], name="title_tower")

    @property
    def biases(self):
        """Learnt bias of every tower, 0 where it has none."""
        layers = {tower: self.get_layer(f"{tower}_score") for tower in self.user_tower.output}
        return {
            tower: 0.0 if layer.initial_bias is None else float(ops.convert_to_numpy(layer.bias))
            for tower, layer in layers.items()
        }


def _feeds(inputs, others):
    return [name for name in inputs if name not in others]


def two_tower(
    schema, *, share="none", head="parallel", units=(512, 512), embedding_dim=16, unknown_rate=0.05, literal=False
):
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
        literal: Whether to build the paper's own form.

    Returns:
        A `TwoTower` model.

    Raises:
        ValueError: If `share` or `head` is unknown, or a tower has no feature.

    Example:
    >>> from tfmtr.schema import Feature, Scenario, Schema, Task
    >>> schema = Schema(
    ...     [Feature("age", "user", "number"), Feature("title_vector", "title", "vector", width=3)],
    ...     [Task("click")], Scenario(["territory"], {("DE",): "west"}))
    >>> model = two_tower(schema, share="territory_branches", units=(8, 4))
    >>> sorted(model.user_tower.output)
    ['click']
    """
    share, head = components.find("sharing", share), components.find("heads", head)(schema.tasks)
    user_inputs = encode_inputs(schema, "user", "context", scenario=True)
    title_inputs = encode_inputs(schema, "title")
    inputs = {**user_inputs, **title_inputs}

    user_features, title_features = schema.by_role("user", "context"), schema.by_role("title")
    user, user_linear = _tower(embed(user_inputs, user_features, embedding_dim=embedding_dim), units, "user")
    title, title_linear = _tower(embed(title_inputs, title_features, embedding_dim=embedding_dim), units, "title")
    title = title if literal else title_linear

    scenario = UnknownScenario(unknown_rate, name="unknown_scenario")(user_inputs["scenario"])
    towers = head.towers()
    vectors = share(user, scenario, towers=tuple(towers), num_scenarios=schema.scenario.num_groups + 1)
    if literal:
        vectors = {tower: keras.layers.ReLU(name=f"{tower}_relu")(vector) for tower, vector in vectors.items()}
    else:  # a sharing that is the identity adds no layer: the user tower's own last layer is the linear one
        vectors = {tower: user_linear if vector is user else vector for tower, vector in vectors.items()}
    vectors = head.relate(vectors)

    means = {task.name: task for task in schema.tasks}
    queries, logits = {}, {}
    for tower, vector in vectors.items():
        queries[tower] = vector if literal else QueryScale(name=f"{tower}_query")(vector)
        bias = None if literal else _initial_bias(means.get(tower))
        logits[tower] = DotScore(bias, name=f"{tower}_score", dtype="float32")(queries[tower], title)
    served = {tower: queries[tower] for tower, is_served in towers.items() if is_served}
    return TwoTower(
        inputs,
        {"outputs": head.outputs(logits), "logits": logits, "vectors": vectors},
        head,
        queries=served,
        title={"inputs": title_inputs, "vector": title},
        name="two_tower",
    )


def _tower(x, units, name):
    """Dense layers with batch normalisation and ReLU; returns the last layer's output with and without them."""
    for i, width in enumerate(units):
        linear = keras.layers.Dense(width, name=f"{name}_dense_{i}")(x)
        # Momentum 0.99 would take hundreds of steps to forget the initial statistics; batches here are large and few.
        x = keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_norm_{i}")(linear)
        x = keras.layers.ReLU(name=f"{name}_relu_{i}")(x)
    return x, linear


def _initial_bias(task):
    """Log-odds of a binary task's mean label, the mean itself for regression, 0 for a tower that is no task."""
    if task is None:
        return 0.0
    if task.kind == "regression":
        return task.mean
    mean = min(max(task.mean, 1e-6), 1 - 1e-6)
    return math.log(mean / (1 - mean))
