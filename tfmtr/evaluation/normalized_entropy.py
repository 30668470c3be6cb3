"""Log loss over that of a model which knows the rate of positives alone."""

import math


def normalized_entropy(log_loss: float, rate: float) -> float:
    """Normalised entropy: below 1 a model knows more than the rate of positives.

        NE = log loss / -(r log r + (1 - r) log(1 - r))    with the rate r of positives

    Slices whose rates differ can be compared by it, which their log losses do not allow.

    Reference: He et al., Practical Lessons from Predicting Clicks on Ads at Facebook, ADKDD 2014,
    https://doi.org/10.1145/2648584.2648589, equation 1.

    Args:
        log_loss: Mean log loss of some rows, with the natural logarithm.
        rate: Share of positives among them, between 0 and 1.

    Returns:
        Float, 0 or more.

    Raises:
        ValueError: If `rate` is not between 0 and 1: rows of one class have no entropy.

    Example:
    >>> normalized_entropy(math.log(2), 0.5)
    1.0
    """
    if not 0.0 < rate < 1.0:
        raise ValueError(f"`rate` must be between 0 and 1, as rows of one class have no entropy. Received: rate={rate}")
    return log_loss / -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
