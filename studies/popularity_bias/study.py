"""What does less popularity in the lists cost, when it is known what users would have liked?

    python studies/popularity_bias/study.py --seeds 3

A simulated service logs five weeks under its recommender, which shows more of what is popular. A two-tower model is
trained on the last two weeks, plain and with each way to debias at several strengths, and makes lists of ten of what a
user's territory offers. As the truth is known, lists are judged by it and not by the log: NDCG with the true
probability of a stream as gain, popularity lift over what users streamed in these weeks, and the share of local titles
less that of the truth's lists. `truth` ranks by the true probability, `popular` by the streams of the two weeks in the
territory. `random` is the control: the plain model's lists, whose last places, a share of all on the average, have any
titles that are offered.

A contender with a strength and a seed is a line of `results.jsonl`, written when it is finished and not computed again;
page and picture are beside it.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import matplotlib

matplotlib.use("agg")

import numpy as np
from matplotlib import pyplot as plt
from rich.console import Console

from studies.cells import RESULTS, Cell, document_of, notes_of, table, text
from studies.feedback_loop.study import FIRST, World, first, measure, trained_scores
from tfmtr import training
from tfmtr.evaluation import compare

SIZE = {"num_users": 12_000, "num_titles": 300, "num_territories": 24}
K = 10
STRENGTHS = {  # {contender: [(way to debias, or the share of random titles)]}
    "plain": [None],
    "ips": [("ips", {"power": power}) for power in (0.5, 1.0)],
    "popular_negatives": [("popular_negatives", {"power": power}) for power in (0.25, 0.75)],
    "pda": [("pda", {"power": power}) for power in (0.1, 0.3, 1.0)],
    "macr": [("macr", {"c": c}) for c in (0.0, 1.0, 4.0)],
    "dice": [("dice", {"served": served}) for served in ("both", "interest")],
    "score_correlation": [("score_correlation", {"weight": weight}) for weight in (0.1, 1.0)],
    "random": [0.1, 0.2, 0.4],
    "popular": [None],
    "truth": [None],
}
METRICS = {
    "ndcg": ("NDCG@10, true probability", ".4f"),
    "popularity_lift": ("popularity lift", "+.3f"),
    "local_gap": ("local titles, less those of the truth's lists", "+.4f"),
    "gini": ("Gini", ".3f"),
    "coverage": ("coverage", ".3f"),
}

PAGE = """# What does less popularity in the lists cost?

`{command}`, {date}. {num_users:,} users, {num_territories} territories, {num_titles} titles; {seeds} seeds, each a
world of its own: mean (deviation over seeds).

{rows}

![Popularity lift and NDCG](trade_off.png)

A contender wins what the control does not: at one popularity lift, more NDCG than `random`. Strengths are not chosen
here: all that were tried are listed.

Versions: {versions}.
"""


def true_ndcg(world, scores, day):
    """Mean NDCG of the users' lists, with the true probability of a stream as gain."""
    there = np.flatnonzero(world.is_there(day))
    offered, gain = world.offered(day)[there], world.relevance[there]

    def top(values):
        order = np.argsort(np.where(offered, -values, np.inf), axis=1, kind="stable")[:, :K]
        return np.take_along_axis(np.where(offered, gain, 0), order, axis=1) @ (1 / np.log2(np.arange(2, K + 2)))

    return float((top(scores[there]) / top(gain)).mean())


def with_random_titles(world, scores, day, share, seed):
    """Scores whose lists keep a share of their places, the first ones; any offered titles are in the others."""
    rng, offered = np.random.default_rng([seed, 1]), world.offered(day)
    own = first(scores, offered, np.full(len(scores), K) - rng.binomial(K, share, len(scores)))
    return np.where(own, 2.0 + scores / (1 + np.abs(scores).max()), rng.random(scores.shape) - 1)


def scores_of(world, name, strength, recipe, folder, plain):
    """A contender's scores, shape `(users, titles)`; `plain` are those of the model without a way to debias."""
    if name in ("truth", "popular"):
        return world.relevance if name == "truth" else world.popular(FIRST)
    if name == "random":
        return with_random_titles(world, plain(), FIRST, strength, world.seed)
    return plain() if strength is None else trained_scores(world, recipe(strength), FIRST, folder)


