"""What closed forms leave over: factors of titles that are learnt from lists, on top of the parts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfmtr.listwise.rows import ListRows

if TYPE_CHECKING:
    import tensorflow as tf

WIDTH = 64
BATCH = 256
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.1
DROPOUT = 0.5  # of the titles of a past
EPOCHS = 8  # at most
JUDGED_EVERY = 2  # epochs
PATIENCE = 2  # judgements
ERRORS = 1.64  # standard errors by which lists must be better than those of the start
MOST_TITLES = 50_000  # in a softmax: those that most users had
MOST_SCORES = 60_000_000  # of rows and titles in an epoch


@dataclasses.dataclass(frozen=True, eq=False)
class Start:
    """What a window's lists start at, before anything is learnt from them.

    Attributes:
        inputs: Factors of the titles of a past, float32 of shape `(titles, width)`.
        outputs: Factors of the titles of a list, of the same shape.
        prior: float32 of shape `(titles,)`.
        homes: What territories differ from it by is `homes @ local.T`: float32 of shape `(territories, local width)`
        local: and `(titles, local width)`.
    """

    inputs: np.ndarray
    outputs: np.ndarray
    prior: np.ndarray
    homes: np.ndarray
    local: np.ndarray

    def scores(self, rows: ListRows, titles: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Scores of some titles, all by default, for the users of some rows: `(rows, titles)`."""
        scores = (rows.pasts @ self.inputs) @ self.outputs[titles].T + self.prior[titles]
        return scores + self.homes[rows.homes] @ self.local[titles].T


@dataclasses.dataclass(frozen=True, eq=False)
class Residual:
    """Learnt factors of titles, of their texts' vectors, and of territories.

        u = sum_e w_e (E_e + x_e A) + T_home,    v_i = V_i + x_i B,    residual_i = <u, v_i> + b_i

    with the folded past `w` and the titles' vectors `x`.

    Attributes:
        before, after: `E` and `V`, float32 of shape `(titles, width)`.
        text_before, text_after: `A` and `B`, float32 of shape `(vector width, width)`.
        homes: `T`, float32 of shape `(territories, width)`.
        bias: `b`, float32 of shape `(titles,)`.
    """

    before: np.ndarray
    after: np.ndarray
    text_before: np.ndarray
    text_after: np.ndarray
    homes: np.ndarray
    bias: np.ndarray

    @classmethod
    def zeros(cls, num_titles: int, vector_width: int, num_homes: int, width: int = WIDTH) -> Residual:
        """One that adds nothing."""
        shapes = [(num_titles, width)] * 2 + [(vector_width, width)] * 2 + [(num_homes, width), (num_titles,)]
        return cls(*(np.zeros(shape, "float32") for shape in shapes))

    def inputs(self, vectors: np.ndarray) -> np.ndarray:
        """Factors of the titles of a past, `(titles, width)`."""
        return self.before + vectors @ self.text_before

    def outputs(self, vectors: np.ndarray) -> np.ndarray:
        """Factors of the titles of a list, `(titles, width)`."""
        return self.after + vectors @ self.text_after


