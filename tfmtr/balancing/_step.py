"""One training step with a balancer: one forward pass, the losses' gradients, one update."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from tfmtr import replicas
from tfmtr.balancing._balancer import Balancer, Outputs, Problem, Tensor, Tensors
from tfmtr.optimizers._tables import is_table

if TYPE_CHECKING:
    from tfmtr.models import JointModel

Gradient = tf.Tensor | tf.IndexedSlices


class Balance(keras.layers.Layer):
    """A balancer at work on a model; the model tracks it, so what it remembers is saved with the weights.

    Args:
        model: The `JointModel`.
        make: Function of a file in `tfmtr/balancing/`.
    """

    def __init__(self, model: "JointModel", make: Callable[[Problem], Balancer]) -> None:
        super().__init__(name="balance", dtype="float32")
        if replicas.number() > 1:
            raise ValueError(
                "`balance` weighs the losses and gradients of one batch, and each of several replicas has its own; "
                f"leave it out, or train on one. Received: {replicas.number()} replicas"
            )
        variables = list(model.trainable_variables)
        reached, masks = probe(model, variables, lambda x, y, y_pred: model.losses_by_name(x, y, y_pred), {})
        self.balancer = balancer = make(
            Problem(tuple(reached), [tuple(variables[i].shape) for i in sorted(masks)], model)
        )
        if balancer.losses is not None:  # it brings further losses along, which belong to those that there are

            def all_losses(x: Tensors, y: Tensors, y_pred: Outputs) -> Tensors:
                return model.losses_by_name(x, y, y_pred) | balancer.losses(y_pred["outputs"], y, x)

            reached, masks = probe(model, variables, all_losses, balancer.owner)
        self.names, self.reached, self.masks = tuple(reached), reached, masks
        self.state = {
            name: self.add_weight(
                shape=np.shape(value), initializer=constant(value), trainable=name in balancer.parameters, name=name,
                dtype=np.asarray(value).dtype.name, autocast=False,
            )
            for name, value in {**balancer.state, **balancer.parameters}.items()
        }  # fmt: skip
        self.built = True

    def step(self, model: "JointModel", x: Tensors, y: Tensors, sample_weight: Any) -> tuple[Outputs, Tensor]:
        """Updates the model by one batch; returns the model's outputs and the sum of its own losses."""
        if self.balancer.step is not None:

            def backward(
                variables: list[keras.Variable], x: Tensors = x, y: Tensors = y, sample_weight: Any = sample_weight
            ) -> tuple[Outputs, Tensor, list[Gradient | None]]:
                with tf.GradientTape() as tape:
                    y_pred = model(x, training=True)
                    loss = model.compute_loss(x, y, y_pred, sample_weight)
                return (
                    y_pred,
                    tf.cast(loss, tf.float32),
                    tape.gradient(loss, [variable.value for variable in variables]),
                )

            def train(variables: list[keras.Variable]) -> tuple[Outputs, Tensor]:
                y_pred, loss, gradients = backward(variables)
                self.apply(model, gradients, variables)
                return y_pred, loss

            y_pred, loss, updates = self.balancer.step(model, self.values(), backward, train)
            self.remember(updates)
            return y_pred, loss
        with tf.GradientTape(persistent=True) as tape:
            y_pred = model(x, training=True)
            losses = model.losses_by_name(x, y, y_pred, sample_weight)
            own = sum(losses.values())
            if self.balancer.losses is not None:
                losses |= self.balancer.losses(y_pred["outputs"], y, x)
            extra = sum(model.losses) if model.losses else None
            if self.balancer.objective is not None:
                total, updates = self.balancer.objective(stacked(losses), self.values())
            elif self.balancer.objectives is not None:
                *totals, updates = self.balancer.objectives(stacked(losses), self.values())
        parameters = self.trainable_variables
        variables = [v for v in model.trainable_variables if not any(v is p for p in parameters)]
        if self.balancer.objective is not None:
            targets = [*variables, *parameters]
            gradients = tape.gradient(total, [v.value for v in targets])
        elif self.balancer.objectives is not None:
            targets, gradients = variables, self.apart(tape, totals, variables)
        else:
            targets = variables
            gradients, updates = self.combined(tape, losses, variables, model.optimizer.learning_rate)
        if extra is not None:  # the layers' own losses are not balanced
            more = tape.gradient(extra, [v.value for v in targets])
            gradients = [add(a, b) for a, b in zip(gradients, more, strict=True)]
        self.apply(model, gradients, targets)
        self.remember(updates)
        return y_pred, own if extra is None else own + extra

    @staticmethod
    def apply(model: "JointModel", gradients: Sequence[Gradient | None], variables: list[keras.Variable]) -> None:
        """Lets the optimizer update the variables that have a gradient."""
        pairs = [(g, v) for g, v in zip(gradients, variables, strict=True) if g is not None]
        model.optimizer.apply([g for g, _ in pairs], [v for _, v in pairs])

    def remember(self, updates: Tensors) -> None:
        """Keeps what the balancer wants to know in the next step."""
        for name, value in updates.items():
            self.state[name].assign(value)

    def values(self) -> Tensors:
        """What the balancer remembers, as tensors."""
        return {name: variable.value for name, variable in self.state.items()}

    def apart(
        self, tape: tf.GradientTape, totals: list[Tensor], variables: list[keras.Variable]
    ) -> list[Gradient | None]:
        """Gradients of one scalar for what is shared, of the other for the rest."""
        shared, own = (tape.gradient(total, [v.value for v in variables]) for total in totals)
        gradients = []
        for i, (a, b) in enumerate(zip(shared, own, strict=True)):
            if i not in self.masks:
                gradients.append(b)
            elif self.masks[i] is None:
                gradients.append(a)
            else:
                gradients.append(self.masks[i] * a + (1 - self.masks[i]) * b)
        return gradients

    def combined(
        self, tape: tf.GradientTape, losses: Tensors, variables: list[keras.Variable], rate: Tensor
    ) -> tuple[list[Gradient | None], Tensors]:
        """A gradient for each variable, from one backward pass a loss."""
        by_loss = {}
        for name in self.names:
            places = [i for i in range(len(variables)) if i in self.reached[name]]
            found = tape.gradient(losses[name], [variables[i].value for i in places])
            by_loss[name] = dict(zip(places, found, strict=True))
        compact = {i: Compact([by_loss[n].get(i) for n in self.names], mask) for i, mask in self.masks.items()}
        values, state, updates = stacked({name: losses[name] for name in self.names}), self.values(), {}
        own, merged = tf.ones_like(values), {}
        if self.balancer.coefficients is not None:
            size = len(self.names)
            gram = sum((part.gram() for part in compact.values()), tf.zeros((size, size)))
            # Where a gradient is no number solvers raise errors of matrices; the update says it as the plain sum does.
            is_finite = tf.reduce_all(tf.math.is_finite(gram))
            shared, own, updates = self.balancer.coefficients(tf.where(is_finite, gram, tf.eye(size)), values, state)
            shared = tf.where(is_finite, shared, np.nan)
            merged = {i: part.restore(tf.tensordot(shared, part.stack, 1)) for i, part in compact.items()}
        elif self.balancer.merge is not None:
            for index, (i, part) in enumerate(compact.items()):
                gradient, changed = self.balancer.merge(part.stack, index, values, state | updates)
                updates |= changed
                merged[i] = part.restore(gradient)
        else:
            for index, (i, part) in enumerate(compact.items()):
                updates |= self.change(variables[i], index, part, values, state | updates, rate)
                merged[i] = None
        gradients = []
        for i in range(len(variables)):
            total = merged.get(i)
            if i not in merged or self.masks[i] is not None:  # what only one loss reaches is its own
                for name, factor in zip(self.names, tf.unstack(own), strict=True):
                    part = scaled(by_loss[name].get(i), factor)
                    if i in merged and part is not None:
                        part = part * (1 - self.masks[i])
                    total = add(total, part)
            gradients.append(total)
        return gradients, updates

    def change(
        self, variable: keras.Variable, index: int, part: "Compact", losses: Tensor, state: Tensors, rate: Tensor
    ) -> Tensors:
        """Updates a shared parameter without the optimizer; returns what is remembered of all parameters."""
        own = {name for name in state if name.endswith(f"_{index}")}
        stored = {name.rpartition("_")[0] if name in own else name: value for name, value in state.items()}
        if part.rows is not None:
            stored |= {name.rpartition("_")[0]: tf.gather(state[name], part.rows, axis=1) for name in own}
        step, changed = self.balancer.update(part.stack, index, losses, stored, tf.cast(rate, tf.float32))
        updates = {name: value for name, value in changed.items() if f"{name}_{index}" not in own}
        for name in own:
            value = changed[name.rpartition("_")[0]]
            if part.rows is None:
                self.state[name].assign(value)
            else:  # (losses, rows, ...): only the rows that are touched are written
                places = tf.stack(
                    tf.meshgrid(tf.range(len(self.names)), tf.cast(part.rows, tf.int32), indexing="ij"), axis=-1
                )
                self.state[name].value.scatter_nd_update(places, value)
        if part.rows is None:
            variable.assign_sub(step)
        else:
            variable.value.scatter_sub(tf.IndexedSlices(step, part.rows))
        return updates


