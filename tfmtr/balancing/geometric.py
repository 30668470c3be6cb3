"""The geometric mean of the losses."""

from keras import ops

from tfmtr.balancing._balancer import Balancer, Problem, Tensor, Tensors


def geometric(problem: Problem) -> Balancer:
    """Minimises `prod_t L_t^(1 / T)`, so that each loss counts by its relative change.

    Reference: Chennupati et al., MultiNet++: Multi-Stream Feature Aggregation and Geometric Loss Strategy for
    Multi-Task Learning, CVPR workshops 2019, https://arxiv.org/abs/1904.08492, section 3.2. A loss that is 0, because
    the batch has no label of the task, is left out of the mean.

    Args:
        problem: The `Problem`.

    Returns:
        A `Balancer`.
    """

    def objective(losses: Tensor, state: Tensors) -> tuple[Tensor, Tensors]:
        has_loss = ops.cast(losses > 0, losses.dtype)
        logarithms = has_loss * ops.log(ops.where(losses > 0, losses, 1.0))
        return ops.exp(ops.sum(logarithms) / ops.maximum(ops.sum(has_loss), 1.0)), {}

    return Balancer(objective)
