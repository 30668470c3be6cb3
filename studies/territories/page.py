"""The page of a data set's cells: its tables, in Markdown."""

import numpy as np
from scipy import stats

from studies.cells import lines, p_text, text
from tfmtr.evaluation import compare
from tfmtr.evaluation.metrics import OVERALL
from tfmtr.evaluation.territories import mean_gain, won
from tfmtr.reporting.gains import major_territories, only

OURS, REFERENCE = "multi-task", "baseline + upsampling"
BIAS = (  # metric of the lists, key of its cell, format
    ("ranking", "ndcg", ".4f"),
    ("exposure", "coverage", ".3f"),
    ("exposure", "gini", ".3f"),
    ("exposure", "entropy", ".2f"),
    ("exposure", "average_popularity", ",.0f"),
    ("popularity_lift", "popularity_lift", "+.2f"),
    ("local_share", "recommended", ".4f"),
    ("local_share", "truth", ".4f"),
    ("equal_opportunity", "gap", "+.3f"),
)
CLASSES = ("local", "global")
PER_CLASS = 5  # titles in Table 3

PAGE = """# Territories: {name}

`{command}`, {date}. Data fingerprint {fingerprint}; {train:,} rows for training, {test:,} for the three test windows;
{territories} territories, of which {major} are major (most positives); prevalence {prevalence:.4f}.
{about}

## One model for all territories

Gain of multi-task over each other model in PR-AUC, percent, as mean over territories (each the mean over three test
windows; territories with under 30 positives or 20 users are n/a). Interval: 95 % over territories and seeds. p: t-test
over territories, Holm over the rows. Won: territories in which the mean over windows and seeds is higher.

| over | seeds | major: gain | interval | p | won | all: gain | interval | p | won |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
{claims}

## Every contender

PR-AUC pooled over all test rows: mean over windows and seeds (deviation over seeds). Gain over the baseline with
upsampling as above, over all territories. Time: of a training step, relative to the baseline with
upsampling.{oracle}

| model | seeds | PR-AUC | gain | interval | won | recall@{k} | parameters | time |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
{contenders}

Smallest difference in pooled PR-AUC that {seeds} seeds would find with 80 % power: {detectable}.

## Popularity bias

Of the lists of {k} that the index returns to test users with a positive, over all territories, means over windows and
seeds. Popularity: positives in the training rows. Lift: how much more popular the lists are than what their users chose
before. Local: share of local titles (in at most {local_share:.0f} % of the territories' catalogues) in the lists, and
among what was liked, the positives. Opportunity: share of liked local titles that are in the lists, minus that of
global ones of equal quality (quarters of the rate of positives in training); below 0 local titles are missed more.

| model | NDCG@{k} | coverage | Gini | entropy | mean popularity | lift | local, lists | liked | opportunity |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
{bias}

## Local and global titles

Of the test rows of either class: PR-AUC and calibration error (`expected_calibration_error`), means over windows and
seeds.

| model | local: PR-AUC | calibration error | global: PR-AUC | calibration error |
| --- | --- | --- | --- | --- |
{classes}

Scores of multi-task against those of the other model, title by title (Figure 2 of the paper): the mean of
`tfmtr.evaluation.titles.score_shift` over titles and seeds (above 0: scores moved up), the number of titles that moved
up, of those with 20 users, and the p-value of a sign test over titles. Beside it the mean gain in PR-AUC over titles
(those with 30 positives over the three windows).

| titles | over | shift | up | p | PR-AUC gain | titles with a gain |
| --- | --- | --- | --- | --- | --- | --- |
{shifts}

The local and the global titles with most training positives (Table 3), PR-AUC over the rows of all windows:
{largest}

| title | class | training positives | {table_3_models} |
| --- | --- | --- | {table_3_rule} |
{table_3}

Every combination tried is in the tables. Versions: {versions}.
"""
ABOUT = {
    "simulator": """The simulated service of `docs/simulator.md` with 720 thousand users, 600 titles, 200
territories, windows of a day. Three users in ten are tested and five in a hundred trained on, so that all major
territories have enough test rows. Groups are by geography; the cultures that tastes follow are others, and
`true groups` has these.""",
    "homogeneous": """The simulated service as in `simulator`, but without any difference between territories
(`heterogeneity=0`): there is nothing for branches to learn, so multi-task must not gain over one group.""",
    "movielens": """MovieLens-1M by postal regions, windows of a week, nothing before 975768738, as
until then the rebuilt archive has times of ratings of 4 and 5 only.""",
    "online_retail": """Online Retail, windows of four weeks. Three are for training: all nine before the tests
would be more than 600 thousand rows a run, and five, which are not, take longer. The United Kingdom has nine tenths
of them.""",
    "xmarket": """XMarket Electronics, windows of four weeks; liked is a rating of 4 or 5. Its 5-core filter looked into
the future: it counted reviews of all times, those in the test windows too, so its users come back more often than they
did. All dates of Mexico are the 24th of a month: a window has them, but their order within it is lost.""",
}
ORACLE = """ Truth: the pairs by their true propensity of a discovery, which no model
that does not know the user's own log can rank better; lists by the true probability of a stream if shown."""


