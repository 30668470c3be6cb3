"""The lists of models and baselines side by side: what a page shows first."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from tfmtr.evaluation.compare import mean_and_deviation
from tfmtr.evaluation.evidence import compare_lists, interval_text
from tfmtr.evaluation.list_scores import FIRST_STAGE, MODEL, read_list_scores, values_of
from tfmtr.evaluation.metrics import OVERALL, Windows
from tfmtr.evaluation.ranking import mean_over_lists
from tfmtr.reporting.overview import Figure
from tfmtr.reporting.runs import EvaluatedRun, Model

METRICS = ("ndcg", "recall", "capped_recall", "hit_rate")
AMONG = ("hit_rate", "ndcg")
SEGMENTS = ("new users", "known users", "new titles", "known titles")


class Row(NamedTuple):
    """The lists of a model or of a baseline.

    Attributes:
        name: Its name.
        is_model: Whether it is a model; the page's own is the last of the models.
        is_best: Whether it is the baseline that validation users decide for.
        figures: `{metric: Figure}` of `METRICS`, means over all lists.
        repeats: `Figure` of NDCG where titles may be repeated.
        among: `{metric: Figure}` of `AMONG`, of positives ranked among a number of random titles.
        ratio: Result of `compare_lists` of the page's model to this one; `None` where there is none.
    """

    name: str
    is_model: bool
    is_best: bool
    figures: dict[str, Figure]
    repeats: Figure
    among: dict[str, Figure]
    ratio: dict[str, Any] | None


class Segment(NamedTuple):
    """What the lists of a model or of a baseline are worth to a part of the users, or of the titles.

    Attributes:
        name: The model's or the baseline's.
        figures: `{segment: Figure}` of `SEGMENTS`: NDCG of users' lists, share of positives of titles in a list.
        counts: `{segment: int}`: lists of users, positives of titles.
    """

    name: str
    figures: dict[str, Figure]
    counts: dict[str, int]


class Lists(NamedTuple):
    """What a page says of lists.

    Attributes:
        rows: `Row`s, highest NDCG first; of models, those that have lists.
        segments: `Segment`s, models first.
        verdict: Text of how the page's model stands to the best baseline; `None` without one.
        is_below: Whether it is below it.
        stages: Text of how the lists after both stages stand to those of the first alone; `None` of one stage.
        warnings: `(model, seed, text)` of all that the evaluations warn of.
        num_lists, num_windows: Of the page's model.
        left_out: `{"users", "positives"}`: of titles that users had before the window.
        among: Titles that positives were ranked among, too; `None` if they were not.
        missing: Texts, why a baseline is not there.
        validation: Number of validation users' lists that decided for the best baseline.
        advice: What to do where there are no baselines; `None` where there are.
    """

    rows: list[Row]
    segments: list[Segment]
    verdict: str | None
    is_below: bool
    stages: str | None
    warnings: list[tuple[str, int, str]]
    num_lists: int
    num_windows: int
    left_out: dict[str, int]
    among: int | None
    missing: list[str]
    validation: int
    advice: str | None


def describe_lists(models: Sequence[Model], *, num_samples: int = 1000) -> Lists:
    """The `Lists` of a page.

    A model's figures are means over its seeds. Baselines are the same for all seeds, and are those of the last run that
    was evaluated beside them.

    Args:
        models: List of `Model`; ratios are those of the last one to the others and to the baselines.
        num_samples: Bootstrap samples of the ratios' intervals.
    """
    model = models[-1]
    evaluation = model.runs[-1].evaluation
    beside = next((run for run in reversed(model.runs) if run.evaluation.get("baselines")), None)
    baselines = beside.evaluation["baselines"] if beside else {}
    ours = scores_of(model)
    with_lists = [of for of in models if of.runs[-1].evaluation["lists"].get("ranking")]
    among = evaluation.get("ranked_among")
    rows = [model_row(of, None if of is model else ratio(ours, scores_of(of), num_samples), among) for of in with_lists]
    list_scores = read_list_scores(beside.path) if beside else None
    for name in baselines.get("ranking", {}):
        theirs = None if list_scores is None else values_of(list_scores, name)
        rows.append(
            Row(
                name=name,
                is_model=False,
                is_best=name == baselines["best"],
                figures={metric: Figure(mean_of(beside.evaluation, "new", name, metric), None) for metric in METRICS},
                repeats=Figure(mean_of(beside.evaluation, "repeats", name, "ndcg"), None),
                among={
                    metric: Figure(mean_over_lists(among_of(beside, among, name), metric), None) for metric in AMONG
                },
                ratio=ratio(ours, theirs, num_samples),
            )
        )
    first = first_stage_row(model, ours, num_samples)
    rows += [] if first is None else [first]
    rows.sort(key=lambda row: (row.figures["ndcg"].mean is None, -(row.figures["ndcg"].mean or 0.0)))
    best = next((row for row in rows if row.is_best), None)
    cells = [windows[OVERALL] for windows in evaluation["lists"].get("ranking", {}).values()]
    left_out = evaluation.get("left_out", {}).values()
    return Lists(
        rows=rows,
        segments=segments_of(models, beside),
        verdict=None if best is None else verdict(model.name, best),
        is_below=best is not None and best.ratio is not None and best.ratio["ours"] < best.ratio["theirs"],
        stages=None if first is None else verdict(f"{model.name}, after both stages,", first, "the first stage alone"),
        warnings=[
            (of.name, run.recipe.seed, text)
            for of in models
            for run in of.runs
            for text in run.evaluation.get("warnings", ())
        ],
        num_lists=sum(cell["users"] for cell in cells),
        num_windows=len(cells),
        left_out={name: sum(of[name] for of in left_out) for name in ("users", "positives")},
        among=among,
        missing=[row["reason"] for row in baselines.get("tuned", {}).values() if row["reason"]],
        validation=baselines["validation"]["user_windows"] if baselines else 0,
        advice=None if beside else advice(model),
    )


def mean_of(evaluation: Mapping[str, Any], kind: str, name: str, metric: str) -> float | None:
    """A metric's mean over all lists of a contender, those of windows with few lists, too; `None` where there is none.

    Evaluations of older versions have no such means: theirs is over the windows that have a figure.

    Args:
        evaluation: The document `evaluation.json`.
        kind: `"new"`, or `"repeats"` for lists with what users had before.
        name: Of the contender.
        metric: Of the metric.
    """
    if "means" in evaluation:
        return evaluation["means"].get(kind, {}).get(name, {}).get(metric)
    if name != MODEL:
        return mean_over_lists(evaluation["baselines"]["ranking" if kind == "new" else kind].get(name, {}), metric)
    return mean_over_lists(
        (evaluation["lists"].get("ranking") if kind == "new" else evaluation.get(kind)) or {}, metric
    )


def model_row(model: Model, cell: dict[str, Any] | None, among: int | None) -> Row:
    """The `Row` of a `Model`, with the page's ratio to it, and figures among so many titles."""
    runs = [run.evaluation for run in model.runs]
    return Row(
        name=model.name,
        is_model=True,
        is_best=False,
        figures={metric: mean_over_seeds(mean_of(run, "new", MODEL, metric) for run in runs) for metric in METRICS},
        repeats=mean_over_seeds(mean_of(run, "repeats", MODEL, "ndcg") for run in runs),
        among={
            metric: mean_over_seeds(mean_over_lists(among_of(run, among), metric) for run in model.runs)
            for metric in AMONG
        },
        ratio=cell,
    )


