"""EASE and ALS of this package beside figures that others published for MovieLens-1M.

    python studies/published_baselines/study.py --data ../shared/data    # writes the page

Ratings from a threshold on are events, without their times; users and movies with fewer than ten go until none does;
then each user's events are split at random. Lists are the ten best movies of those that the user has no other event of.
Figures are means over five splits.

Expected: "4 of 4 NDCG@10 within 2 % of the published ones", in two minutes on two cores.
"""

import argparse
import datetime
import importlib.metadata
import math
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import numpy as np
import pandas as pd

from studies import cells
from tfmtr.evaluation.baselines.history import History
from tfmtr.evaluation.baselines.tried_options import fit
from tfmtr.evaluation.lists import Lists
from tfmtr.evaluation.ranking import evaluate_lists

CORE = K = 10
SOURCES = {  # least rating, and of a user's events the numbers of those for test and for validation
    "Anelli et al.": (4, lambda events: (events - np.floor(0.8 * events), 0 * events)),
    "RecBole": (3, lambda events: (np.floor(0.1 * events), np.floor(0.1 * events))),
}
ALPHA = 6.3818930 * math.log(1 + 1 / 5.6496278)  # an event counts 1 + 6.38 log(1 + 1 / 5.65) there
ROWS = [  # source, baseline, its options, what was published
    ("Anelli et al.", "ease", {"l2": 238.5621338}, {"ndcg": 0.336}),
    ("Anelli et al.", "als", {"factors": 51, "alpha": ALPHA, "l2": 0.0494734, "iterations": 27}, {"ndcg": 0.306}),
    ("RecBole", "ease", {"l2": 500.0}, {"ndcg": 0.2864, "recall": 0.2149, "mrr": 0.4813, "hit_rate": 0.7852}),
    ("RecBole", "ease", {"l2": 1000.0}, {"ndcg": 0.2865, "recall": 0.2139, "mrr": 0.4808, "hit_rate": 0.7837}),
]


def events_of(ratings, least):
    """Numbers of users and of titles, one for each rating of `least` or more that the filter leaves."""
    table, size = ratings[ratings.Rating >= least], None
    while size != len(table):
        size = len(table)
        for column in ("UserID", "MovieID"):
            table = table[table.groupby(column)[column].transform("size") >= CORE]
    return pd.factorize(table.UserID)[0], pd.factorize(table.MovieID)[0]


def figures_of(ratings, source, name, options, seed):
    """`{metric: mean over users}` of one random split."""
    least, held_out = SOURCES[source]
    users, titles = events_of(ratings, least)
    place = pd.Series(np.random.default_rng(seed).random(len(users))).groupby(users).rank().to_numpy() - 1
    test, validation = (counts[users] for counts in held_out(np.bincount(users)))
    num_users, num_titles, is_test = users.max() + 1, titles.max() + 1, place < test
    seen, fitted = (
        History(users[kept], titles[kept], np.ones(kept.sum()), np.zeros(num_users), num_titles=num_titles)
        for kept in (~is_test, place >= test + validation)
    )
    score, ranked = fit(name, options, fitted), []
    for batch in np.split(np.arange(num_users), range(256, num_users, 256)):
        scores = np.where(seen.matrix[batch].toarray() > 0, -np.inf, score(batch))
        ranked.append(np.argsort(-scores, axis=1)[:, :K])
    lists = Lists(np.concatenate(ranked), np.full(num_users, "all"), users[is_test], titles[is_test], num_titles)
    return evaluate_lists(lists)["overall"]


def main(data, out=HERE, *, rows=ROWS, splits=5):
    """Measures the rows and writes the page; returns the line that it begins with."""
    ratings, lines, close = pd.read_parquet(Path(data, "movielens-1m", "ratings.parquet")), [], 0
    for source, name, options, published in rows:
        found = pd.DataFrame(figures_of(ratings, source, name, options, seed) for seed in range(splits))
        words = ", ".join(f"{key} {value:.4g}" for key, value in options.items())
        for metric, figure in published.items():
            here, change = f"{found[metric].mean():.4f}", found[metric].mean() / figure - 1
            close += metric == "ndcg" and abs(change) <= 0.02
            here += f" ({found[metric].std(ddof=0):.4f})"
            lines.append([source, name, words, f"{metric}@{K}", str(figure), here, f"{change:+.1%}"])
            print(*lines[-1], sep=" | ", flush=True)
    line = f"{close} of {len(rows)} NDCG@{K} within 2 % of the published ones"
    columns = ["source", "baseline", "options", "metric", "published", f"here, {splits} splits", "difference"]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "scipy", "implicit"))
    how = f"`python studies/published_baselines/study.py` says how. {line}; {datetime.date.today()}; {versions}"
    text = f"# EASE and ALS beside published figures\n\n{how}.\n\n{cells.table(columns, lines)}\n"
    Path(out, "README.md").write_text(text + cells.notes_of(Path(out)), encoding="utf-8")
    return line


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="Folder with movielens-1m/ratings.parquet.")
    print(main(**vars(parser.parse_args())))