def page(name, cells, steps, titles, oracle, data, command):
    """The page of a data set.

    Args:
        name: Of the data set.
        cells: `{contender: documents over seeds}`.
        steps: `{contender: milliseconds of a training step}`, without the models that there are one a group of.
        titles: What `territory_study.title_document` returns.
        oracle: The document of the true propensity, or `None`.
        data: The `Dataset` directory.
        command: Text.
    """
    statistics = data.report["statistics"]["territories"]
    majors = major_territories({name: of["positives"] for name, of in statistics.items()})
    windows, of_major = (
        {model: [only(names, cell["windows"]) for cell in documents] for model, documents in cells.items()}
        for names in (statistics, majors)
    )
    true = [only(statistics, oracle["windows"])] if oracle else None
    split_rows = {
        split: sum(part["rows"] for part in data.report["examples"] if part["split"] == split)
        for split in ("train", "test")
    }
    first, seeds = cells[OURS][0], len(cells[OURS])
    deviation = compare.mean_and_deviation([overall(cell) for cell in cells[OURS]])[1]
    with_truth = {**cells, "truth": [oracle]} if oracle else cells
    return PAGE.format(
        name=name,
        command=command,
        date=max(cell["date"] for documents in cells.values() for cell in documents),
        fingerprint=data.report["fingerprint"][:12],
        **split_rows,
        territories=len(statistics),
        major=len(majors),
        prevalence=overall(first, "prevalence"),
        about=ABOUT.get(name, ""),
        claims=lines(claims(windows, of_major)),
        oracle=ORACLE if oracle else "",
        contenders=lines(contenders(cells, windows, steps, oracle, true)),
        bias=lines(bias(with_truth)),
        classes=lines(classes(with_truth)),
        shifts=lines(shifts(titles)),
        largest=largest(titles),
        table_3_models=" | ".join([OURS, *(f"gain over {other} | shift" for other in titles["baselines"])]),
        table_3_rule=" | ".join(["---"] * (1 + 2 * len(titles["baselines"]))),
        table_3=lines(table_3(titles)),
        k=first["k"],
        local_share=100 * first["local_share"],
        seeds=seeds,
        detectable=text(compare.detectable_difference(deviation, seeds) if deviation is not None else None, ".4f"),
        versions=", ".join(f"{name} {version}" for name, version in first["versions"].items()),
    )


def claims(windows, of_major):
    """Rows of multi-task's gains over each other model."""
    others = [model for model in windows if model != OURS]
    parts = []
    for results in (of_major, windows):
        gains = [mean_gain(results[OURS], results[model]) for model in others]
        adjusted = holm_of_known([gain["p_value"] for gain in gains])
        parts.append(
            [
                [*gain_texts(gain), p_text(p_value), won_text(results, OURS, model)]
                for model, gain, p_value in zip(others, gains, adjusted, strict=True)
            ]
        )
    counts = [str(len(windows[model])) for model in others]
    return [[model, count, *major, *all_] for model, count, major, all_ in zip(others, counts, *parts, strict=True)]


def contenders(cells, windows, steps, oracle, true):
    """Rows of every contender, the highest gain over the baseline with upsampling first, and of the truth."""
    against = {model: mean_gain(windows[model], windows[REFERENCE]) for model in cells if model != REFERENCE}
    rows = []
    for model in sorted(cells, key=lambda model: -(against.get(model, {}).get("gain") or 0.0)):
        documents = cells[model]
        mean, deviation = compare.mean_and_deviation([overall(cell) for cell in documents])
        gain = [""] * 3
        if model in against:
            gain = [*gain_texts(against[model]), won_text(windows, model, REFERENCE)]
        rows.append(
            [
                model,
                str(len(documents)),
                f"{text(mean, '.4f')} ({text(deviation, '.4f')})",
                *gain,
                text(recall(documents), ".4f"),
                f"{documents[0]['parameters']:,}",
                text(steps[model] / steps[REFERENCE] if model in steps else None, ".2f"),
            ]
        )
    if oracle:
        found = [text(overall(oracle), ".4f"), *gain_texts(mean_gain(true, windows[REFERENCE]))]
        better = won_text({"truth": true, **windows}, "truth", REFERENCE)
        rows.append(["truth", "", *found, better, text(recall([oracle]), ".4f"), "", ""])
    return rows