class Compact:
    """The losses' gradients of one parameter, side by side; of an embedding table only the rows that are touched.

    Args:
        gradients: A tensor, `IndexedSlices` or `None` for each loss; not all `None`.
        mask: 1 for the elements that are shared, or `None` if all are.

    Attributes:
        stack: Tensor of shape `(losses, ...)`.
    """

    def __init__(self, gradients: Sequence[Gradient | None], mask: np.ndarray | None = None) -> None:
        present = [g for g in gradients if g is not None]
        self.rows, self.shape = None, None
        if any(isinstance(g, tf.IndexedSlices) for g in present):
            if not all(isinstance(g, tf.IndexedSlices) for g in present):
                gradients = [None if g is None else tf.convert_to_tensor(g) for g in gradients]
            else:
                self.shape = present[0].dense_shape
                self.rows, place = tf.unique(tf.concat([g.indices for g in present], axis=0))
                parts = iter(tf.split(place, [tf.shape(g.indices)[0] for g in present]))
                gradients = [
                    None if g is None else tf.math.unsorted_segment_sum(g.values, next(parts), tf.size(self.rows))
                    for g in gradients
                ]
        zero = tf.zeros_like(next(g for g in gradients if g is not None))
        self.stack = tf.stack([zero if g is None else g for g in gradients])
        if mask is not None:
            self.stack = self.stack * mask

    def gram(self) -> Tensor:
        """Inner products, shape `(losses, losses)`."""
        flat = tf.cast(tf.reshape(self.stack, (self.stack.shape[0], -1)), tf.float32)
        return tf.matmul(flat, flat, transpose_b=True)

    def restore(self, gradient: Tensor) -> Gradient:
        """The combined gradient in the form that the optimizer takes."""
        return gradient if self.rows is None else tf.IndexedSlices(gradient, self.rows, self.shape)