def first_stage_row(model: Model, ours: pd.DataFrame | None, num_samples: int) -> Row | None:
    """The `Row` of the first stage alone, of the last run that was evaluated after both; `None` without one."""
    run = next((run for run in reversed(model.runs) if run.evaluation.get("first_stage")), None)
    if run is None:
        return None
    new, repeats = (run.evaluation["means"].get(kind, {}).get(FIRST_STAGE, {}) for kind in ("new", "repeats"))
    list_scores = read_list_scores(run.path)
    theirs = None if list_scores is None else values_of(list_scores, FIRST_STAGE)
    return Row(
        name=FIRST_STAGE,
        is_model=False,
        is_best=False,
        figures={metric: Figure(new.get(metric), None) for metric in METRICS},
        repeats=Figure(repeats.get("ndcg"), None),
        among={metric: Figure(None, None) for metric in AMONG},
        ratio=ratio(ours, theirs, num_samples),
    )


def among_of(run: EvaluatedRun | None, among: int | None, name: str | None = None) -> Windows:
    """`{window: {territory: cell}}` of a `Run`, or of a baseline beside it, if it ranked among so many titles."""
    if run is None or among is None or run.evaluation.get("ranked_among") != among:
        return {}
    return run.evaluation["among"] if name is None else run.evaluation["baselines"]["among"].get(name, {})


