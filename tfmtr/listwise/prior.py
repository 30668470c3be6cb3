"""What is popular, at several speeds: log shares of decayed events, of all territories and of each."""

import numpy as np
from scipy import sparse

from tfmtr.evaluation.baselines.history import History

SPEEDS = (0.25, 1.0, 4.0, 16.0, None)  # half-lives in windows; None: all events count alike
SMALLEST = 0.1  # events that a title without any is given
SHRINK = 20.0  # events that a territory is given in the proportions of all


def log_shares(history: History, half_life: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Log of each title's share of the fitted events, decayed; of all territories, and of each.

        c_i  = sum_e 0.5^(age_e / half_life),    p_i = (c_i + 0.1) / sum_j (c_j + 0.1)
        p_ti = (c_ti + 20 p_i) / sum_j (c_tj + 20 p_j)

    so that a territory with few events has the shares of all of them.

    Args:
        history: A `History`.
        half_life: Days, or `None` for no decay.

    Returns:
        float32 of the shapes `(titles,)` and `(territories, titles)`: `log p` and `log p_t - log p`.

    Example:
    >>> history = History([0, 1, 1], [0, 1, 1], [1.0, 1.0, 2.0], [0, 1], num_titles=2)
    >>> everywhere, there = log_shares(history, None)
    >>> [round(float(share), 3) for share in np.exp(everywhere)]
    [0.344, 0.656]
    >>> there[0, 0] > 0 > there[1, 0]
    np.True_
    """
    weights = np.ones(history.fitted.sum()) if half_life is None else 0.5 ** (history.age[history.fitted] / half_life)
    homes = history.homes[history.users[history.fitted]]
    shape = (int(history.homes.max(initial=0)) + 1, history.num_titles)
    counts = sparse.csr_matrix((weights, (homes, history.titles[history.fitted])), shape).toarray()
    everywhere = counts.sum(axis=0) + SMALLEST
    everywhere /= everywhere.sum()
    there = counts + SHRINK * everywhere
    there /= there.sum(axis=1, keepdims=True)
    return np.log(everywhere).astype("float32"), (np.log(there) - np.log(everywhere)).astype("float32")
