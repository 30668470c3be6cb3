"""Does the gap between global and local titles grow when a service trains on what its own model showed?

    python studies/feedback_loop/study.py --seeds 3

A simulated service logs five weeks under its old recommender. Then, round by round, a model is trained on the last two
weeks, and for a week every user is shown what it ranks first among the titles that the territory offers and the user
did not stream for a month; one showing in ten is of any of these titles. A shown title is streamed with its true
probability, and these streams are what the next round learns from. Every contender has a world of its own that begins
the same way. Two need no training: `truth` ranks by the true probability, as a recommender without any bias would,
`popular` by the streams of the last two weeks in the territory.

Of each round stand in the table: by how much the share of local titles in all users' lists differs from that in the
lists of the truth (below 0: too few), their share in the week's streams, Gini and coverage of the lists, how much more
popular they are than what users streamed in the last two weeks, the mean true probability of a stream of what they
have, and the number of streams.

A contender with a seed is a line of `results.jsonl`, written when it is finished and not computed again; page and
picture are beside it.
"""

import argparse
import dataclasses
import datetime
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
import pandas as pd
import pyarrow.parquet as pq
from matplotlib import pyplot as plt
from rich.console import Console
from scipy import stats

from studies.cells import RESULTS, Cell, document_of, lines, notes_of, p_text, table, text
from tfmtr import inputs, training
from tfmtr.datasets.logs import Calendar
from tfmtr.datasets.prepare import prepare
from tfmtr.datasets.simulator import START, simulator
from tfmtr.datasets.truth import Truth
from tfmtr.datasets.world import relevance
from tfmtr.evaluation import compare
from tfmtr.evaluation.lists import Lists
from tfmtr.evaluation.metrics import OVERALL
from tfmtr.evaluation.popularity_bias import evaluate_exposure, popularity_lift
from tfmtr.retrieval.index import title_vectors
from tfmtr.run import Run

SIZE = {"num_users": 12_000, "num_titles": 300, "num_territories": 24}
FIRST, WEEK, TRAINED, LOOKBACK = 35, 7, 14, 30  # days
SHOWN_A_STREAM = 6.0  # showings for each stream that the user's rate stands for
MOST_SHOWN = 20  # titles a user and day
EXPLORED = 0.1
K = 10
BATCH = 4096
CONTENDERS = (*training.PAPER, "popular", "truth")
METRICS = {
    "local_gap": ("Local titles in the lists, minus those in the lists of the truth", "+.4f"),
    "local_streams": ("Share of local titles in the streams", ".4f"),
    "gini": ("Gini of exposure", ".3f"),
    "coverage": ("Coverage", ".3f"),
    "popularity_lift": ("Popularity lift", "+.2f"),
    "relevance": ("Mean true probability of a stream", ".4f"),
    "streams": ("Streams of the week", ",.0f"),
}

PAGE = """# Retraining on what was shown: does the gap between global and local titles grow?

`{command}`, {date}. {num_users:,} users, {num_territories} territories, {num_titles} titles; {rounds} rounds of a week,
{seeds} seeds, each a world of its own: mean (deviation over seeds). Round 1 is trained on the old recommender's log.
What the columns are: the docstring of the command.

{tables}

## From the first round to the last

Change of the gap of local titles, and the p-value of a t-test over seeds against 0, Holm over the rows.

| contender | change | p |
| --- | --- | --- |
{changes}

![The gap of local titles and the Gini index, round by round](rounds.png)

Versions: {versions}.
"""


