"""A prepared directory and evaluated runs on it whose scores are made up; only their metrics are computed."""

import datetime

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tfmtr import inputs, training
from tfmtr.datasets.dataset import Dataset
from tfmtr.documents import write_json
from tfmtr.evaluation.baseline_lists import NEW, REPEATS, baseline_lists, catalogue_of, positives_of, user_scores
from tfmtr.evaluation.evaluate import put, row_metrics, score_writer
from tfmtr.evaluation.index_lists import ListCase, best_titles, list_metrics, profiles
from tfmtr.evaluation.list_scores import MODEL, compare_with, segments_of, write_list_scores
from tfmtr.evaluation.past import Past
from tfmtr.evaluation.ranking import evaluate_lists, recall_at_k
from tfmtr.evaluation.shortcomings import shortcomings
from tfmtr.evaluation.splits import split_values
from tfmtr.evaluation.task_lists import TaskCase, by_task, task_rows
from tfmtr.evaluation.title_facts import title_facts
from tfmtr.schema import Feature, Scenario, Schema, Task

# Territory: test users, share of the training rows. "tiny" never has the evidence for a cell.
TERRITORIES = {"am-00": (140, 0.5), "eu-01": (90, 0.3), "af-02": (60, 0.13), "as-03": (60, 0.06), "tiny": (4, 0.01)}
NUM_TITLES, NUM_LOCAL = 24, 8
HOSTILE = "<script>alert('1')</script> & $\\frac{1}{0}$ \"quoted\""
WINDOWS = (1, 2, 3)
BASELINES = ("popularity", "recent", "cosine")
MISSING = "als needs <i>pip</i> install"  # as hostile as no text of ours is
VERSIONS = {"python": "3.11.7", "numpy": "2.4.6"}
# What a model adds to the logit of a positive, and how fond it is of global titles.
MODELS = {"baseline": (0.8, 0.5), "upsampled": (1.0, 0.3), "multi-task": (1.6, 0.0)}
RECIPES = {
    "baseline": training.Recipe(share="none", upsample=False, units=(8, 4), listwise=False),
    "upsampled": training.Recipe(share="none", units=(8, 4), listwise=False),
    "multi-task": training.Recipe(units=(8, 4), listwise=False),
}


