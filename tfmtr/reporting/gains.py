"""Gains of the last model over the others, territory by territory: the headline and Table 2."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np

from tfmtr.evaluation.compare import mean_and_deviation, relative_gain
from tfmtr.evaluation.gain_interval import bootstrap_pr_auc, gain_interval
from tfmtr.evaluation.metrics import OVERALL, Windows
from tfmtr.evaluation.territories import mean_gain, slice_gains
from tfmtr.reporting.pairs import Pairs
from tfmtr.reporting.runs import Model

MAJOR = 16


@dataclasses.dataclass(frozen=True)
class Gain:
    """The gain of a model over a baseline in one territory, in percent; `None` is n/a.

    Args:
        territory: Its name, or `"overall"`.
        is_major: Whether it is a major territory.
        training_positives: Number of positives in the training rows.
        positives: Number in the test rows.
        model, baseline: PR-AUC, mean over windows and seeds.
        windows: `{window: gain}`.
        average: Mean gain over the windows.
        low, high: 95 % interval of the average, over users and seeds.
        p_value: Of Welch's test over seeds, corrected for the number of territories.
    """

    territory: str
    is_major: bool
    training_positives: int
    positives: int
    model: float | None
    baseline: float | None
    windows: dict[str, float | None]
    average: float | None
    low: float | None
    high: float | None
    p_value: float | None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The last model against one other.

    Args:
        baseline: The other's name.
        gains: `Gain` of every territory, highest average first, those that are n/a last by training positives.
        overall: `Gain` of the pooled rows.
        major, minor: `mean_gain` over the major and the minor territories.
    """

    baseline: str
    gains: list[Gain]
    overall: Gain
    major: dict[str, Any]
    minor: dict[str, Any]


def major_territories(positives: Mapping[str, int], *, most: int = MAJOR) -> set[str]:
    """Names of the territories with most positives: 16, or half of all where there are fewer than 32.

    Those of all users are counted, of the test windows too: what a territory is called should not depend on which
    users a run is trained on.

    Example:
    >>> sorted(major_territories({"DE": 90, "PL": 7, "FR": 80, "CZ": 9}))
    ['DE', 'FR']
    """
    ranked = sorted(positives, key=lambda name: (-positives[name], name))
    return set(ranked[: min(most, len(ranked) // 2)])


def compare_models(
    models: Sequence[Model],
    pairs: Pairs,
    positives: Mapping[str, int],
    majors: AbstractSet[str],
    task: str,
    *,
    num_samples: int = 1000,
) -> list[Comparison]:
    """Compares the last model with each other one.

    Args:
        models: List of `Model`, at least two.
        pairs: Their `Pairs`.
        positives: `{territory: positives in the training rows}` of all territories of the data.
        majors: Names of the major territories.
        task: Name of the task.
        num_samples: Bootstrap samples of the intervals.

    Returns:
        List of `Comparison`, in the order of the models.
    """
    samples, model = sample_areas(models, pairs, num_samples), models[-1]
    ends = np.cumsum([len(of.runs) for of in models])
    places = np.split(np.arange(ends[-1]), ends[:-1])  # of each model's runs
    return [
        compare(
            model.results(task),
            other,
            task,
            positives,
            majors,
            {name: (of, places[-1], own) for name, of in samples.items()},
        )
        for other, own in zip(models[:-1], places[:-1], strict=True)
    ]


def compare(
    results: Sequence[Windows],
    other: Model,
    task: str,
    positives: Mapping[str, int],
    majors: AbstractSet[str],
    samples: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> Comparison:
    """A `Comparison` of the last model's results with those of another `Model`.

    Args:
        results: `Model.results` of the last model.
        other: The other `Model`.
        task: Name of the task.
        positives: `{territory: positives in the training rows}`.
        majors: Names of the major territories.
        samples: `{territory: arguments of gain_interval}`.
    """
    baseline = other.results(task)
    means, p_values = (mean_over_seeds(results), mean_over_seeds(baseline)), slice_gains(results, baseline)
    windows = relative_gain(*means)
    averages = windows.pop("average")
    gains = []
    for name, average in averages.items():
        cells, others = ([of[name] for of in result.values() if name in of] for result in means)
        low, high = gain_interval(*samples[name])
        gains.append(
            Gain(
                territory=name,
                is_major=name in majors,
                training_positives=sum(positives.values()) if name == OVERALL else positives[name],
                positives=sum(cell["positives"] for cell in cells),
                model=mean_and_deviation([cell["pr_auc"] for cell in cells])[0],
                baseline=mean_and_deviation([cell["pr_auc"] for cell in others])[0],
                windows={window: of.get(name) for window, of in windows.items()},
                average=average,
                low=low,
                high=high,
                p_value=p_values.get(name, {}).get("adjusted"),
            )
        )
    gains.sort(key=lambda gain: (gain.average is None, -(gain.average or 0), -gain.training_positives, gain.territory))

    def mean_over(names: Collection[str]) -> dict[str, Any]:
        return mean_gain(*([only(names, result) for result in of] for of in (results, baseline)))

    return Comparison(
        baseline=other.name,
        gains=[gain for gain in gains if gain.territory != OVERALL],
        overall=next(gain for gain in gains if gain.territory == OVERALL),
        major=mean_over(majors),
        minor=mean_over(positives.keys() - majors),
    )


def sample_areas(models: Sequence[Model], pairs: Pairs, num_samples: int) -> dict[str, np.ndarray]:
    """`{territory: what bootstrap_pr_auc returns}`, runs in the order of the models, and last `"overall"`."""
    scores = np.concatenate([pairs.of(model) for model in models])
    rows_of = {name: np.flatnonzero(pairs.territories == name) for name in pairs.territories.categories}
    rows_of[OVERALL] = np.arange(len(pairs.labels))
    return {
        str(name): bootstrap_pr_auc(
            pairs.labels[rows], scores[:, rows], pairs.windows[rows], pairs.users[rows], num_samples=num_samples
        )
        for name, rows in rows_of.items()
    }


def mean_over_seeds(results: Sequence[Windows]) -> Windows:
    """`{window: {slice: cell}}` with the mean PR-AUC over results of several seeds, and the counts of the first."""
    return {
        window: {
            name: {**cell, "pr_auc": mean_and_deviation([result[window][name]["pr_auc"] for result in results])[0]}
            for name, cell in cells.items()
        }
        for window, cells in results[0].items()
    }


def only(names: Collection[str], result: Windows) -> Windows:
    """The result of some territories."""
    return {window: {name: cell for name, cell in cells.items() if name in names} for window, cells in result.items()}