class World:
    """The simulated service as it goes on under a recommender.

    Args:
        folder: For the simulator's tables.
        seed: Of the world and of all chances in it.
        days: Length of the world.
        **size: Arguments of `simulator`.
    """

    def __init__(self, folder, seed, days, **size):
        self.logs, self.seed = simulator(folder, **size, days=days, seed=seed), seed
        truth, users = Truth(folder), pq.read_table(folder / "users.parquet").to_pandas()
        self.users, self.titles = users["user"].to_numpy(), truth.titles["title"].to_numpy()
        self.names, self.territory = np.unique(users["territory"], return_inverse=True)
        self.joined, self.left, self.rate = (np.array(truth.users[name]) for name in ("joined", "left", "rate"))
        latents = np.stack(truth.titles["latent"].to_numpy())
        self.relevance = relevance(truth.users["taste"] @ latents.T, truth.titles["quality"].to_numpy())
        self.is_local = truth.titles["culture"].to_numpy() >= 0
        self.offers = pq.read_table(folder / "availability.parquet").to_pandas()
        log = pq.read_table(folder / "events.parquet").to_pandas()
        log = log[log["time"] < self.midnight(FIRST)]
        day = (log["time"] - self.midnight(0)).dt.days.to_numpy()
        user, title = pd.Index(self.users).get_indexer(log["user"]), pd.Index(self.titles).get_indexer(log["title"])
        self.streams = [np.stack([user, title, day])]  # what was streamed, one array a week

    def midnight(self, day):
        """Start of a day, UTC."""
        return pd.Timestamp(START.replace(tzinfo=None)) + pd.Timedelta(days=day)

    def is_there(self, day):
        """Which users the service has on a day."""
        return (self.joined <= day) & (day < self.left)

    def offered(self, day):
        """Which titles the users' territories offer on a day, boolean of shape `(users, titles)`."""
        there = self.offers[(self.offers["start"] <= self.midnight(day)) & (self.midnight(day) < self.offers["end"])]
        territory = pd.Index(self.names).get_indexer(there["territory"])
        mask = np.zeros((len(self.names), len(self.titles)), bool)
        mask[territory[territory >= 0], pd.Index(self.titles).get_indexer(there["title"])[territory >= 0]] = True
        return mask[self.territory]

    def streamed(self, start, stop):
        """Rows of the users and of the titles of the streams of days `[start, stop)`."""
        user, title, day = np.concatenate(self.streams, axis=1)
        some = (start <= day) & (day < stop)
        return user[some], title[some]

    def show(self, scores, start):
        """Shows users what has the highest scores for a week, and keeps what they stream."""
        rng, found = np.random.default_rng([self.seed, start]), []
        for day in range(start, start + WEEK):
            allowed = self.offered(day) & self.is_there(day)[:, None]
            allowed[self.streamed(day - LOOKBACK, day)] = False
            for user, title, _ in found:
                allowed[user, title] = False
            count = np.minimum(rng.poisson(SHOWN_A_STREAM * self.rate), MOST_SHOWN)
            count = np.minimum(count, allowed.sum(axis=1))
            order = rng.random(scores.shape)  # of the titles that anybody may be shown
            shown = first(scores, allowed, count - rng.binomial(count, EXPLORED))
            shown |= first(order, allowed & ~shown, count - shown.sum(axis=1))
            user, title = np.nonzero(shown & (rng.random(shown.shape) < self.relevance))
            found.append(np.stack([user, title, np.full(len(user), day)]))
        self.streams.append(np.concatenate(found, axis=1))

    def log(self):
        """The events table of all that was streamed, at seven in the evening."""
        user, title, day = np.concatenate(self.streams, axis=1)
        time = self.midnight(0) + pd.to_timedelta(day * 24 + 19, unit="h")
        return pd.DataFrame({"user": self.users[user], "title": self.titles[title], "time": time})

    def popular(self, day):
        """Streams of the last two weeks in each user's territory, shape `(users, titles)`."""
        user, title = self.streamed(day - TRAINED, day)
        counts = np.zeros((len(self.names), len(self.titles)))
        np.add.at(counts, (self.territory[user], title), 1)
        return counts[self.territory]


def first(scores, allowed, count):
    """Of each row the `count` allowed titles with the highest scores, as a mask."""
    order = np.argsort(np.where(allowed, -scores, np.inf), axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(order.shape[1])[None], axis=1)
    return allowed & (ranks < count[:, None])


def trained_scores(world, recipe, day, folder):
    """Logits of a model trained on the two weeks before a day, shape `(users, titles)`."""
    world.log().to_parquet(folder / "events.parquet")
    # The last day before is a test window, and the newest model is trained on it, too.
    calendar = Calendar(
        datetime.timedelta(days=1), num_train=TRAINED - 1, num_test=1, end=START + datetime.timedelta(days=day - 1)
    )
    logs = dataclasses.replace(world.logs, events=folder / "events.parquet", calendar=calendar)
    data = prepare(logs, folder / "data", seed=recipe.seed, overwrite=True, progress=False)
    training.train(data.path, folder / f"run-{day}", recipe, verbose=0)
    model, schema = Run(folder / f"run-{day}").load(), Run(folder / f"run-{day}").schema
    titles, stores, queries, users = title_vectors(model, data, schema), inputs.open_stores(data), [], []
    for rows in inputs.read_tables([data.path / "users.parquet"], rows=BATCH):
        features = inputs.model_inputs(rows, schema, stores)
        found = model.user_tower.predict_on_batch({name: features[name] for name in model.user_tower.input})
        queries.append(np.asarray(found[schema.tasks[0].name]))
        users += rows["user"].to_pylist()
    user, title = pd.Index(users).get_indexer(world.users), pd.Index(titles.ids).get_indexer(world.titles)
    return np.concatenate(queries)[user] @ titles.vectors[title].T


def measure(world, scores, day):
    """Metrics of the lists that scores make on a day, for all users that are there."""
    there = np.flatnonzero(world.is_there(day))
    offered = world.offered(day)[there]

    def top(values):
        order = np.argsort(np.where(offered, -values[there], np.inf), axis=1, kind="stable")[:, :K]
        return np.where(np.take_along_axis(offered, order, axis=1), order, -1)

    ours, true = top(scores), top(world.relevance)
    profile = world.streamed(day - TRAINED, day)
    popularity = np.bincount(profile[1], minlength=len(world.titles))
    lists = Lists(ours, world.names[world.territory[there]], [], [], num_titles=len(world.titles))
    rows = np.full(len(world.users), -1)
    rows[there] = np.arange(len(there))
    mine = rows[profile[0]] >= 0
    available = {name: offered[world.territory[there] == i].any(axis=0) for i, name in enumerate(world.names)}
    exposure = evaluate_exposure(lists, popularity, available=available)[OVERALL]
    lift = popularity_lift(lists, popularity, rows[profile[0]][mine], profile[1][mine])[OVERALL]
    return {
        "local_gap": float(world.is_local[ours[ours >= 0]].mean() - world.is_local[true[true >= 0]].mean()),
        "gini": exposure["gini"],
        "coverage": exposure["coverage"],
        "popularity_lift": lift["popularity_lift"],
        "relevance": float(np.take_along_axis(world.relevance[there], ours, axis=1)[ours >= 0].mean()),
    }