def compute(seed, folder, size, changes):
    """`{(contender, strength): document}` of a seed; a world is made if a line is missing."""

    def recipe(debias):
        return training.Recipe(**{"seed": seed, "listwise": False, "debias": debias, **changes})

    found, missing = {}, []
    for name, strengths in STRENGTHS.items():
        for i, strength in enumerate(strengths):
            debias = None if name == "random" else strength
            asked = {"contender": name, "strength": text_of(strength), "seed": seed, "size": size}
            asked["recipe"] = document_of(recipe(debias))
            cell = Cell(folder / RESULTS, f"{name}-{i}-seed-{seed}")
            found[name, text_of(strength)] = known = cell.known(asked)
            missing += [] if known else [(name, strength, asked, cell)]
    if not missing:
        return found
    with tempfile.TemporaryDirectory() as place:
        world, kept = World(Path(place, "log"), seed, FIRST + 1, **size), []

        def plain():
            kept[:] = kept or [trained_scores(world, recipe(None), FIRST, Path(place))]
            return kept[0]

        for name, strength, asked, cell in missing:
            runs = Path(place, f"{name}-{text_of(strength)}")
            runs.mkdir()
            scores = scores_of(world, name, strength, recipe, runs, plain)
            metrics = {**measure(world, scores, FIRST), "ndcg": true_ndcg(world, scores, FIRST)}
            facts = {"date": time.strftime("%Y-%m-%d", time.gmtime()), "versions": training.versions()}
            found[name, text_of(strength)] = document = {**asked, **facts, "metrics": metrics}
            cell.write(document)
    return found


def text_of(strength):
    """A strength as the page has it: `"power=0.5"`."""
    if isinstance(strength, tuple):
        return ", ".join(f"{name}={value}" for name, value in strength[1].items())
    return "" if strength is None else f"share={strength}"


def page(cells, size, command):
    """The page, from `{(contender, strength): documents over seeds}`."""
    rows = []
    for (name, strength), documents in cells.items():
        row = [name, strength]
        for metric, (_, template) in METRICS.items():
            mean, deviation = compare.mean_and_deviation([of["metrics"][metric] for of in documents])
            row.append(f"{text(mean, template)} ({text(deviation, template.lstrip('+'))})")
        rows.append(row)
    documents = next(iter(cells.values()))
    return PAGE.format(
        command=command,
        date=max(of["date"] for documents in cells.values() for of in documents),
        **size,
        seeds=len(documents),
        rows=table(["contender", "strength", *(title for title, _ in METRICS.values())], rows),
        versions=", ".join(f"{name} {version}" for name, version in documents[0]["versions"].items()),
    )


def draw(cells, file):
    """NDCG over popularity lift, a point for each contender and strength."""
    figure, axis = plt.subplots(figsize=(8, 5), layout="constrained")
    for name in STRENGTHS:
        points = np.array([
            np.mean([[of["metrics"][metric] for metric in ("popularity_lift", "ndcg")] for of in documents], axis=0)
            for (contender, _), documents in cells.items() if contender == name
        ])  # fmt: skip
        axis.plot(points[:, 0], points[:, 1], marker="o", label=name)
    axis.set(xlabel=METRICS["popularity_lift"][0], ylabel=METRICS["ndcg"][0])
    figure.legend(loc="outside lower center", ncols=5)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def main(*, seeds=3, folder=HERE, size=None, **changes):
    """Computes the missing cells and writes page and picture."""
    size, cells = size or SIZE, {}
    for seed in range(seeds):
        for key, document in compute(seed, folder, size, changes).items():
            cells.setdefault(key, []).append(document)
    found = page(cells, size, f"python studies/popularity_bias/study.py --seeds {seeds}") + notes_of(folder)
    (folder / "README.md").write_text(found, encoding="utf-8")
    draw(cells, folder / "trade_off.png")
    Console(width=160).print(found, markup=False)
    return cells


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    main(**vars(parser.parse_args()))
