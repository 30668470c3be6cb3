"""The charts of a page, from what they show."""

import functools
from collections.abc import Iterable, Sequence

import numpy as np

from tfmtr.datasets.dataset import Dataset
from tfmtr.evaluation.title_facts import TitleFacts
from tfmtr.reporting.charts import Chart, gains_chart, histogram_chart, lines_chart
from tfmtr.reporting.curves import calibration_lines, exposure_lines, hit_rate_lines, loss_lines
from tfmtr.reporting.gains import Comparison
from tfmtr.reporting.pairs import Pairs
from tfmtr.reporting.runs import Model
from tfmtr.reporting.titles_section import Title, score_histograms
from tfmtr.reporting.tsne import tsne_chart
from tfmtr.reporting.vectors import user_vectors


def draw(
    models: Sequence[Model],
    pairs: Pairs,
    facts: TitleFacts,
    comparisons: Iterable[Comparison],
    titles: Iterable[Title],
    with_vectors: Iterable[Model],
    data: Dataset,
) -> dict[str, Chart | None]:
    """All charts of a page by name, `None` where there is too little evidence."""
    charts = {f"gains-{i}": functools.partial(gains_chart, comparison=of) for i, of in enumerate(comparisons, start=1)}
    for histogram in score_histograms(titles, models, pairs):
        charts[f"scores-{histogram.title.row}"] = functools.partial(histogram_chart, histogram=histogram)
    popularity = {"x": "share of popularity", "y": "share of recommendations", "diagonal": True}
    charts["exposure"] = functools.partial(lines_chart, lines=exposure_lines(models), **popularity)
    deciles = {"x": "decile of popularity", "y": "hit rate", "places": (1, 10)}
    charts["hit-rate"] = functools.partial(lines_chart, lines=hit_rate_lines(models), **deciles)
    is_local, axes = facts.local[pairs.titles], {"x": "mean score", "y": "observed rate", "diagonal": True}
    for name, rows in (("all", np.ones_like(is_local)), ("local", is_local), ("global", ~is_local)):
        lines = calibration_lines(models, pairs, rows)
        charts[f"calibration-{name}"] = functools.partial(lines_chart, lines=lines, **axes)
    for i, model in enumerate(models, start=1):
        lines = loss_lines(model.runs[0])
        charts[f"loss-{i}"] = functools.partial(
            lines_chart, lines=lines, x="epoch", y="loss", places=(1, len(lines[0].x))
        )
    for i, model in enumerate(with_vectors, start=1):
        for stage, groups in user_vectors(model.runs[0].path, data.path).items():
            charts[f"vectors-{i}-{stage}"] = functools.partial(tsne_chart, groups=groups)
    return {name: chart(name) for name, chart in charts.items()}