def scores_of(model: Model) -> pd.DataFrame | None:
    """NDCG of a `Model`'s lists: data frame `user`, `window`, `value`, `seed`; `None` if a run has none."""
    frames = []
    for run in model.runs:
        list_scores = read_list_scores(run.path)
        if list_scores is None:
            return None
        frames.append(values_of(list_scores, MODEL).assign(seed=run.recipe.seed))
    return pd.concat(frames, ignore_index=True)


def ratio(ours: pd.DataFrame | None, theirs: pd.DataFrame | None, num_samples: int) -> dict[str, Any] | None:
    """The result of `compare_lists`; `None` where one has no lists, or not those of the same users in every seed."""
    if ours is None or theirs is None or not len(ours) or not len(theirs):
        return None
    keys = [
        set(zip(rows.user, rows.window, strict=True))
        for frame in (ours, theirs)
        for _, rows in frame.groupby(frame["seed"] if "seed" in frame else [0] * len(frame))
    ]
    if any(own != keys[0] for own in keys):
        return None
    return compare_lists(ours, theirs, num_samples=num_samples)


def verdict(name: str, best: Row, what: str = "") -> str:
    """How the page's model stands to a contender, in words.

    Args:
        name: The model's.
        best: The contender's `Row`.
        what: What it is; by default the best baseline, with its name.
    """
    what = what or f"{best.name}, the best baseline"
    cell = best.ratio
    if cell is None:
        return f"{name} beside {what}: their lists are not of the same users, or not kept"
    figures = f"NDCG {cell['ours']:.4f} and {cell['theirs']:.4f} over {cell['user_windows']:,} lists"
    if cell["ratio"] is None:
        return f"{name} beside {what}: {figures}; too little to compare ({cell['reason']})"
    is_above, is_below = cell["low"] > 1, cell["high"] is not None and cell["high"] < 1
    word = "is above" if is_above else "is below" if is_below else "cannot be told apart from"
    figures += f", a ratio of {cell['ratio']:.3f} ({interval_text(cell)})"
    return f"{name} {word} {what}: {figures}"


def segments_of(models: Iterable[Model], beside: EvaluatedRun | None) -> list[Segment]:
    """`Segment`s of models, then of the baselines of the `Run` beside which they were evaluated, if there is one."""
    by_model = {model.name: [run.evaluation.get("segments", {}).get(MODEL) for run in model.runs] for model in models}
    others = beside.evaluation.get("segments", {}) if beside else {}
    rows = [*by_model.items(), *((name, [cells]) for name, cells in others.items() if name != MODEL)]
    segments = []
    for name, seeds in rows:
        if any(cells is None for cells in seeds):
            continue
        figures, counts = {}, {}
        for segment in SEGMENTS:
            value, count = ("ndcg", "user_windows") if segment.endswith("users") else ("recall", "positives")
            figures[segment] = mean_over_seeds(cells[segment][value] for cells in seeds)
            counts[segment] = seeds[-1][segment][count]
        segments.append(Segment(name, figures, counts))
    return segments


def mean_over_seeds(values: Iterable[float | None]) -> Figure:
    """`Figure` of one value a seed."""
    return Figure(*mean_and_deviation(list(values)))


def advice(model: Model) -> str:
    """Why a page has no baselines, and what to do."""
    run = model.runs[-1]
    again = f"run `tfmtr evaluate {run.path} --data {run.evaluation['data']}`"
    if "baselines" not in run.evaluation:
        return f"{model.name} was evaluated by an earlier version, without baselines; {again}"
    if not run.evaluation["lists"]:
        return "There are no lists: the model has no index, or the data do not tell what users had."
    return f"{model.name} was evaluated without baselines; {again}"
