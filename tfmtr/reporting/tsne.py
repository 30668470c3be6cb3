"""Vectors of several groups in one plane, by t-SNE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tfmtr.reporting.charts import Chart, axes, finish, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes


PERPLEXITY = 30.0


def tsne(groups: Mapping[str, np.ndarray], *, seed: int = 0) -> dict[str, np.ndarray]:
    """Vectors of several groups in one plane.

    Reference: van der Maaten and Hinton, Visualizing Data using t-SNE, JMLR 2008,
    https://www.jmlr.org/papers/v9/vandermaaten08a.html. Distances between clusters mean little; whether groups are
    apart does.

    Args:
        groups: `{group: array of shape (rows, width)}`, at least 4 rows together.
        seed: Seed of the descent, which starts from the first two principal components.

    Returns:
        `{group: array of shape (rows, 2)}`.

    Example:
    >>> points = tsne({"west": np.eye(5)[:2], "east": np.eye(5)[2:]})
    >>> points["west"].shape, points["east"].shape
    ((2, 2), (3, 2))
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    vectors = np.concatenate(list(groups.values()))
    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    with threadpool_limits(1, user_api="openmp"):  # threads add up in any order, and a descent shows it
        points = TSNE(random_state=seed, init="pca", perplexity=perplexity).fit_transform(vectors)
    ends = np.cumsum([len(own) for own in groups.values()])[:-1]
    return dict(zip(groups, np.split(points, ends), strict=True))


def draw_points(axis: Axes, points: Mapping[str, np.ndarray]) -> None:
    """Draws what `tsne` returns, a colour a group, on Matplotlib axes without ticks."""
    for name, own in points.items():
        axis.scatter(*own.T, s=6, label=name, alpha=0.7)
    axis.set_xticks([])
    axis.set_yticks([])


def tsne_chart(name: str, groups: Mapping[str, np.ndarray]) -> Chart:
    """The `Chart` of vectors by group, as `tsne` takes them."""
    with axes() as axis:
        draw_points(axis, tsne(groups))
        axis.spines[:].set_visible(False)
        legend(axis)
        return finish(name, axis)
