"""Territory groups: the scenarios of a multi-territory model."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from scipy.optimize import linear_sum_assignment

MAJOR_SHARE = 0.8
MAX_ROUNDS = 100
Territory = TypeVar("Territory", str, tuple[str, ...])  # a name, or a name of each of several columns


def territory_groups(
    volumes: Mapping[str, int], neighbours: Mapping[str, tuple[float, float]] | None, num_groups: int
) -> dict[str, str]:
    """Groups neighbouring territories, with as many major and minor ones in each group.

    Majors are the biggest territories that together hold 80 % of the volume, at least one a group. Majors
    are spread evenly over the groups, and so are minors: k-means on the globe in which every group takes
    at most `ceil(majors / num_groups)` majors and `ceil(minors / num_groups)` minors, assigned at the
    least total squared distance. Territories without a place, then, go to the group with the least
    volume, biggest first; without any place this balances volumes alone.

    Args:
        volumes: `{territory: events}`.
        neighbours: `{territory: (longitude, latitude)}` in degrees, may lack some; or `None`.
        num_groups: Number of groups; no more than there are territories are made.

    Returns:
        `{territory: "group-1" ...}`, the group with the most volume first.

    Raises:
        ValueError: If `num_groups` is not positive or there is no territory.

    Example:
    >>> places = {"DE": (10, 51), "AT": (14, 48), "US": (-98, 39), "CA": (-106, 56)}
    >>> territory_groups({"DE": 5, "AT": 2, "US": 9, "CA": 3}, places, 2)
    {'AT': 'group-2', 'CA': 'group-1', 'DE': 'group-2', 'US': 'group-1'}
    """
    check_num_groups(volumes, num_groups)
    num_groups = min(num_groups, len(volumes))
    by_volume = sorted(volumes, key=lambda territory: (-volumes[territory], territory))
    placed = [territory for territory in by_volume if neighbours and territory in neighbours]
    assigned = {}
    if len(placed) >= num_groups:
        indices = assign_neighbours([volumes[t] for t in placed], [neighbours[t] for t in placed], num_groups)
        assigned = dict(zip(placed, indices, strict=True))
    totals = [sum(volumes[t] for t, group in assigned.items() if group == index) for index in range(num_groups)]
    sizes = [list(assigned.values()).count(index) for index in range(num_groups)]
    for territory in by_volume:
        if territory not in assigned:
            group = min(range(num_groups), key=lambda index: (totals[index], sizes[index], index))
            assigned[territory] = group
            totals[group] += volumes[territory]
            sizes[group] += 1
    order = sorted(
        range(num_groups), key=lambda index: (-totals[index], min(t for t in assigned if assigned[t] == index))
    )
    return {territory: f"group-{order.index(assigned[territory]) + 1}" for territory in sorted(volumes)}


def random_groups(territories: Iterable[Territory], num_groups: int, seed: int) -> dict[Territory, str]:
    """Equally large groups drawn at random: the control of a grouping.

    Args:
        territories: Names.
        num_groups: Number of groups.
        seed: Integer.

    Returns:
        `{territory: "group-1" ...}`.

    Raises:
        ValueError: If `num_groups` is not positive or there is no territory.
    """
    names = sorted(territories)
    check_num_groups(names, num_groups)
    order = np.random.default_rng(seed).permutation(len(names))
    return {
        names[index]: f"group-{place % num_groups + 1}" for place, index in sorted(enumerate(order), key=lambda p: p[1])
    }


def check_num_groups(territories: Collection[Any], num_groups: int) -> None:
    """Raises a `ValueError` unless there are territories and a positive number of groups."""
    if num_groups < 1 or not territories:
        raise ValueError(
            "`num_groups` must be positive and there must be a territory. "
            f"Received: num_groups={num_groups}, {len(territories)} territories"
        )


def assign_neighbours(volumes: Sequence[int], places: Sequence[tuple[float, float]], num_groups: int) -> list[int]:
    """Group index of each territory, see `territory_groups`.

    Args:
        volumes: Events of each territory, falling.
        places: Longitude and latitude of each territory, in degrees.
        num_groups: At most the number of territories.

    Returns:
        List of integers.
    """
    points = to_globe(places)
    share = np.cumsum(volumes) / max(1, np.sum(volumes))
    num_majors = min(len(points), max(num_groups, int(np.searchsorted(share, MAJOR_SHARE)) + 1))
    parts = [part for part in (np.arange(num_majors), np.arange(num_majors, len(points))) if len(part)]
    from sklearn.cluster import KMeans  # takes a second

    clusters = KMeans(num_groups, n_init=10, random_state=0)  # pyright: ignore[reportArgumentType]
    centers = clusters.fit(points[:num_majors]).cluster_centers_
    groups = np.full(len(points), -1)
    for _ in range(MAX_ROUNDS):
        before = groups.copy()
        for part in parts:
            capacity = -(-len(part) // num_groups)
            cost = ((points[part][:, None, :] - centers[None]) ** 2).sum(axis=2)
            _, seats = linear_sum_assignment(np.repeat(cost, capacity, axis=1))
            groups[part] = seats // capacity
        centers = np.stack([points[groups == group].mean(axis=0) for group in range(num_groups)])
        if (groups == before).all():
            break
    return groups.tolist()


def to_globe(places: Sequence[tuple[float, float]]) -> np.ndarray:
    """Points of shape `(n, 3)` on the unit sphere from longitudes and latitudes in degrees."""
    longitude, latitude = np.radians(np.asarray(places, "float64").reshape(-1, 2)).T
    return np.stack(
        [np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], axis=1
    )