def probe(
    model: "JointModel",
    variables: list[keras.Variable],
    losses_of: Callable[[Tensors, Tensors, Outputs], Tensors],
    owner: Mapping[str, str],
) -> tuple[dict[str, set[int]], dict[int, np.ndarray | None]]:
    """Which loss reaches which parameter, from the gradients of a random batch at random weights.

    Returns:
        `(reached, masks)`: `{loss: positions of the variables that it reaches}`, and for each variable that losses of
        two owners reach what of it they share: `None` for the whole, otherwise an array of 0 and 1 that broadcasts to
        its shape (towers are often slices of one kernel, each of which only one loss reaches).
    """
    rng = np.random.default_rng(0)
    x, y = example_batch(model, rng)
    kept = {i: v.numpy() for i, v in enumerate(variables) if not is_table(v)}
    try:
        for i, value in kept.items():  # a zero start would hide what lies behind it
            variables[i].assign(rng.normal(0, 0.3, value.shape))
        with tf.GradientTape(persistent=True) as tape:
            losses = losses_of(x, y, model(x, training=False))
        found = {name: tape.gradient(loss, [v.value for v in variables]) for name, loss in losses.items()}
    finally:
        for i, value in kept.items():
            variables[i].assign(value)
    reached = {name: {i for i, g in enumerate(gradients) if g is not None} for name, gradients in found.items()}
    masks = {}
    for i, variable in enumerate(variables):
        by_owner = {}
        for name in (name for name in found if i in reached[name]):
            gradient = found[name][i]
            is_there = 1.0 if is_table(variable) else np.asarray(tf.convert_to_tensor(gradient)) != 0
            by_owner[owner.get(name, name)] = by_owner.get(owner.get(name, name), 0) + is_there
        if len(by_owner) > 1:
            mask = None if is_table(variable) else shared_slices(list(by_owner.values()))
            if mask is None or mask.any():
                masks[i] = mask
    return reached, masks