def write_prepared(path):
    """Writes a directory of five territories and 24 titles, the first eight local, the first with a hostile name."""
    rng = np.random.default_rng(0)
    groups = {(name,): "west" if i % 2 == 0 else "east" for i, name in enumerate(TERRITORIES)}
    path.mkdir()
    features = [Feature("territory", "user", "id", tuple(TERRITORIES)), Feature("age", "user", "number")]
    Schema(features, [Task("event", mean=0.2)], Scenario(["territory"], groups)).save(path)
    titles, names = [f"t{i:02}" for i in range(NUM_TITLES)], [f"Title {i}" for i in range(NUM_TITLES)]
    pq.write_table(pa.table({"title": titles, "name": [HOSTILE, *names[1:]]}), path / "titles.parquet")
    catalogue = [
        (territory, title, window)
        for territory in TERRITORIES
        for i, title in enumerate(titles)
        for window in (0, *WINDOWS, 4)
        if i >= NUM_LOCAL or territory == "am-00"
    ]
    columns = dict(zip(("territory", "title", "window"), zip(*catalogue, strict=True), strict=True))
    pq.write_table(pa.table({name: list(column) for name, column in columns.items()}), path / "availability.parquet")
    popularity = np.concatenate([np.linspace(12, 5, NUM_LOCAL), np.linspace(10, 1, NUM_TITLES - NUM_LOCAL)])

    def write(split, window, users, territory):
        local = territory == "am-00"  # who alone has the local titles
        draws = rng.random((len(users), NUM_TITLES)) / np.where(
            local[:, None] | (np.arange(NUM_TITLES) >= 8), popularity, 1e-9
        )
        title = np.argsort(draws, axis=1)[:, :6].ravel()  # six titles a user, the popular ones more often
        labels = rng.random(len(title)) < popularity[title] / 25
        folder = path / f"examples/split={split}/sampling=random/window={window}"
        folder.mkdir(parents=True)
        table = {
            "user": np.repeat(users, 6),
            "title": np.array(titles)[title],
            "territory": np.repeat(territory, 6),
            "age": np.full(len(title), 40.0),
            "event": labels.astype("float32"),
            "user_row": np.zeros(len(title), int),
            "title_row": title,
        }
        pq.write_table(pa.table(table), folder / "part.parquet", row_group_size=500)
        return table

    shares = [share for _, share in TERRITORIES.values()]
    train_homes = rng.choice(list(TERRITORIES), 500, p=shares)
    parts = [("train", 0, write("train", 0, np.array([f"r{i}" for i in range(500)]), train_homes))]
    homes = np.concatenate([np.full(count, name) for name, (count, _) in TERRITORIES.items()])
    users = np.array([f"u{i}" for i in range(len(homes))])
    parts += [("test", window, write("test", window, users, homes)) for window in WINDOWS]
    judges = np.array([f"v{i}" for i in range(80)])  # validation users, who choose the best baseline
    judges_homes = rng.choice(list(TERRITORIES), 80, p=shares)
    parts.append(("validation", 0, write("validation", 0, judges, judges_homes)))
    every = np.concatenate([[f"r{i}" for i in range(500)], users, judges])
    places = np.concatenate([train_homes, homes, judges_homes])
    pq.write_table(pa.table({"user": every, "territory": places}), path / "users.parquet")
    write_events(path, parts)
    report = {
        "windows": [{"window": w, "start": f"2025-01-0{w + 1}", "end": f"2025-01-0{w + 2}"} for w in (0, *WINDOWS)],
        "examples": [
            {"split": split, "sampling": "random", "window": window, "rows": len(table["event"]),
             "positives": int(table["event"].sum()), "users": len(set(table["user"]))}
            for split, window, table in parts
        ],
        "statistics": {
            "territories": {
                name: {"group": groups[name,], "users": 2 * count, "events": 10 * count, "positives": count}
                for name, (count, _) in TERRITORIES.items()
            }
        },
        "warnings": ["7 users <b>live</b> nowhere"],
        "seed": 3,
        "options": {"alpha": 10.0},
        "logs": {"events": "logs/events.parquet"},
        "versions": {"duckdb": "2.0.0"},
        "fingerprint": "ab" * 32,
    }  # fmt: skip
    write_json(path / "prepare.json", report)


def write_events(path, parts):
    """Writes `events.parquet`: the positives in the middle of their windows, training users' a day earlier.

    Args:
        path: The directory.
        parts: `(split, window, columns of the examples)`.
    """
    events = []
    for split, window, table in parts:
        liked = pd.DataFrame({name: table[name] for name in ("user", "title")})[table["event"] > 0]
        window = window - 1 if split == "train" else window
        time = np.datetime64(datetime.datetime(2025, 1, 1, 12) + datetime.timedelta(days=window), "us")
        events.append(liked.drop_duplicates().assign(time=time, window=window, split=split, is_history=True))
    pq.write_table(pa.Table.from_pandas(pd.concat(events), preserve_index=False), path / "events.parquet")


