"""Does every sharing file, and every head, go all the way as a second stage? Trained, calibrated, evaluated, served.

    python studies/second_stages/study.py --work WORK          # a quarter of an hour on two cores
    python studies/second_stages/study.py --page                # the page from the lines
    python studies/second_stages/study.py --lists NAME RUN      # keeps what `tfmtr evaluate` found of a ranking run

A log is drawn in which a title leads to the next and a click may lead to more: 1,500 users in three territories, 60
titles. A first stage with a list model is trained on it, and each second stage on its candidates: every sharing file
with the plain head, and every other head with a shared bottom, on the shortest cascade that it takes. A line a cell in
`results.jsonl`: the seconds of each step, NDCG@10 of the lists of both stages, and what a server answers.

Expected: no cell fails; the page says what each step took. The figures are of one seed of a drawn log and of small
models, so they compare nothing. What compares are the lines of `lists.jsonl`, of logs of full size; `notes.md` has
their commands.
"""

import argparse
import datetime
import functools
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import numpy as np
import pandas as pd

import tfmtr
from studies.cells import RESULTS, Cell, read_cells, table
from studies.combinations.study import REFUSED, tasks_of
from tfmtr import components
from tfmtr.run import Run, versions
from tfmtr.serving.recommendations import recommend

USERS, TITLES, DAYS = 1_500, 60, 12
START = datetime.datetime(2025, 3, 1)
TERRITORIES = ("DE", "FR", "PL")
STEPS = ("train", "calibrate", "evaluate", "export", "serve")
CANDIDATES, K = 30, 10
LISTS = "lists.jsonl"
RECIPE = {"form": "ranking", "epochs": 2, "batch_size": 2048, "embedding_dim": 8}