def shared_slices(supports: Sequence[np.ndarray]) -> np.ndarray | None:
    """0 for the slices, along one axis, that just one owner reaches, 1 for the others; `None` if there are none.

    Args:
        supports: For each owner an array of the variable's shape, positive where it has a gradient.
    """
    best = None
    for axis in range(supports[0].ndim):
        others = tuple(a for a in range(supports[0].ndim) if a != axis)
        count = sum((support > 0).any(axis=others, keepdims=True).astype("float32") for support in supports)
        # Units die and scenarios are absent: only an axis along which every owner has slices of its own tells parts.
        is_own = count == 1
        if all((is_own & (s > 0).any(axis=others, keepdims=True)).any() for s in supports) and (
            best is None or is_own.mean() > best.mean()
        ):
            best = is_own
    return None if best is None else 1 - best.astype("float32")


def example_batch(model: "JointModel", rng: np.random.Generator, rows: int = 64) -> tuple[Tensors, Tensors]:
    """Random numbers, all scenarios, the first value of every vocabulary, and labels of both kinds."""
    x = {}
    for name, value in model.input.items():
        shape = (rows, *value.shape[1:])
        is_number = value.dtype.startswith("float")
        x[name] = tf.constant(rng.normal(size=shape) if is_number else np.zeros(shape), value.dtype)
    groups = model.schema.scenario.num_groups
    x["scenario"] = tf.constant(np.arange(rows) % (groups + 1), model.input["scenario"].dtype)
    return x, {task.column: tf.constant(rng.integers(0, 2, rows), "float32") for task in model.schema.tasks}


def stacked(losses: Tensors) -> Tensor:
    """`{name: scalar}` as float32 of shape `(losses,)`."""
    return tf.stack([tf.cast(loss, tf.float32) for loss in losses.values()])


def constant(value: Any) -> Callable[..., tf.Tensor]:
    """Initializer of an array."""
    return lambda shape, dtype: tf.constant(np.asarray(value), dtype=dtype)


def scaled(gradient: Gradient | None, factor: Tensor) -> Gradient | None:
    """A gradient, sparse or not, times a scalar."""
    if gradient is None:
        return None
    factor = tf.cast(factor, gradient.dtype)
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(gradient.values * factor, gradient.indices, gradient.dense_shape)
    return gradient * factor


def add(a: Gradient | None, b: Gradient | None) -> Gradient | None:
    """Sum of two gradients of which each may be `None` or sparse."""
    if a is None or b is None:
        return b if a is None else a
    if isinstance(a, tf.IndexedSlices) and isinstance(b, tf.IndexedSlices):
        values, indices = tf.concat([a.values, b.values], 0), tf.concat([a.indices, b.indices], 0)
        return tf.IndexedSlices(values, indices, a.dense_shape)
    return tf.convert_to_tensor(a) + tf.convert_to_tensor(b)