def write_run(path, data, model, seed):
    """An evaluated run of one of `MODELS`; its scores know the labels, and depend on the seed."""
    data, recipe = Dataset(data), training.dataclasses.replace(RECIPES[model], seed=seed)
    path.mkdir(parents=True)
    data.schema.save(path)
    history = [{"loss": 0.5 - 0.1 * i, "val_loss": 0.55 - 0.1 * i} for i in range(2)]
    document = {
        "recipe": recipe.document(),
        "fingerprint": data.report["fingerprint"],
        "run_id": f"20250102T030405-abababab-{seed}",
        "data": str(data.path),
        "versions": VERSIONS,
        "stages": {"1": {"history": history, "seconds": 2.5}, "2": {"history": [{"loss": 0.4}], "seconds": 0.5}},
    }
    write_json(path / "run.json", document)
    facts, found = title_facts(data), {"tasks": {}, "gauc": {}, "title_classes": {}, "recall": {}, "lists": {}}
    found |= {"repeats": {}, "left_out": {}}
    past, list_scores, of_tasks = Past(data), [], []
    with score_writer(path / "scores.parquet", data.schema) as write:
        for window in WINDOWS:
            columns = read_rows(data, window)
            knows, fond = MODELS[model]
            rng = np.random.default_rng([seed, window, len(model)])
            logits = (
                knows * columns["event"]
                + fond * ~facts.local[columns["title_row"]]
                + rng.normal(size=len(columns["event"]))
            )
            columns["event score"] = 1 / (1 + np.exp(2 - logits))
            write(window, columns)
            for where, cells in row_metrics(columns, columns["user"], data.schema, facts):
                put(found, (*where, str(window)), cells)
            positives, catalogue = (
                positives_of(data, data.examples("test", windows=[window])),
                catalogue_of(data, window),
            )
            rank, history = ranking_of(positives, facts, knows, fond, rng), past.history(window)
            rows = task_rows(data, data.examples("test", windows=[window]))
            asked = TaskCase(rows, data.schema, catalogue, most=10_000, past=past, window=window)
            of_tasks.append(asked.scores(asked.titles(rank)).assign(contender=MODEL))
            for kind, before in ((NEW, past), (REPEATS, None)):
                case = ListCase(positives, catalogue, most=10_000, past=before, window=window)
                lists = case.index_lists(rank)
                list_scores.append(user_scores(lists, past, history, window).assign(contender=MODEL, list=kind))
                if kind == REPEATS:
                    found["repeats"][str(window)] = evaluate_lists(lists.lists)
                    continue
                found["recall"][str(window)] = recall_at_k(lists.lists)
                found["left_out"][str(window)] = case.left_out
                for metric, cells in list_metrics(lists, facts, profiles(past, lists.users, window)).items():
                    put(found, ("lists", metric, str(window)), cells)
    others = baseline_lists(data, k=3, names=BASELINES)
    list_scores = pd.concat([*list_scores, others.scores], ignore_index=True)
    write_list_scores(path, list_scores)
    found["baselines"] = {**others.document, "compared": compare_with(list_scores, MODEL)}
    found["baselines"]["tuned"]["als"] = {"options": None, "tries": [], "reason": MISSING}
    found["segments"] = segments_of(list_scores)
    found["by_task"] = by_task(pd.concat([*of_tasks, others.tasks]), data.schema, found["baselines"]["best"])
    found["warnings"] = shortcomings(found, document, data)
    write_json(
        path / "evaluation.json",
        {
            "run_id": document["run_id"], "fingerprint": "ab" * 32, "forgotten": 0, "data": str(data.path),
            "date": "2025-01-03", "versions": VERSIONS, "k": 3, "local_share": 0.3,
            "titles": {"local": int(facts.local.sum()), "global": int((~facts.local).sum())}, **found,
        },
    )  # fmt: skip
    return path


def ranking_of(positives, facts, knows, fond, rng):
    """How a made-up model ranks: a function for `ListCase.lists`, the same for a user in both kinds of list."""
    users = positives["user"].to_numpy()
    liked = {}
    for user, title in zip(users, positives["title_row"].to_numpy(), strict=True):
        liked.setdefault(user, []).append(title)
    scores = {user: rng.normal(size=NUM_TITLES) + fond * ~facts.local for user in dict.fromkeys(users)}
    for user, titles in liked.items():
        scores[user][titles] += knows

    def rank(rows, allowed):
        return best_titles(np.stack([scores[user] for user in rows["user"].to_numpy()]), allowed, 3)

    return rank


def read_rows(data, window):
    """Columns of the test rows of a window."""
    (file,) = data.examples("test", windows=[window])
    table = next(inputs.read_tables([file], rows=10**6))
    columns = {name: table[name].to_numpy() for name in ("user", "title_row", "event")}
    return columns | split_values(table, data.schema)
