"""Small convex problems over a few coefficients, solved in the graph."""

from collections.abc import Callable

import tensorflow as tf

from tfmtr.balancing._balancer import TINY

STEPS = 60
SIZES = 24  # step sizes that are tried at once, each half of the one before


def to_simplex(points: tf.Tensor) -> tf.Tensor:
    """Euclidean projection of each row onto `{w >= 0, sum w = 1}` (Duchi et al. 2008, figure 1)."""
    size = points.shape[-1]
    sorted_ = tf.sort(points, direction="DESCENDING")
    excess = (tf.cumsum(sorted_, axis=-1) - 1) / tf.range(1, size + 1, dtype=points.dtype)
    count = tf.reduce_sum(tf.cast(sorted_ > excess, tf.int32), axis=-1, keepdims=True)
    return tf.maximum(points - tf.gather(excess, count - 1, axis=-1, batch_dims=len(points.shape) - 1), 0)


def minimum_on_simplex(
    objective: Callable[[tf.Tensor], tf.Tensor], gradient: Callable[[tf.Tensor], tf.Tensor], size: int
) -> tf.Tensor:
    """`argmin_w objective(w)` over the simplex, by projected gradients with a search over step sizes.

    Args:
        objective: Convex function of points of shape `(n, size)`, returns shape `(n,)`.
        gradient: Its gradient at one point, shape `(1, size)`.
        size: Number of coefficients.

    Returns:
        float64 tensor of shape `(size,)`.
    """
    sizes = tf.reshape(tf.constant([0.5**k for k in range(-4, SIZES - 4)], tf.float64), (-1, 1))

    def body(i: tf.Tensor, w: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        slope = gradient(w)
        slope = slope / tf.maximum(tf.reduce_max(tf.abs(slope)), 1e-30)
        tried = tf.concat([to_simplex(w - sizes * slope), w], axis=0)
        return i + 1, tried[tf.argmin(objective(tried))][None]

    start = tf.fill((1, size), tf.constant(1 / size, tf.float64))
    _, w = tf.while_loop(lambda i, w: i < STEPS, body, (0, start), maximum_iterations=STEPS)
    return w[0]


def least_norm(gram: tf.Tensor) -> tf.Tensor:
    """`argmin_w w gram w` over the simplex, by a primal-dual interior point method.

    With the multiplier `l` of the sum and `s >= 0` of the signs a minimum has `gram w - l - s = 0` and `w s = 0`; steps
    of Newton's method go there along `w s = mu`, with `mu` towards 0. What is still to be gained is at most `sum w s`,
    and they end where that is a millionth. That takes 10 to 30 of them whatever the tasks' lengths are, which projected
    gradients do not reach.

    Args:
        gram: float64, shape `(size, size)`, positive semi-definite, its largest element about 1.

    Returns:
        float64 tensor of shape `(size,)`, all positive.
    """
    size = gram.shape[0]
    start = tf.fill((size,), tf.constant(1 / size, tf.float64))
    slope = tf.linalg.matvec(gram, start)

    def goes_on(i: tf.Tensor, w: tf.Tensor, s: tf.Tensor) -> tf.Tensor:
        value = tf.tensordot(w, tf.linalg.matvec(gram, w), 1)
        return tf.tensordot(w, s, 1) > tf.maximum(1e-6 * value, 1e-15)

    def body(i: tf.Tensor, w: tf.Tensor, s: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        toward = 0.1 * tf.tensordot(w, s, 1) / size / w - s
        root = tf.sqrt(w / s)  # scales the system so that no eigenvalue is below 1
        system = root[:, None] * gram * root + tf.eye(size, dtype=tf.float64)
        right = tf.stack([root * toward, root], axis=1)
        free, by_sum = tf.unstack(root[:, None] * tf.linalg.solve(system, right), axis=1)
        step = free - tf.reduce_sum(free) / tf.reduce_sum(by_sum) * by_sum  # its sum is 0
        of_signs = toward - s / w * step
        most = tf.reduce_max(tf.concat([-step / w, -of_signs / s], axis=0))
        length = 0.95 / tf.maximum(most, 0.95)
        return i + 1, w + length * step, s + length * of_signs

    signs = slope - tf.reduce_min(slope) + 1
    return tf.while_loop(goes_on, body, (0, start, signs), maximum_iterations=STEPS)[1]


def balance_point(gram: tf.Tensor, power: float) -> tf.Tensor:
    """`w > 0` with `gram w = w^-power`, by damped Newton steps on `w gram w / 2 - sum_t int w_t^-power`.

    The function is convex, its minimum is the point. Gradients that are zero have no such point; they get one from a
    trace of the identity that is added.

    Args:
        gram: float64, shape `(size, size)`, positive semi-definite.
        power: Positive float; 1 for Nash's bargaining.

    Returns:
        float64 tensor of shape `(size,)`.
    """
    size = gram.shape[0]
    scale = tf.maximum(tf.reduce_max(tf.linalg.diag_part(gram)), 1e-30)
    g = gram / scale + 1e-9 * tf.eye(size, dtype=tf.float64)

    def body(i: tf.Tensor, w: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        residual = tf.linalg.matvec(g, w) - w**-power
        hessian = g + tf.linalg.diag(power * w ** (-power - 1))
        step = tf.linalg.solve(hessian, residual[:, None])[:, 0]
        decrement = tf.sqrt(tf.maximum(tf.reduce_sum(step * residual), 0))
        length = tf.where(decrement < 0.1, tf.ones_like(decrement), 1 / (1 + decrement))
        most = 0.9 / tf.maximum(tf.reduce_max(step / w), 1e-30)  # never more than nine tenths of the way to 0
        return i + 1, w - tf.minimum(length, most) * step

    start = tf.linalg.diag_part(g) ** (-1 / (1 + power))
    _, w = tf.while_loop(lambda i, w: i < STEPS, body, (0, start), maximum_iterations=STEPS)
    return w * scale ** (-1 / (1 + power))


def bargained(gram: tf.Tensor, power: float) -> tf.Tensor:
    """`w` with `G w = w^-power` over the tasks that have a gradient, 0 for the others."""
    is_positive = tf.linalg.diag_part(gram) > TINY
    # A task without a gradient gets one that conflicts with nobody, and then no weight.
    filled = gram + tf.linalg.diag(tf.where(is_positive, 0.0, tf.reduce_max(gram) + TINY))
    return tf.where(is_positive, tf.cast(balance_point(tf.cast(filled, tf.float64), power), gram.dtype), 0.0)


def cut(w: tf.Tensor, gram: tf.Tensor, max_norm: float) -> tf.Tensor:
    """`w` scaled until the norm of `sum_t w_t g_t` is at most `max_norm`; 0 for no limit."""
    if not max_norm:
        return w
    norm = tf.sqrt(tf.maximum(tf.tensordot(w, tf.linalg.matvec(gram, w), 1), TINY))
    return w * tf.minimum(1.0, max_norm / norm)