def bias(cells):
    """Rows of the lists' metrics of all models that have an index, and of the truth."""
    return [
        [model, *(text(list_metric(documents, *which), template) for *which, template in BIAS)]
        for model, documents in cells.items()
        if documents[0]["lists"]
    ]


def classes(cells):
    """Rows of PR-AUC and calibration error of local and of global titles."""

    def mean(documents, name, metric):
        values = [of[name][metric] for cell in documents for of in cell["title_classes"].values() if name in of]
        return text(compare.mean_and_deviation(values)[0], ".4f")

    return [
        [model, *(mean(documents, name, metric) for name in CLASSES for metric in ("pr_auc", "calibration_error"))]
        for model, documents in cells.items()
        if documents[0]["title_classes"]
    ]


def shifts(titles):
    """Rows of the shifts of scores and the gains of titles, by class and other model."""
    rows = []
    for of in titles["shifts"]:
        name = "local" if of["is_local"] else "global"
        own = [title["gain"][of["baseline"]] for title in titles["titles"] if title["is_local"] == of["is_local"]]
        own = [gain for gain in own if gain is not None]
        sign = float(stats.binomtest(of["up"], of["titles"]).pvalue) if of["titles"] else None
        rows.append(
            [
                name,
                of["baseline"],
                text(of["shift"], "+.3f"),
                f"{of['up']} of {of['titles']}",
                p_text(sign),
                f"{np.mean(own):+.1f} %" if own else "n/a",
                f"{sum(gain > 0 for gain in own)} of {len(own)}",
            ]
        )
    return rows


def largest(titles):
    """Which title gains most over each other model, in words."""
    found = []
    for other in titles["baselines"]:
        best = max(titles["titles"], key=lambda title: title["gain"][other] or -100.0, default=None)
        if best is not None and best["gain"][other] is not None:
            kind = "local" if best["is_local"] else "global"
            found.append(f"the largest gain over {other} is {best['gain'][other]:+.0f} %, of a {kind} title")
    return "; ".join(found) + "." if found else "no title has 30 positives."


def table_3(titles):
    """Rows of the titles of each class with most training positives."""
    ranked = sorted(titles["titles"], key=lambda title: -title["training_positives"])
    rows = []
    for is_local in (True, False):
        for title in [title for title in ranked if title["is_local"] == is_local][:PER_CLASS]:
            row = [title["name"], "local" if is_local else "global", f"{title['training_positives']:,}"]
            row.append(text(title["pr_auc"][OURS], ".4f"))
            for other in titles["baselines"]:
                gain = title["gain"][other]
                row += ["n/a" if gain is None else f"{gain:+.1f} %", text(title["shift"][other], "+.3f")]
            rows.append(row)
    return rows


def overall(cell, metric="pr_auc"):
    """Mean over the test windows of the pooled metric."""
    return compare.mean_and_deviation([slices[OVERALL][metric] for slices in cell["windows"].values()])[0]


def recall(documents):
    """Mean recall over windows and seeds."""
    return compare.mean_and_deviation([of for cell in documents for of in (cell["recall"] or {}).values()])[0]


def list_metric(documents, metric, key):
    """Mean over windows and seeds of a metric of the lists."""
    values = [cell[key] for document in documents for cell in document["lists"][metric].values()]
    return compare.mean_and_deviation(values)[0]


def holm_of_known(p_values):
    """Holm over the p-values that there are."""
    known = [i for i, p in enumerate(p_values) if p is not None]
    adjusted = dict(zip(known, compare.holm([p_values[i] for i in known]), strict=True))
    return [adjusted.get(i) for i in range(len(p_values))]


def gain_texts(gain):
    """Mean gain and its interval."""
    if gain["gain"] is None:
        return "n/a", "n/a"
    return f"{gain['gain']:+.1f} %", f"{gain['low']:+.1f} to {gain['high']:+.1f}"


def won_text(results, model, other):
    """Territories won, of those that are not n/a."""
    return "{} of {}".format(*won(results[model], results[other]))
