"""Single titles under the models: Table 3 and Figure 2, and the shift of all titles' scores by class."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow.parquet as pq

from tfmtr.datasets.dataset import Dataset
from tfmtr.evaluation.compare import mean_and_deviation
from tfmtr.evaluation.metrics import OVERALL, evaluate_task
from tfmtr.evaluation.title_facts import TitleFacts
from tfmtr.evaluation.titles import score_shift
from tfmtr.reporting.pairs import Pairs
from tfmtr.reporting.runs import Model

NUM_BINS = 20


@dataclasses.dataclass(frozen=True)
class Title:
    """A title under all models; `None` is n/a.

    Args:
        id, name: Text.
        is_local: Whether it is local.
        row: Its row in the title store.
        training_positives, positives: Numbers in the training rows and in the test rows.
        pr_auc: `{model: mean over seeds}`, over the rows of all windows.
        gain: `{other model: gain of the last model in percent}`.
        shift: `{other model: score_shift of the last model}`, mean over seeds.
    """

    id: str
    name: str
    is_local: bool
    row: int
    training_positives: int
    positives: int
    pr_auc: dict[str, float | None]
    gain: dict[str, float | None]
    shift: dict[str, float | None]


@dataclasses.dataclass(frozen=True)
class ClassShift:
    """How the last model's scores of a class of titles lie beside another model's.

    Args:
        baseline: The other model's name.
        is_local: Whether it is the class of local titles.
        shift: Mean of `score_shift` over titles and seeds.
        up, titles: Number of titles whose scores moved up, and of titles with at least 20 users.
    """

    baseline: str
    is_local: bool
    shift: float | None
    up: int
    titles: int


@dataclasses.dataclass(frozen=True, eq=False)
class Histogram:
    """Normalised histograms of one title's scores: share of the pairs in each bin.

    Args:
        title: The `Title`.
        edges: Shape `(bins + 1,)`.
        shares: `{model: array of shape (bins,)}`, all seeds together.
    """

    title: Title
    edges: np.ndarray
    shares: dict[str, np.ndarray]


def choose_titles(pairs: Pairs, facts: TitleFacts, *, per_class: int = 5) -> list[int]:
    """Rows of the local and of the global titles with most training positives, local ones first.

    Titles with enough test rows for a PR-AUC (30 positives, 20 users) come before the others. Scores do not matter.

    Args:
        pairs: `Pairs`.
        facts: The `TitleFacts` of the data.
        per_class: Most titles of a class.

    Returns:
        List of integers.
    """
    cells = evaluate_task(pairs.labels, np.zeros(len(pairs.labels)), pairs.titles, pairs.users)
    tested = [int(row) for row in cells if row != OVERALL]

    def rank(row: int) -> tuple[bool, int, int]:
        return cells[str(row)]["reason"] is not None, -facts.popularity[row], row

    chosen = (sorted((row for row in tested if facts.local[row] == is_local), key=rank) for is_local in (True, False))
    return [row for of_class in chosen for row in of_class[:per_class]]


def describe_titles(
    chosen: Sequence[int], models: Sequence[Model], pairs: Pairs, facts: TitleFacts, data: Dataset
) -> list[Title]:
    """PR-AUC, gains and shifts of chosen titles.

    Args:
        chosen: Rows of the title store.
        models: List of `Model`; the gains and shifts are those of the last over each other one.
        pairs: Their `Pairs`.
        facts: The `TitleFacts` of the data.
        data: The `Dataset` directory.

    Returns:
        List of `Title`.
    """
    rows = np.flatnonzero(np.isin(pairs.titles, chosen))
    titles, users = pairs.titles[rows], pairs.users[rows]
    cells = {
        model.name: [evaluate_task(pairs.labels[rows], scores[rows], titles, users) for scores in pairs.of(model)]
        for model in models
    }
    shifts = {other.name: shift_by_title(models[-1], other, pairs, rows) for other in models[:-1]}
    names = pq.read_table(data.path / "titles.parquet", columns=["name"])["name"]
    model = models[-1]

    def describe(row: int) -> Title:
        pr_auc = {
            name: mean_and_deviation([of[str(row)]["pr_auc"] for of in seeds])[0] for name, seeds in cells.items()
        }
        ours = pr_auc[model.name]

        def gain(theirs: float | None) -> float | None:
            return 100 * (ours / theirs - 1) if ours is not None and theirs else None

        return Title(
            id=str(facts.ids[row]),
            name=names[row].as_py() or str(facts.ids[row]),
            is_local=bool(facts.local[row]),
            row=row,
            training_positives=int(facts.popularity[row]),
            positives=cells[model.name][0][str(row)]["positives"],
            pr_auc=pr_auc,
            gain={name: gain(pr_auc[name]) for name in shifts},
            shift={name: of.get(str(row)) for name, of in shifts.items()},
        )

    return [describe(row) for row in chosen]


def shift_by_class(models: Sequence[Model], pairs: Pairs, facts: TitleFacts) -> list[ClassShift]:
    """`ClassShift` of local and global titles, for the last model over each other one."""
    rows, groups = np.arange(len(pairs.titles)), []
    for other in models[:-1]:
        shifts = shift_by_title(models[-1], other, pairs, rows)
        for is_local in (True, False):
            class_shifts = [
                shift for row, shift in shifts.items() if shift is not None and facts.local[int(row)] == is_local
            ]
            mean, up = mean_and_deviation(class_shifts)[0], sum(shift > 0 for shift in class_shifts)
            groups.append(ClassShift(other.name, is_local, mean, up, len(class_shifts)))
    return groups


def shift_by_title(model: Model, other: Model, pairs: Pairs, rows: np.ndarray) -> dict[str, float | None]:
    """`{title row as text: score_shift, mean over seeds}` of some rows; the i-th seeds of both are held together."""
    cells = [
        score_shift(ours[rows], theirs[rows], pairs.titles[rows], pairs.users[rows])
        for ours, theirs in zip(pairs.of(model), pairs.of(other), strict=False)
    ]
    return {title: mean_and_deviation([of[title]["shift"] for of in cells])[0] for title in cells[0]}


def score_histograms(titles: Iterable[Title], models: Sequence[Model], pairs: Pairs) -> list[Histogram]:
    """`Histogram` of each of some `Title`s."""
    histograms = []
    for title in titles:
        rows = pairs.titles == title.row
        scores = {model.name: pairs.of(model)[:, rows].ravel() for model in models}
        edges = np.linspace(0, max(float(own.max()) for own in scores.values()) or 1, NUM_BINS + 1)
        shares = {name: np.histogram(own, edges)[0] / len(own) for name, own in scores.items()}
        histograms.append(Histogram(title, edges, shares))
    return histograms
