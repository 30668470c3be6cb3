"""Puts the parts together: encode, share, score, head."""

import functools
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar, cast

import keras
import numpy as np
from keras import ops

from tfmtr import components, precision, replicas
from tfmtr.backends import check_tensorflow, is_tensorflow
from tfmtr.checks import check_integer, check_number, check_widths
from tfmtr.encoders.embed import embed, embed_fields, encode_inputs, join
from tfmtr.encoders.field_weighted import as_fields, field_towers
from tfmtr.encoders.first_order import first_order
from tfmtr.encoders.graph_names import name_apart
from tfmtr.heads._head import Head, TrainingGraph
from tfmtr.kinds import KINDS
from tfmtr.layers.embedding_table import EmbeddingTable
from tfmtr.layers.routed_dense import RoutedDense
from tfmtr.layers.score import DotScore, QueryScale
from tfmtr.layers.unknown_scenario import UnknownScenario
from tfmtr.schema import ROLES, TRAINING, Feature, Schema, check_choice
from tfmtr.sharing._shared import Shared, as_shared, per_pair

Tensors = dict[str, keras.KerasTensor]
Builder = TypeVar("Builder", bound=Callable[..., "JointModel"])
NOTHING: Mapping[str, Any] = MappingProxyType({})


@keras.saving.register_keras_serializable(package="tfmtr")
class JointModel(keras.Model):
    """A joint model with its head's losses, trained by Keras `fit`.

    Its outputs are all tensors that a loss may need: `outputs`, `logits`, `vectors` and `training`, each by name.
    What is served is `predictor`, a plain functional model. It is fitted from a `tf.data.Dataset`, from a dictionary of
    encoded arrays, or from a pandas DataFrame with the schema's columns as the log has them, which
    `tfmtr.inputs.encode_frame` encodes. `save("m.keras")` keeps how it was built beside its weights.

    Args:
        inputs: `{name: KerasTensor}` of all features and the scenario.
        outputs: `{"outputs": {task: tensor}, "logits": {tower: tensor}, "vectors": {tower: tensor}, "training":
            {name: tensor}}`.
        name: Name of the model.
        head: The `Head`.
        schema: The `Schema`, with the features that the head reads in training.

    Raises:
        ValueError: If there is no `head` or `schema`, as when `keras.models.clone_model` makes the model.

    Attributes:
        predictor: Model from the inputs that are served to `{task: probability of shape (batch, 1)}`.
    """

    # The first three arguments are those of Keras: so `clone_model` asks this class for a model, which is
    # refused, and does not make a plain one without losses.
    def __init__(
        self,
        inputs: Tensors,
        outputs: dict[str, Tensors],
        name: str | None = None,
        *,
        head: Head | None = None,
        schema: Schema | None = None,
    ) -> None:
        if head is None or schema is None:
            raise ValueError(
                "`keras.models.clone_model` copies layers alone, and a joint model has a head with its losses, too: "
                "make another one with `type(model).from_config(model.get_config())`, and compile it. Received: "
                f"name={name!r}, without a head"
            )
        name_apart(inputs, outputs)
        super().__init__(inputs=inputs, outputs=outputs, name=name)
        self.head, self.schema = head, schema
        self.balance: Any = None
        self.built_with: tuple[str, Schema, dict[str, Any]] | None = None
        self.balance_name: Any = None
        self.l2 = 0.0  # what `add_l2` added, which a saved model keeps
        in_training = {feature.name for feature in schema.by_role(TRAINING)}
        served = {name: tensor for name, tensor in inputs.items() if name not in in_training}
        self.predictor = keras.Model(served, outputs["outputs"], name="predictor")

    def compile(
        self, optimizer: str | keras.optimizers.Optimizer = "adam", *, balance: Any = None, **kwargs: Any
    ) -> None:
        """Compiles with the head's losses.

        On the TensorFlow backend `jit_compile` is off unless asked for. It has XLA compile the whole step, once for
        every size of a batch, which takes seconds; from then on steps of many operations, as with experts, are 1.2 to
        1.4 times as fast. Routed layers, whose sizes depend on data, cannot be compiled.

        Args:
            optimizer: As for `keras.Model.compile`.
            balance: Name of a file in `tfmtr/balancing/` or a function like theirs (`functools.partial` for options):
                how several losses make one update. By default their sum is minimised.
            **kwargs: As for `keras.Model.compile`.

        Raises:
            ValueError: If a loss is given; if `balance` is unknown, does not fit the head's losses, or is given on
                another backend than TensorFlow; if `jit_compile=True` and a layer cannot be compiled.
        """
        routed = [layer.name for layer in self._flatten_layers() if layer is not self and not layer.supports_jit]
        if kwargs.get("jit_compile") is True and routed:
            raise ValueError(
                "`jit_compile=True` compiles steps of fixed sizes, and these layers part the rows by their scenario: "
                f"leave it out, or build the layers with `routed=False`. Received: {sorted(set(routed))}"
            )
        if given := [name for name in ("loss", "loss_weights") if kwargs.get(name) is not None]:
            raise ValueError(
                f"`{given[0]}` must be left out: a joint model has its head's losses, and a task's weight is its "
                f"`Task(weight=...)`. Received: {given[0]}={kwargs[given[0]]!r}"
            )
        if balance is not None:
            check_tensorflow(f"`balance={balance}`", "leave it out: the sum of the losses is minimised")
            components.check_part("balancing", balance)
        super().compile(optimizer=optimizer, **{"jit_compile": False if is_tensorflow() else "auto", **kwargs})
        self.balance, self.balance_name = None, balance
        if balance is not None:
            from tfmtr.balancing._step import Balance  # imports TensorFlow

            self.balance = Balance(self, components.find("balancing", balance))
        # Where the first step makes the optimizer's variables, TensorFlow traces it twice.
        self.optimizer.build(self.trainable_variables)

    def losses_by_name(
        self,
        x: Tensors,
        y: Tensors,
        y_pred: dict[str, Tensors],
        sample_weight: keras.KerasTensor | Tensors | None = None,
    ) -> Tensors:
        """The head's losses, `{name: scalar}`.

        Raises:
            ValueError: If a label or the rows' weights have another shape than `(batch,)`.
        """
        weights = sample_weight if isinstance(sample_weight, Mapping) else {"all": sample_weight}
        given = [*y.items(), *((f"weights of {name}", w) for name, w in weights.items())]
        if bad := {name: tuple(v.shape) for name, v in given if v is not None and len(v.shape) != 1}:
            raise ValueError(
                f"Labels and weights must have shape (batch,), or each row would meet all others. Received: {bad}"
            )
        context: Any = {"scenario": x["scenario"], "sample_weight": sample_weight, "training": y_pred["training"]}
        return self.head.losses(y_pred["outputs"], y_pred["logits"], y_pred["vectors"], y, context)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> keras.KerasTensor:
        """Sum of the head's losses and the layers' own; of several replicas each has its part of it."""
        return sum(self.losses_by_name(x, y, y_pred, sample_weight).values()) + sum(self.losses) / replicas.number()  # pyright: ignore[reportReturnType]

    def train_step(self, *args: Any) -> Any:
        """One update by the balancer, or of the sum of all losses."""
        if self.balance is None:
            return replicas.reducible(super().train_step(*args))  # the batch; on JAX the state before it
        (data,) = args
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y_pred, loss = self.balance.step(self, x, y, sample_weight)
        self._loss_tracker.update_state(loss, sample_weight=ops.shape(x["scenario"])[0])
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """As `keras.Model.fit`; `x` may be a DataFrame, which has the labels, too.

        Raises:
            ValueError: If a feature or a label is missing, not encoded or not what its task can be.
        """
        if x is None:
            raise ValueError(
                "`x` must be a DataFrame, a dictionary of arrays, or a dataset of batches. Received: x=None"
            )
        x, y = self._encoded(x, y)
        given = inspect.signature(super().fit).bind(x, y, *args, **kwargs)  # by name, as Keras has them
        known = given.arguments.get("validation_data")
        if is_frame(known) or isinstance(known, tuple):
            known = known if isinstance(known, tuple) else (known, None)
            given.arguments["validation_data"] = (*self._encoded(*known[:2]), *known[2:])
        elif known is not None:
            given.arguments["validation_data"] = self._encoded(known)[0]
        return super().fit(*given.args, **given.kwargs)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.evaluate`; `x` may be a DataFrame, which has the labels, too.

        Raises:
            ValueError: As `fit`.
        """
        return super().evaluate(*self._encoded(x, y), *args, **kwargs)

    def _encoded(self, x: Any, y: Any = None) -> tuple[Any, Any]:
        """Features and labels as arrays or batches; what is none of both, nor a DataFrame, stays as it is."""
        from tfmtr import inputs  # it needs pyarrow, which a model does not

        if is_frame(x):
            frame = x if y is None else x.assign(**inputs.as_labels(y, self.schema, x.index))
            x, y = inputs.encode_frame(frame, self.schema)
        if y is None and hasattr(x, "element_spec") and hasattr(x, "map"):  # what replicas share has no `map`
            return inputs.as_batches(x, self.schema), None
        return inputs.as_arrays(x, y, self.schema) if isinstance(x, Mapping) else (x, y)

    def test_step(self, *args: Any) -> dict[str, keras.KerasTensor]:
        """The loss of one batch."""
        return replicas.reducible(super().test_step(*args))

    def _maybe_symbolic_build(self, iterator: Any = None, data_batch: Any = None) -> None:
        """Nothing: a functional model is built.

        Keras 3.15 averages the first batches of the replicas here to learn the shapes of the inputs
        (`keras/src/backend/tensorflow/trainer.py`), which fails for integers and for batches of different sizes.
        """

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> dict[str, np.ndarray]:
        """Probabilities `{task: array of shape (rows, 1)}`.

        Args:
            x: `{name: array}`, a DataFrame, or a `tf.data.Dataset` of batches; labels and features known in training
                only are left out.
            *args: As for `keras.Model.predict`.
            **kwargs: As for `keras.Model.predict`.

        Raises:
            ValueError: If `x` is nothing of that, or a feature is missing.
        """

        def served(features: Mapping[str, Any], *_: Any) -> dict[str, Any]:
            return {name: features[name] for name in self.predictor.input}

        if is_frame(x):
            from tfmtr.inputs import encode_frame

            x, _ = encode_frame(x, self.schema)
        if not isinstance(x, dict) and not hasattr(x, "map"):
            raise ValueError(
                "`x` must be a DataFrame, a dictionary of arrays, or a dataset of batches. Received: a "
                f"{type(x).__name__}"
            )
        if missing := sorted(set(self.predictor.input) - set(x)) if isinstance(x, dict) else ():
            raise ValueError(f"`x` must have each feature that is served. Received: none for {missing}")
        return self.predictor.predict(served(x) if isinstance(x, dict) else x.map(served), *args, **kwargs)

    def export(self, filepath: str | os.PathLike, **kwargs: Any) -> None:
        """As `keras.Model.export`, of what is served: encoded features in, probabilities out.

        `tfmtr.export` makes a version with a title index, which takes raw values.
        """
        return self.predictor.export(filepath, **kwargs)

    def save(self, filepath: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """As `keras.Model.save`; what cannot be saved is refused before the file is opened, which empties it."""
        self.get_config()
        self.get_compile_config()
        super().save(filepath, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """How the model was built.

        Raises:
            ValueError: If it was not built by `two_tower` or `ranking`, or of a function without an import path.
        """
        if self.built_with is None:
            raise ValueError(
                "A joint model is saved as it was built by `tfmtr.models.two_tower` or `ranking`; of one that was put "
                "together otherwise save `model.predictor`, which is what is served. Received: such a model"
            )
        form, schema, options = self.built_with
        options = {name: _as_saved(name, value) for name, value in options.items()}
        config = {"form": form, "schema": schema.to_json(), "options": options, "precision": self.dtype_policy.name}
        return {**config, "l2": self.l2}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "JointModel":
        """Builds the model that `get_config` describes.

        Raises:
            ValueError: If a part is of an import path, and Keras loads in its safe mode, as it does by default.
        """
        options = {name: _from_saved(name, value) for name, value in config["options"].items()}
        with precision.use(config["precision"]):
            model = FORMS[config["form"]](Schema.from_json(config["schema"]), **options)
        if l2 := config.get("l2"):
            add_l2(model, l2)
        return model

    def get_compile_config(self) -> dict[str, Any]:
        """The optimizer, the balancer and which variables do not decay; empty where the model is not compiled."""
        if not self.compiled:
            return {}
        balance = None if self.balance_name is None else _as_saved("balance", self.balance_name)
        # Keras saves the decay, and not what it leaves out.
        kept = [i for i, v in enumerate(self.trainable_variables) if not self.optimizer._use_weight_decay(v)]
        return {"optimizer": keras.optimizers.serialize(self.optimizer), "balance": balance, "without_decay": kept}

    def compile_from_config(self, config: Mapping[str, Any]) -> None:
        """Compiles as `get_compile_config` says."""
        optimizer = keras.optimizers.deserialize(config["optimizer"])
        kept = [self.trainable_variables[i] for i in config.get("without_decay", ())]
        optimizer.exclude_from_weight_decay(var_list=kept)
        self.compile(optimizer, balance=_from_saved("balance", config["balance"]))


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


PART_OF = {"share": "sharing", "head": "heads", "balance": "balancing", "encode": "encoders.interactions"}


def is_frame(x: Any) -> bool:
    """Whether this is a pandas DataFrame; pandas is not imported for it."""
    return type(x).__module__.partition(".")[0] == "pandas" and hasattr(x, "columns")


def _as_saved(name: str, value: Any) -> Any:
    """An option of a builder as JSON has it.

    Raises:
        ValueError: If it is a function without an import path.
    """
    if name not in PART_OF or value is None or (name == "encode" and value == "fwfm"):
        return value
    part, options = components.parse(PART_OF[name], value)
    if callable(part):
        raise ValueError(
            f"`{name}` must be a name, or a function that others can import, for the model to be saved; write it into "
            f"a module, or save `model.predictor`. Received: {name}={part!r}"
        )
    return {components.NAME: part, **options} if options else part


def _from_saved(name: str, value: Any) -> Any:
    """The option that `_as_saved` had.

    Raises:
        ValueError: If it is an import path, and Keras loads in its safe mode.
    """
    from keras.src.saving.serialization_lib import in_safe_mode  # Keras exports no way to ask

    part = value.get(components.NAME) if isinstance(value, Mapping) else value
    if name in PART_OF and isinstance(part, str) and ":" in part and in_safe_mode():
        raise ValueError(
            f"`{name}` of this file is a function of the module {part.partition(':')[0]}, which loading it imports and "
            f"runs: if you trust both, load with `safe_mode=False`. Received: {name}={part!r}"
        )
    return tuple(value) if isinstance(value, list) else value


def _rebuildable(builder: Builder) -> Builder:
    """A builder whose models know how they were built."""

    @functools.wraps(builder)
    def build(schema: Schema, **options: Any) -> JointModel:
        if not isinstance(schema, Schema):
            raise ValueError(f"`schema` must be a Schema. Received: a {type(schema).__name__}")
        for name in ("share", "head", "encode"):
            if options.get(name) is not None and (name, options[name]) != ("encode", "fwfm"):
                components.check_part(PART_OF[name], options[name])
        model = builder(schema, **options)
        model.built_with = (builder.__name__, schema, options)
        return model

    return cast(Builder, build)


@_rebuildable
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
    _check_sizes(embedding_dim, unknown_rate, dropout)
    given, share = share, _find_share(share, per_pair)
    head = components.find("heads", head)(schema.tasks)
    schema, towers = head.complete(schema), head.towers()
    user_inputs = encode_inputs(schema, "user", "context", scenario=True)
    title_inputs = encode_inputs(schema, "title")
    options = {"towers": tuple(towers), "embedding_dim": embedding_dim}
    if encode is None:
        vectors, title, terms, bases = _dense_towers(
            schema,
            user_inputs,
            title_inputs,
            share,
            units,
            unknown_rate=unknown_rate,
            literal=literal,
            dropout=dropout,
            **options,
        )
    else:
        check_choice("encode", encode, ("fwfm",))
        if share is not components.find("sharing", "none") or literal or dropout:
            raise ValueError(
                '`encode="fwfm"` is a two-tower model of its own, whose tasks share their embeddings: it needs '
                f'share="none", literal=False and no dropout. Received: share={given!r}, literal={literal}, '
                f"dropout={dropout}"
            )
        vectors, title, terms, bases = _field_towers(schema, user_inputs, title_inputs, **options)
    vectors, title = head.relate(vectors), _as_float32(title)

    queries, logits, scores = {}, {}, {}
    for tower, vector in vectors.items():
        scaled = vector if literal or encode else QueryScale(name=f"{tower}_query")(vector)
        queries[tower] = _as_float32(scaled)
        bias = None if literal else towers[tower].start
        scores[tower] = DotScore(bias, name=f"{tower}_score", dtype="float32")
        logits[tower] = scores[tower](queries[tower], title)
    inputs = {**user_inputs, **title_inputs, **encode_inputs(schema, TRAINING)}
    logits = _add_terms(logits, terms)
    graph = TrainingGraph(schema, inputs, dict(bases), vectors, logits, queries, title)
    return TwoTower(
        inputs,
        _tensors(head, graph),
        "two_tower",
        head=head,
        schema=schema,
        queries={name: queries[name] for name, tower in towers.items() if tower.is_served},
        title={"inputs": title_inputs, "vector": title},
        scores=scores,
    )


@_rebuildable
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
    _check_sizes(embedding_dim, unknown_rate, dropout)
    name, head, share = head, components.find("heads", head)(schema.tasks), _find_share(share, per_pair)
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
    shared = _share(share, x, inputs, schema, features, tuple(towers), embedding_dim, unknown_rate, prior)
    vectors = head.relate(dict(shared.vectors))
    logits = {}
    for tower, vector in vectors.items():
        bias = keras.initializers.Constant(towers[tower].start)
        if shared.routed_output:
            scenario, num_scenarios = _scenario(inputs, schema, unknown_rate)
            layer = RoutedDense(1, num_scenarios, bias_initializer=bias, name=f"{tower}_logit", dtype="float32")
            logits[tower] = layer(vector, scenario)
        else:
            layer = keras.layers.Dense(1, bias_initializer=bias, name=f"{tower}_logit", dtype="float32")  # pyright: ignore[reportArgumentType]
            logits[tower] = layer(vector)
    logits = _add_terms(logits, shared.terms)
    if has_first_order:
        logits = _add_terms(logits, first_order(inputs, features, tuple(logits)))
    inputs = {**inputs, **encode_inputs(schema, TRAINING)}
    graph = TrainingGraph(schema, inputs, dict(shared.bases), vectors, logits, {}, None)
    return JointModel(inputs, _tensors(head, graph), "ranking", head=head, schema=schema)


def kernels(model: keras.Model) -> list[keras.Variable]:
    """The weights of a model that may be kept small: kernels and embeddings, not biases, scales and statistics."""
    return [variable for variable in model.trainable_variables if len(variable.shape) > 1]


def add_l2(model: JointModel, factor: float) -> None:
    """Adds `factor` times the sum of squares of `kernels` to a model's losses; call it before `compile`."""
    model.l2 = factor
    for variable in kernels(model):
        variable.regularizer = keras.regularizers.L2(factor)


def _find_share(share: Any, is_per_pair: bool) -> Callable[..., Any]:
    """The sharing function."""
    function = components.find("sharing", share)
    return per_pair(function) if is_per_pair else function


def _check_sizes(embedding_dim: int, unknown_rate: float, dropout: float) -> None:
    check_integer("embedding_dim", embedding_dim, least=1)
    check_number("unknown_rate", unknown_rate, least=0, below=1)
    check_number("dropout", dropout, least=0, below=1)


def _dense_towers(
    schema: Schema,
    user_inputs: Tensors,
    title_inputs: Tensors,
    share: Callable[..., Any],
    units: Sequence[int],
    *,
    towers: tuple[str, ...],
    embedding_dim: int,
    unknown_rate: float,
    literal: bool,
    dropout: float,
) -> tuple[Tensors, keras.KerasTensor, Mapping[str, keras.KerasTensor], Mapping[str, keras.KerasTensor]]:
    """User vectors by tower, the title vector, terms beside the logits and bases, from dense layers and `share`."""
    features = schema.by_role("user", "context")
    user, user_linear = _tower(embed(user_inputs, features, embedding_dim=embedding_dim), units, "user", dropout)
    title = embed(title_inputs, schema.by_role("title"), embedding_dim=embedding_dim)
    title, title_linear = _tower(title, units, "title", dropout)
    shared = _share(share, user, user_inputs, schema, features, towers, embedding_dim, unknown_rate)
    vectors = {}
    for tower, vector in shared.vectors.items():
        if literal:
            vector = keras.layers.ReLU(name=f"{tower}_relu")(vector)
        elif vector is user:  # the identity adds no layer: the user tower's own last layer is the linear one
            vector = user_linear
        elif not shared.is_linear:
            vector = keras.layers.Dense(units[-1], name=f"{tower}_projection")(vector)
        vectors[tower] = vector
    return vectors, title if literal else title_linear, shared.terms, shared.bases


def _field_towers(
    schema: Schema, user_inputs: Tensors, title_inputs: Tensors, *, towers: tuple[str, ...], embedding_dim: int
) -> tuple[Tensors, keras.KerasTensor, Tensors, Tensors]:
    """The same from the fields of a field-weighted factorisation machine."""
    sides = []
    for inputs, features in (
        (user_inputs, schema.by_role("user", "context")),
        (title_inputs, schema.by_role("title")),
    ):
        sides.append(as_fields(embed_fields(inputs, features, embedding_dim=embedding_dim), features, embedding_dim))
    queries, title, terms = field_towers(sides[0], sides[1], towers)
    return queries, title, terms, queries  # a query is the tower's only layer


def _scenario(inputs: Tensors, schema: Schema, unknown_rate: float) -> tuple[keras.KerasTensor, int]:
    """The row's scenario and the number of scenarios, with or without a default branch."""
    groups = schema.scenario.num_groups
    if unknown_rate:
        return UnknownScenario(unknown_rate, name="unknown_scenario")(inputs["scenario"]), groups + 1
    return ops.maximum(inputs["scenario"] - 1, 0), max(groups, 1)  # pyright: ignore[reportReturnType]


def _share(
    share: Callable[..., Any],
    x: keras.KerasTensor,
    inputs: Tensors,
    schema: Schema,
    features: Sequence[Feature],
    towers: tuple[str, ...],
    embedding_dim: int,
    unknown_rate: float,
    prior: Sequence[str] = (),
) -> Shared:
    """Calls a sharing function with the side inputs that its signature asks for; returns a `Shared`.

    Side inputs: `fields` (batch, fields, width), the embeddings one by one; `prior` (batch, width), those of the
    prior features in tables of their own; `scenario_features` (batch, width), an embedding of the scenario;
    `task_representations` {tower: (batch, width)}, `x` with embedding tables of the task's own.
    """
    scenario, num_scenarios = _scenario(inputs, schema, unknown_rate)
    wanted = inspect.signature(share).parameters
    categorical = [f for f in features if KINDS[f.kind].is_categorical]
    sides = {}
    if "fields" in wanted or "task_representations" in wanted or "prior" in wanted:
        needs = getattr(share, "func", share)
        check_has_embeddings(getattr(needs, "__name__", str(needs)), categorical)
    if "fields" in wanted:
        parts = embed_fields(inputs, categorical, embedding_dim=embedding_dim, name="fields")
        sides["fields"] = ops.stack(list(parts.values()), axis=1)
    if "prior" in wanted:
        chosen = [f for f in categorical if f.name in prior] or [f for f in categorical if is_one_of_a_vocabulary(f)]
        sides["prior"] = embed(inputs, chosen or categorical, embedding_dim=embedding_dim, name="prior")
    if "scenario_features" in wanted:
        table = EmbeddingTable(num_scenarios, embedding_dim, name="scenario_embedding")
        sides["scenario_features"] = table(scenario)
    if "task_representations" in wanted:
        sides["task_representations"] = {
            tower: embed(inputs, features, embedding_dim=embedding_dim, name=tower) for tower in towers
        }
    shared = as_shared(share(x, scenario, towers=towers, num_scenarios=num_scenarios, **sides))
    return shared._replace(bases={tower: shared.bases.get(tower, x) for tower in towers})


def is_one_of_a_vocabulary(feature: Feature) -> bool:
    """Whether a feature has one value of a vocabulary in each row, as an id."""
    kind = KINDS[feature.kind]
    return kind.has_vocabulary and not kind.is_wide


def check_has_embeddings(share: str, categorical: Sequence[Feature]) -> None:
    """Raises a `ValueError` that names the sharing function unless there is a categorical feature."""
    if not categorical:
        raise ValueError(
            f"`share={share}` works on embedding tables, so the schema must have a feature of kind id, string, set or "
            "sequence on the side it acts on. Received: only numbers and vectors"
        )


def _as_float32(tensor: keras.KerasTensor) -> keras.KerasTensor:
    """What is served, indexed and compared is float32, whatever the towers compute in."""
    return tensor if tensor.dtype == "float32" else ops.cast(tensor, "float32")  # pyright: ignore[reportReturnType]


def _add_terms(logits: Tensors, terms: Mapping[str, keras.KerasTensor]) -> Tensors:
    return {tower: logit + terms[tower] if tower in terms else logit for tower, logit in logits.items()}  # pyright: ignore[reportReturnType]


def _tensors(head: Head, graph: TrainingGraph) -> dict[str, Tensors]:
    training = head.training(graph)
    return {
        "outputs": head.outputs(graph.logits),
        "logits": graph.logits,
        "vectors": graph.vectors,
        "training": training,
    }


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


FORMS = {"two_tower": two_tower, "ranking": ranking}