def train_residual(
    starts: Sequence[Start],
    rows: Sequence[ListRows],
    first: np.ndarray,
    vectors: np.ndarray,
    *,
    epochs: int = EPOCHS,
    judge: Callable[[Residual], np.ndarray] | None = None,
    seed: int = 0,
) -> tuple[Residual, list[dict]]:
    """Learns a residual from lists by a softmax over all titles that there were and that the user did not have.

        L = - sum_r 1/sqrt(|Y_r|) sum_{i in Y_r} log softmax_i(start_ri + residual_ri)

    Titles' factors `V`, `B` start at 0, so that the first lists are those of the start.

    Args:
        starts: The `Start` of each window.
        rows: The `ListRows` of the same windows.
        first: What `first_windows` returns.
        vectors: Titles' vectors, float32 of shape `(titles, vector width)`.
        epochs: How often each row is seen, at most; of many rows an epoch sees a part. With 0 the residual adds
            nothing.
        judge: Function of a `Residual` that returns a figure for each of some lists, the better the larger. Training
            ends when their mean has not grown for some epochs.
        seed: Of first values, order and dropout.

    Returns:
        `(residual, history)`: `[{"epoch", "loss", "judged", "error"}]`, an entry for each judgement: the mean, and the
        standard error of its difference from the start, which is epoch 0.
    """
    import keras
    import tensorflow as tf

    zero = Residual.zeros(len(first), vectors.shape[1], max(len(start.homes) for start in starts))
    if not epochs or not any(map(len, rows)):
        return zero, []
    rng = np.random.default_rng(seed)
    kept = wanted_most(rows, MOST_TITLES)
    spread = 0.3 / np.sqrt(WIDTH)
    values = {field.name: getattr(zero, field.name) for field in dataclasses.fields(zero)}
    values["before"] = rng.normal(0.0, spread, zero.before.shape).astype("float32")
    values["text_before"] = rng.normal(0.0, vectors.shape[1] ** -0.5, zero.text_before.shape).astype("float32")
    variables = {name: tf.Variable(value, name=name) for name, value in values.items()}
    optimizer = keras.optimizers.AdamW(LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    optimizer.build(list(variables.values()))
    texts = tf.constant(vectors)

    @tf.function(reduce_retracing=True)
    def step(
        past: tf.SparseTensor, home: tf.Tensor, start: tf.Tensor, target: tf.Tensor, there: tf.Tensor
    ) -> tf.Tensor:
        with tf.GradientTape() as tape:
            before = variables["before"] + texts @ variables["text_before"]
            after = tf.gather(variables["after"], there) + tf.gather(texts, there) @ variables["text_after"]
            user = tf.sparse.sparse_dense_matmul(past, before) + tf.gather(variables["homes"], home)
            logits = start + tf.matmul(user, after, transpose_b=True) + tf.gather(variables["bias"], there)
            loss = -tf.reduce_sum(target * tf.nn.log_softmax(logits)) / tf.maximum(tf.reduce_sum(target), 1e-6)
        gradients = tape.gradient(loss, list(variables.values()))
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]  # weights decay as a whole
        optimizer.apply_gradients(zip(gradients, variables.values(), strict=True))
        return loss

    def now() -> Residual:
        return Residual(**{name: variable.numpy() for name, variable in variables.items()})

    waited, history = 0, []
    if judge is not None:
        before = judge(zero)
        history = [{"epoch": 0, "loss": None, "judged": float(before.mean()), "error": 0.0}]
    cases = [(start, row, kept[first[kept] <= row.window]) for start, row in zip(starts, rows, strict=True) if len(row)]
    share = min(1.0, MOST_SCORES / max(1, sum(len(row) * len(there) for _, row, there in cases)))
    for epoch in range(1, epochs + 1):
        batches = []
        for place, (_, row, _) in enumerate(cases):
            order = rng.permutation(len(row))[: math.ceil(share * len(row))]
            batches += [(place, np.sort(order[i : i + BATCH])) for i in range(0, len(order), BATCH)]
        total = 0.0
        for number in rng.permutation(len(batches)):
            place, chosen = batches[number]
            start, row, there = cases[place]
            row = row.take(chosen)
            wanted = row.wanted[:, there].toarray()
            logits = start.scores(row, there)
            logits[row.had[:, there].toarray().astype(bool) & (wanted == 0)] = -1e9
            target = wanted / np.sqrt(np.maximum(wanted.sum(axis=1, keepdims=True), 1.0))
            past = row.pasts.tocoo()
            is_kept = rng.random(past.nnz) >= DROPOUT
            known = tf.SparseTensor(
                np.stack([past.row[is_kept], past.col[is_kept]], axis=1).astype(np.int64),
                (past.data[is_kept] / (1.0 - DROPOUT)).astype("float32"),
                past.shape,
            )
            total += float(step(known, row.homes, logits.astype("float32"), target.astype("float32"), there))
        if judge is None:
            continue
        if epoch % JUDGED_EVERY == 0:
            figures = judge(now())
            mean, error = float(figures.mean()), float((figures - before).std() / np.sqrt(len(figures)))
            waited = 0 if mean > max(row["judged"] for row in history) else waited + 1
            history.append({"epoch": epoch, "loss": round(total / len(batches), 4), "judged": mean, "error": error})
            # The first epochs unlearn what the random factors do, so lists are worse for a while.
            if waited > PATIENCE and epoch >= epochs // 2:
                break
    return now(), history


def best_epochs(history: list[dict]) -> int:
    """The epochs of the best judgement; 0 where it is not better than the start by 1.64 standard errors.

    Example:
    >>> start = {"epoch": 0, "judged": 0.1, "error": 0.0}
    >>> best_epochs([start, {"epoch": 2, "judged": 0.2, "error": 0.01}, {"epoch": 4, "judged": 0.15, "error": 0.01}])
    2
    >>> best_epochs([start, {"epoch": 2, "judged": 0.2, "error": 0.1}])
    0
    """
    best = max(history, key=lambda row: row["judged"])
    return best["epoch"] if best["judged"] - history[0]["judged"] > ERRORS * best["error"] else 0


def wanted_most(rows: Sequence[ListRows], most: int) -> np.ndarray:
    """Numbers of the titles that were taken most often, sorted; all where there are not more than `most`.

    Example:
    >>> from scipy import sparse
    >>> none = sparse.csr_matrix((1, 3), dtype=bool)
    >>> wanted_most([ListRows(0, np.zeros(1, int), none, none, sparse.csr_matrix([[0.0, 1.0, 1.0]]))], 2).tolist()
    [1, 2]
    """
    num_titles = rows[0].wanted.shape[1]
    if num_titles <= most:
        return np.arange(num_titles)
    counts = sum(np.asarray(row.wanted.sum(axis=0)).ravel() for row in rows)
    return np.sort(np.argsort(-counts, kind="stable")[:most])
