"""A joint model: what a head, a schema and a graph of parts make, with Keras's methods."""

import inspect
import os
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from tfmtr import components, precision, replicas
from tfmtr.backends import check_tensorflow, is_tensorflow
from tfmtr.encoders.graph_names import name_apart
from tfmtr.heads._head import Head
from tfmtr.models.popularity import count_popularity, has_popularity
from tfmtr.models.rebuilding import as_saved, from_saved
from tfmtr.private_names import count_loss, is_decayed, layers_within
from tfmtr.schema import TRAINING, Schema

Tensors = dict[str, keras.KerasTensor]


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
        self.is_popularity_counted = False
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
        routed = [layer.name for layer in layers_within(self) if layer is not self and not layer.supports_jit]
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
        count_loss(self, loss, ops.shape(x["scenario"])[0])
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def fit(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """As `keras.Model.fit`; `x` may be a DataFrame, which has the labels, too.

        A way to debias counts the titles' positives among the rows first, once: a dataset is read one time more.

        Raises:
            ValueError: If a feature or a label is missing, not encoded or not what its task can be.
        """
        if x is None:
            raise ValueError(
                "`x` must be a DataFrame, a dictionary of arrays, or a dataset of batches. Received: x=None"
            )
        x, y = self._encoded(x, y)
        given = inspect.signature(super().fit).bind(x, y, *args, **kwargs)  # by name, as Keras has them
        validation = given.arguments.get("validation_data")
        if is_frame(validation) or isinstance(validation, tuple):
            validation = validation if isinstance(validation, tuple) else (validation, None)
            given.arguments["validation_data"] = (*self._encoded(*validation[:2]), *validation[2:])
        elif validation is not None:
            given.arguments["validation_data"] = self._encoded(validation)[0]
        if has_popularity(self) and not self.is_popularity_counted:
            if y is None and not hasattr(x, "as_numpy_iterator"):
                raise ValueError(
                    "`x` must be a DataFrame, arrays with `y`, or a `tf.data.Dataset`, for the popularity of titles to "
                    f"be counted. Received: a {type(x).__name__}"
                )
            count_popularity(self, [(x, y)] if y is not None else x.as_numpy_iterator())
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
        options = {name: as_saved(name, value) for name, value in options.items()}
        config = {"form": form, "schema": schema.to_json(), "options": options, "precision": self.dtype_policy.name}
        return {**config, "l2": self.l2}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "JointModel":
        """Builds the model that `get_config` describes.

        Raises:
            ValueError: If a part is of an import path, and Keras loads in its safe mode, as it does by default.
        """
        from tfmtr.models import FORMS, add_l2  # which are made of this class

        options = {name: from_saved(name, value) for name, value in config["options"].items()}
        with precision.use(config["precision"]):
            model = FORMS[config["form"]](Schema.from_json(config["schema"]), **options)
        if l2 := config.get("l2"):
            add_l2(model, l2)
        return model

    def get_compile_config(self) -> dict[str, Any]:
        """The optimizer, the balancer and which variables do not decay; empty where the model is not compiled."""
        if not self.compiled:
            return {}
        balance = None if self.balance_name is None else as_saved("balance", self.balance_name)
        # Keras saves the decay, and not what it leaves out.
        kept = [i for i, v in enumerate(self.trainable_variables) if not is_decayed(self.optimizer, v)]
        return {"optimizer": keras.optimizers.serialize(self.optimizer), "balance": balance, "without_decay": kept}

    def compile_from_config(self, config: Mapping[str, Any]) -> None:
        """Compiles as `get_compile_config` says."""
        optimizer = keras.optimizers.deserialize(config["optimizer"])
        kept = [self.trainable_variables[i] for i in config.get("without_decay", ())]
        optimizer.exclude_from_weight_decay(var_list=kept)
        self.compile(optimizer, balance=from_saved("balance", config["balance"]))


def is_frame(x: Any) -> bool:
    """Whether this is a pandas DataFrame; pandas is not imported for it."""
    return type(x).__module__.partition(".")[0] == "pandas" and hasattr(x, "columns")