def compute(name, seed, rounds, cell, recipe, size):
    """The document of a contender with a seed, from its line if it is there."""
    asked = {"recipe": document_of(recipe) if recipe else name, "size": size, "rounds": rounds, "seed": seed}
    if there := cell.known(asked):
        return there
    found = []
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder, "log"), seed, FIRST + rounds * WEEK + 1, **size)
        for day in range(FIRST, FIRST + rounds * WEEK, WEEK):
            if recipe:
                scores = trained_scores(world, recipe, day, Path(folder))
            else:
                scores = world.relevance if name == "truth" else world.popular(day)
            metrics = measure(world, scores, day)
            world.show(scores, day)
            _, title = world.streamed(day, day + WEEK)
            found.append({**metrics, "streams": len(title), "local_streams": float(world.is_local[title].mean())})
    facts = {"date": time.strftime("%Y-%m-%d", time.gmtime()), "versions": training.versions()}
    document = {**asked, **facts, "metrics": found}
    cell.write(document)
    return document


def page(cells, rounds, size, command):
    """The page, from `{contender: documents over seeds}`."""
    tables = []
    for metric, (title, template) in METRICS.items():
        rows = []
        for name, documents in cells.items():
            values = [[of["metrics"][i][metric] for of in documents] for i in range(rounds)]
            means = (compare.mean_and_deviation(of) for of in values)
            deviation_of = template.lstrip("+").replace(",", "")
            texts = (f"{text(mean, template)} ({text(deviation, deviation_of)})" for mean, deviation in means)
            rows.append([name, *texts])
        columns = ["contender", *(f"round {i + 1}" for i in range(rounds))]
        tables.append(f"## {title}\n\n{table(columns, rows)}")
    changes = {
        name: [of["metrics"][-1]["local_gap"] - of["metrics"][0]["local_gap"] for of in cells[name]] for name in cells
    }
    tested = [name for name in changes if len(changes[name]) > 1 and np.ptp(changes[name])]
    p_values = compare.holm([float(stats.ttest_1samp(changes[name], 0).pvalue) for name in tested])
    p_values = dict(zip(tested, p_values, strict=True))
    documents = next(iter(cells.values()))
    return PAGE.format(
        command=command,
        date=max(of["date"] for documents in cells.values() for of in documents),
        **size,
        rounds=rounds,
        seeds=len(documents),
        tables="\n\n".join(tables),
        changes=lines([[name, f"{np.mean(own):+.4f}", p_text(p_values.get(name))] for name, own in changes.items()]),
        versions=", ".join(f"{name} {version}" for name, version in documents[0]["versions"].items()),
    )


def draw(cells, file):
    """The gap of local titles and the Gini index over the rounds, with the deviation over seeds."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    for axis, metric in zip(axes, ("local_gap", "gini"), strict=True):
        for name, documents in cells.items():
            values = np.array([[of[metric] for of in document["metrics"]] for document in documents])
            rounds = np.arange(1, values.shape[1] + 1)
            deviation = values.std(axis=0, ddof=1) if len(values) > 1 else 0.0
            axis.errorbar(rounds, values.mean(axis=0), deviation, label=name, capsize=3, marker="o")
        axis.set(xlabel="round", ylabel=METRICS[metric][0], xticks=rounds)
    axes[0].yaxis.label.set_size("small")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    figure.savefig(file, dpi=120)
    plt.close(figure)


def recipe_of(name, seed, **changes):
    """The recipe of a contender, without a list model, as its towers alone make its lists; `None` without a model."""
    if name not in training.PAPER:
        return None
    return dataclasses.replace(training.PAPER[name], **{"seed": seed, "listwise": False, **changes})


def main(*, seeds=3, rounds=4, folder=HERE, size=None, **changes):
    """Computes the missing cells and writes page and picture."""
    size, cells = size or SIZE, {name: [] for name in CONTENDERS}
    for seed in range(seeds):
        for name in CONTENDERS:
            cell = Cell(folder / RESULTS, f"{name.replace(' + ', '-')}-seed-{seed}")
            cells[name].append(compute(name, seed, rounds, cell, recipe_of(name, seed, **changes), size))
    found = page(cells, rounds, size, f"python studies/feedback_loop/study.py --seeds {seeds} --rounds {rounds}")
    found += notes_of(folder)
    (folder / "README.md").write_text(found, encoding="utf-8")
    draw(cells, folder / "rounds.png")
    Console(width=160).print(found, markup=False)
    return cells


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=4, help="weeks that a model is trained and shown")
    main(**vars(parser.parse_args()), epochs=6, patience=1)
