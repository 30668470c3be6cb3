"""Popularity bias of recommendation lists: how exposure is spread over titles, and whether it follows popularity.

Popularity is always given, one number a title: the count of its positives in the **training** rows, over all
territories, or over one to judge that territory's lists by its own taste. Cells are as in `tfmtr.evaluation.metrics`:
by slice and pooled, n/a under 20 users, and under 30 positives where positives are looked at.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from tfmtr.evaluation.lists import Lists, check_range
from tfmtr.evaluation.metrics import OVERALL, Cells, check_columns, why_not_available


def evaluate_exposure(
    lists: Lists, popularity: ArrayLike, *, available: Mapping[str, ArrayLike] | None = None
) -> Cells:
    """Catalogue coverage, Gini index and entropy of the exposure, and average recommendation popularity.

    With p_j the shares of the n titles in all recommendations of a slice, the smallest first,

        coverage = |{j: p_j > 0}| / n      gini = sum_j (2 j - n - 1) p_j / (n - 1)
        entropy = -sum_j p_j ln p_j        average_popularity = mean_u mean_{i in list of u} popularity_i.

    Gini is 0 if all titles are recommended equally often and 1 if only one is; entropy is then ln n and 0. The divisor
    n - 1 is the handbook's; with n, which is common too, the index could not reach 1.

    Reference: Shani and Gunawardana, Evaluating Recommendation Systems, Recommender Systems Handbook, 2011 (Gini,
    entropy); Ge et al., Beyond Accuracy, RecSys 2010, https://doi.org/10.1145/1864708.1864761 (catalogue coverage);
    Abdollahpouri et al., Managing Popularity Bias in Recommender Systems with Personalized Re-ranking, FLAIRS 2019,
    https://arxiv.org/abs/1901.07555 (average recommendation popularity, ARP).

    Args:
        lists: `Lists`. Empty ones count for nothing.
        popularity: Array of shape `(num_titles,)` of numbers from zero up.
        available: `{slice: boolean array of shape (num_titles,)}`: the titles of the slice's catalogue, which are the
            n titles of the formulas; pooled, those of any slice. By default all.

    Returns:
        `{slice: cell}` with the four metrics, `titles` (n), `users` (with a list that is not empty) and `reason`.

    Raises:
        ValueError: If `popularity` or `available` does not fit the titles, `available` lacks a slice, or a list has a
            title that is not available.

    Example:
    >>> from tfmtr.evaluation.lists import Lists
    >>> lists = Lists(np.tile([0, 2], (20, 1)), ["DE"] * 20, [], [], num_titles=3)
    >>> cell = evaluate_exposure(lists, [50, 20, 10])["DE"]
    >>> cell["coverage"], cell["gini"], cell["entropy"], cell["average_popularity"]
    (0.6666666666666666, 0.5, 0.6931471805599453, 30.0)
    """
    popularity = _check_popularity(lists, popularity)
    users, titles, _ = lists.recommended
    means = _mean_per_user(users, popularity[titles], lists)
    slices = lists.by_slice()
    catalogues = _check_available(lists, slices, available)

    def cell(name: str, users: np.ndarray | slice, recommendations: np.ndarray | slice) -> dict[str, Any]:
        counts, catalogue = np.bincount(titles[recommendations], minlength=lists.num_titles), catalogues[name]
        if counts[~catalogue].any():
            raise ValueError(
                f"`available` must have every title that is recommended in a slice. Received: title "
                f"{np.flatnonzero((counts > 0) & ~catalogue)[0]} in a list of {name!r}, which does not have it"
            )
        has_mean, num_titles = ~np.isnan(means[users]), int(catalogue.sum())
        reason = why_not_available(lists.num_pairs, int(has_mean.sum()))
        metrics: dict[str, float | None] = dict.fromkeys(("coverage", "gini", "entropy", "average_popularity"))
        if reason is None:
            shares = np.sort(counts[catalogue]) / counts.sum()
            places = np.arange(1, num_titles + 1)
            metrics = {
                "coverage": float((shares > 0).mean()),
                "gini": float((2 * places - num_titles - 1) @ shares / max(num_titles - 1, 1)),
                "entropy": float(stats.entropy(shares)),
                "average_popularity": float(means[users][has_mean].mean()),
            }
        return {**metrics, "titles": num_titles, "users": int(has_mean.sum()), "reason": reason}

    return {name: cell(name, users, recommended) for name, (users, recommended, _) in slices.items()}


def popularity_lift(lists: Lists, popularity: ArrayLike, profile_users: ArrayLike, profile_titles: ArrayLike) -> Cells:
    """By how much recommendations are more popular than what their users chose themselves.

    With the group average popularity GAP, the mean over the users of a slice of the mean popularity of the titles in
    their list, and in their profile,

        popularity_lift = (GAP of the lists - GAP of the profiles) / GAP of the profiles.

    0 is no bias, 1 twice as popular. Both are over the users who have a list and a profile; the paper has no others.

    Reference: Abdollahpouri et al., The Connection Between Popularity Bias, Calibration, and Fairness in
    Recommendation, RecSys 2020, https://arxiv.org/abs/2008.09273, where the relative change of GAP of their The
    Unfairness of Popularity Bias in Recommendation, 2019, https://arxiv.org/abs/1907.13286, gets its name.

    Args:
        lists: `Lists`.
        popularity: Array of shape `(num_titles,)` of numbers from zero up; its unit does not matter.
        profile_users: Integer array of shape `(profile rows,)`: rows of the lists, one for each title that a user
            chose before the test window.
        profile_titles: Integer array of shape `(profile rows,)`: rows of the title store.

    Returns:
        `{slice: cell}` with `popularity_lift`, `recommended` and `profile` (the two GAPs), `users` and `reason`.

    Raises:
        ValueError: If `popularity` does not fit the titles, the profile's columns differ in shape, or a user or title
            is out of range.

    Example:
    >>> from tfmtr.evaluation.lists import Lists
    >>> lists = Lists(np.tile([0, 2], (20, 1)), ["DE"] * 20, [], [], num_titles=3)
    >>> popularity_lift(lists, [50, 20, 10], np.arange(20), np.full(20, 1))["DE"]["popularity_lift"]
    0.5
    """
    popularity = _check_popularity(lists, popularity)
    profile_users, profile_titles = np.asarray(profile_users), np.asarray(profile_titles)
    check_columns(profile_users=profile_users, profile_titles=profile_titles)
    check_range("profile_users", profile_users, 0, len(lists.ranked_titles))
    check_range("profile_titles", profile_titles, 0, lists.num_titles)
    users, titles, _ = lists.recommended
    recommended = _mean_per_user(users, popularity[titles], lists)
    profile = _mean_per_user(profile_users, popularity[profile_titles], lists)
    has_both = ~np.isnan(recommended + profile)

    def cell(users: np.ndarray | slice) -> dict[str, Any]:
        of_list, of_profile = (means[users][has_both[users]] for means in (recommended, profile))
        reason = why_not_available(lists.num_pairs, len(of_list))
        lift = ours = theirs = None
        if reason is None:
            ours, theirs = float(of_list.mean()), float(of_profile.mean())
            lift, reason = ((ours - theirs) / theirs, None) if theirs else (None, "profiles without popularity")
        return {
            "popularity_lift": lift,
            "recommended": ours,
            "profile": theirs,
            "users": len(of_list),
            "reason": reason,
        }

    return {name: cell(users) for name, (users, _, _) in lists.by_slice().items()}


def hit_rate_by_popularity(
    lists: Lists, popularity: ArrayLike, *, num_bins: int = 10
) -> dict[str, list[dict[str, Any]]]:
    """Share of the positives that are in their users' lists, by how popular the title is.

    Every positive is one trial, a hit if its title is in its user's list. Where the list favors popular titles, the
    rate rises with popularity although all these titles were liked.

    Reference: Cremonesi et al., Performance of Recommender Algorithms on Top-N Recommendation Tasks, RecSys 2010,
    https://doi.org/10.1145/1864708.1864721 (recall as hits over trials, and of the long tail alone); Zhu et al.,
    Popularity-Opportunity Bias in Collaborative Filtering, WSDM 2021, https://doi.org/10.1145/3437963.3441820.

    Args:
        lists: `Lists`.
        popularity: Array of shape `(num_titles,)` of numbers from zero up.
        num_bins: Number of bins, 10 for deciles; see `quantile_bins`.

    Returns:
        `{slice: list of num_bins cells}`, least popular titles first, with `hit_rate`, `positives`, `users` (with
        one) and `reason`.

    Raises:
        ValueError: If `popularity` does not fit the titles.

    Example:
    >>> from tfmtr.evaluation.lists import Lists
    >>> lists = Lists(np.full((40, 1), 1), ["DE"] * 40, np.arange(40), np.full(40, 1), num_titles=2)
    >>> [cell["hit_rate"] for cell in hit_rate_by_popularity(lists, [3, 8], num_bins=2)["DE"]]
    [None, 1.0]
    """
    bins = quantile_bins(_check_popularity(lists, popularity), num_bins=num_bins)[lists.positive_titles]
    every = np.arange(len(bins))
    return {
        name: [lists.hit_rate(every[positives][bins[positives] == i]) for i in range(num_bins)]
        for name, (_, _, positives) in lists.by_slice().items()
    }


def exposure_curve(lists: Lists, popularity: ArrayLike, *, num_bins: int = 10) -> Cells:
    """What share of the recommendations goes to titles of what share of the popularity, bin by bin.

    Plot `exposure` over `popularity`, or the cumulative sums of both: above the diagonal at the popular end, titles
    are recommended more than they are popular ("more frequently than their organic popularity level", Gampa et al.,
    2023). There is no standard for the bins; these have equal numbers of titles, not of training positives.

    Args:
        lists: `Lists`.
        popularity: Array of shape `(num_titles,)` of numbers from zero up.
        num_bins: Number of bins; see `quantile_bins`.

    Returns:
        `{slice: cell}` with `titles` (numbers), `popularity` and `exposure` (shares), each a list of `num_bins`,
        least popular titles first, `users` (with a list that is not empty) and `reason`.

    Raises:
        ValueError: If `popularity` does not fit the titles, or is zero for all.

    Example:
    >>> from tfmtr.evaluation.lists import Lists
    >>> lists = Lists(np.tile([1, 2], (20, 1)), ["DE"] * 20, [], [], num_titles=4)
    >>> cell = exposure_curve(lists, [1, 2, 5, 2], num_bins=2)["DE"]
    >>> cell["titles"], cell["popularity"], cell["exposure"]
    ([3, 1], [0.5, 0.5], [0.5, 0.5])
    """
    popularity = _check_popularity(lists, popularity)
    if not popularity.any():
        raise ValueError("`popularity` must not be zero for all titles; count the positives of the training rows.")
    bins = quantile_bins(popularity, num_bins=num_bins)
    users, titles, _ = lists.recommended
    titles_in = np.bincount(bins, minlength=num_bins).tolist()
    popularity_of = (np.bincount(bins, popularity, num_bins) / popularity.sum()).tolist()

    def cell(recommendations: np.ndarray | slice) -> dict[str, Any]:
        num_users = len(np.unique(users[recommendations]))
        reason, exposure = why_not_available(lists.num_pairs, num_users), None
        if reason is None:
            counts = np.bincount(bins[titles[recommendations]], minlength=num_bins)
            exposure = (counts / counts.sum()).tolist()
        return {
            "titles": titles_in,
            "popularity": popularity_of,
            "exposure": exposure,
            "users": num_users,
            "reason": reason,
        }

    return {name: cell(recommended) for name, (_, recommended, _) in lists.by_slice().items()}


def quantile_bins(values: ArrayLike, *, num_bins: int = 10) -> np.ndarray:
    """Bins of equal numbers of titles by any figure of theirs, from the lowest.

    A title's bin is `floor(num_bins * share of titles with a lower value)`: equal values share a bin, so many titles
    without a positive make the first bin larger and leave some of the next ones empty.

    Args:
        values: Array of shape `(num_titles,)` of finite numbers.
        num_bins: Number of bins.

    Returns:
        Integer array of shape `(num_titles,)` in `[0, num_bins)`.

    Raises:
        ValueError: If `num_bins` is not positive.

    Example:
    >>> quantile_bins([7, 0, 0, 9], num_bins=2)
    array([1, 0, 0, 1])
    """
    if num_bins < 1:
        raise ValueError(f"`num_bins` must be positive, for example 10. Received: num_bins={num_bins!r}")
    values = np.asarray(values)
    return num_bins * np.searchsorted(np.sort(values), values) // len(values)


def _mean_per_user(users: np.ndarray, values: np.ndarray, lists: Lists) -> np.ndarray:
    """Mean of the values of each user, shape `(users,)`; NaN for users without any."""
    num_users = len(lists.ranked_titles)
    with np.errstate(invalid="ignore"):
        return np.bincount(users, values, num_users) / np.bincount(users, minlength=num_users)


def _check_popularity(lists: Lists, popularity: ArrayLike) -> np.ndarray:
    return lists.check_titles(
        "popularity", popularity, lambda values: np.isfinite(values) & (values >= 0), "a number from zero up"
    )


def _check_available(
    lists: Lists, slices: Iterable[str], available: Mapping[str, ArrayLike] | None
) -> dict[str, np.ndarray]:
    """Boolean array of shape `(num_titles,)` for every slice."""
    if available is None:
        return dict.fromkeys(slices, np.ones(lists.num_titles, bool))
    missing = [name for name in slices if name not in available and name != OVERALL]
    if missing:
        raise ValueError(f"`available` must have the catalogue of every slice. Received: none for {missing}")
    catalogues = {
        name: lists.check_titles("available", titles, lambda values: values.dtype == bool, "True or False")
        for name, titles in available.items()
    }
    return {OVERALL: np.any(list(catalogues.values()), axis=0), **catalogues}