def write_log(folder, levels, num_users=USERS):
    """A log of clicks and of what follows them, as Parquet files; returns its `Logs`."""
    rng, rows = np.random.default_rng(0), []
    homes = rng.choice(TERRITORIES, num_users)
    for user, home in enumerate(homes):
        at = int(rng.integers(0, TITLES // 3)) + TITLES // 3 * TERRITORIES.index(home)
        for day in np.flatnonzero(rng.random(DAYS) < 0.7):
            moment = START + datetime.timedelta(days=int(day), seconds=int(rng.integers(0, 86_400)))
            label, labels = 1.0, []
            for _ in levels:
                label *= float(rng.random() < 0.6)
                labels.append(label)
            elapsed = (START + datetime.timedelta(days=DAYS) - moment) / datetime.timedelta(days=1)
            rows.append((f"u{user}", f"t{at % TITLES}", moment, int(rng.integers(1, 9)), elapsed, 1.0, *labels))
            at += 1 if rng.random() < 0.8 else int(rng.integers(1, TITLES))
    columns = ["user", "title", "time", "position", "elapsed", "click", *levels]
    tables = {
        "events": pd.DataFrame(rows, columns=columns),
        "users": pd.DataFrame({"user": [f"u{user}" for user in range(num_users)], "territory": homes}),
        "titles": pd.DataFrame(
            {"title": [f"t{i}" for i in range(TITLES)], "name": [f"part {i}" for i in range(TITLES)]}
        ),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in tables.items():
        values.to_parquet(folder / f"{name}.parquet", index=False)
    return tfmtr.Logs(
        **{name: folder / f"{name}.parquet" for name in tables},
        columns={name: name for name in ("user", "title", "time", "territory", "name")},
        tasks={"click": "click"} | {name: f"{name}:after=click" for name in levels},
        training={name: name for name in ("position", "elapsed")},
        availability="anywhere",
    )


@functools.cache
def stages(work, levels, num_users):
    """`(first stage, candidates)` of the log with a cascade; made where they are not there."""
    folder = Path(work, "-".join(("click", *levels)))
    if not (folder / "candidates").exists():
        data = tfmtr.prepare(
            write_log(folder / "log", levels, num_users), folder / "data", progress=False, overwrite=True
        )
        recipe = tfmtr.Recipe(units=(32, 16), epochs=2, batch_size=2048)
        tfmtr.train(data, folder / "first", recipe, verbose=0)
        tfmtr.prepare_candidates(folder / "first", folder / "candidates", candidates=CANDIDATES, negatives=15)
    return Run(folder / "first"), tfmtr.Dataset(folder / "candidates")


def cells():
    """`{name: (head, sharing file)}` of all cells."""
    found = {f"share {share}": ("parallel", share) for share in components.names("sharing")}
    heads = [head for head in components.names("heads") if (head, "ranking") not in REFUSED and head != "parallel"]
    return found | {f"head {head}": (head, "shared_bottom") for head in heads}


def compute(name, work, num_users=USERS):
    """The document of a cell."""
    head, share = cells()[name]
    levels = tuple(task.name for task in tasks_of(head)[1:])  # of the shortest cascade that the head takes
    first, data = stages(str(work), levels, num_users)
    folder, seconds = Path(work, "cells", name.replace(" ", "-")), {}

    def timed(step, function, *args, **options):
        began = time.perf_counter()
        result = function(*args, **options)
        seconds[step] = round(time.perf_counter() - began, 1)
        return result

    recipe = tfmtr.Recipe(head=head, share=share, **RECIPE)
    run = timed("train", tfmtr.train, data, folder / "run", recipe, verbose=0)
    timed("calibrate", tfmtr.calibrate, run, by="territory")
    found = timed("evaluate", tfmtr.evaluate, run, retrieval=first, candidates=CANDIDATES, baselines=["recent"])
    version = timed("export", tfmtr.export, first, folder / "saved", ranking=run, candidates=CANDIDATES)

    def ask():
        with tfmtr.serve(version) as server:
            return recommend(f"127.0.0.1:{server.port}", server.name, data, "u0", k=K)["titles"]

    titles = timed("serve", ask)
    scores = [title["score"] for title in titles]
    if len(titles) != K or scores != sorted(scores, reverse=True) or not np.isfinite(scores).all():
        raise ValueError(f"A server must answer with {K} titles, best first. Received: {titles}")
    means = {contender: found.lists[contender]["ndcg"] for contender in ("model", "first stage", "recent")}
    tasks = [task.name for task in run.schema.tasks]
    return {
        "tasks": tasks, "seconds": seconds, "ndcg": {key: round(value, 4) for key, value in means.items()},
        "weight": found.document["first_stage"]["weight"]["weight"], "titles": len(titles), "versions": versions(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }  # fmt: skip


def keep_lists(name, run, folder=HERE):
    """Keeps the figures of a ranking run's lists, against its first stage alone and the best baseline, as a line."""
    found = Run(run).evaluation.document
    stage, others, means = found["first_stage"], found["baselines"], found["means"]["new"]
    keys, best = ("ratio", "low", "high", "detectable"), others["best"]
    Cell(folder / LISTS, name).write({
        "ndcg": {contender: round(means[contender]["ndcg"], 4) for contender in ("model", "first stage", best)},
        "best": best, "weight": stage["weight"]["weight"], "validation_lists": stage["weight"]["lists"],
        "lists": means["model"]["lists"], "users": means["model"]["users"], "candidates": stage["candidates"],
        "over_first": {key: round(stage["compared"][key], 4) for key in keys},
        "over_best": {key: round(others["compared"][best][key], 4) for key in keys},
        "versions": found["versions"], "date": found["date"],
    })  # fmt: skip


def lists_table(folder):
    """The lines of `lists.jsonl` as a table."""
    rows = []
    for name, line in read_cells(folder / LISTS).items():
        gains = [
            f"{g['ratio']:.3f} ({g['low']:.3f} to {g['high']:.3f})" for g in (line["over_first"], line["over_best"])
        ]
        figures = [f"{line['ndcg'][contender]:.4f}" for contender in ("model", "first stage", line["best"])]
        rows.append([name, f"{line['lists']:,}", *figures, line["best"], *gains, f"{line['weight']:g}"])
    columns = ["log", "lists", "NDCG@10", "first stage", "best baseline", "which", "over the first stage"]
    return table([*columns, "over the best baseline", "weight"], rows)


def write_page(folder=HERE):
    """Writes `README.md` of the lines."""
    rows = []
    for name, cell in read_cells(folder / RESULTS).items():
        figures = [f"{cell['ndcg'][contender]:.4f}" for contender in ("model", "first stage", "recent")]
        took = [f"{cell['seconds'][step]:.1f}" for step in STEPS]
        rows.append([name, ", ".join(cell["tasks"]), *took, *figures, f"{cell['weight']:g}"])
    columns = ["cell", "tasks", *(f"{step}, s" for step in STEPS), "NDCG@10", "first stage", "recent", "weight"]
    text = (
        "# Every sharing file and head as a second stage\n\n`python studies/second_stages/study.py --work WORK` makes "
        "the lines, `--page` this page of them. Each cell was trained on the candidates of a first stage, calibrated, "
        "evaluated after both stages, exported with the index in one SavedModel, and asked by a client for ten titles. "
        "The log is drawn and small, and the models have two epochs: that all steps work is what is shown, not which "
        "system is better. `weight` is that of the first stage's score, chosen on validation users.\n\n"
        f"{table(columns, rows)}\n\n## Lists on logs of full size\n\n{lists_table(folder)}\n\n"
        + (HERE / "notes.md").read_text(encoding="utf-8")
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def main(work=None, *, folder=HERE, names=None, num_users=USERS):
    """Computes the cells that are not there, and the page.

    Args:
        work: Folder for data and runs; `None` for the page alone.
        folder: Of lines and page.
        names: Of the cells; all by default.
        num_users: Users of the log.
    """
    for name in (names or cells()) if work is not None else ():
        cell = Cell(folder / RESULTS, name)
        if cell.known({}) is None:
            cell.write(compute(name, work, num_users))
            print(name, flush=True)
    write_page(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder for data and runs")
    parser.add_argument(
        "--lists", nargs=2, metavar=("NAME", "RUN"), help="keep the figures of an evaluated run's lists"
    )
    parser.add_argument("--page", action="store_true", help="write the page from the lines alone")
    arguments = parser.parse_args()
    if arguments.lists:
        keep_lists(*arguments.lists)
    elif arguments.page == (arguments.work is not None):
        parser.error("either --work, --lists or --page")
    main(arguments.work)
