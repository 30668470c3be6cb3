"""Evaluates a run on its test windows: metrics per slice and task, and of the lists that its index returns."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from tfmtr import inputs
from tfmtr.checkpoints import restore
from tfmtr.checks import check_choice, check_integer, check_number, check_texts
from tfmtr.datasets.dataset import Dataset
from tfmtr.documents import replacing, write_json
from tfmtr.evaluation.baseline_lists import baseline_lists, positives_of, user_scores
from tfmtr.evaluation.baselines.table import BASELINES
from tfmtr.evaluation.evaluation import Evaluation
from tfmtr.evaluation.index_lists import AmongCase, ListCase, is_positive, list_metrics, profiles, ranking_of
from tfmtr.evaluation.list_scores import (
    FIRST_STAGE,
    MODEL,
    NEW,
    REPEATS,
    compare_with,
    means_of,
    segments_of,
    write_list_scores,
)
from tfmtr.evaluation.metrics import Cells, evaluate_task
from tfmtr.evaluation.past import Past, has_events
from tfmtr.evaluation.ranking import evaluate_lists, functions, gauc, recall_at_k
from tfmtr.evaluation.shortcomings import shortcomings
from tfmtr.evaluation.splits import scenario_names, scenario_split, split_columns
from tfmtr.evaluation.task_lists import TaskCase, by_task, task_rows
from tfmtr.evaluation.title_facts import LOCAL_SHARE, TitleFacts, title_facts
from tfmtr.evaluation.two_stage_lists import (
    FirstStage,
    after_both,
    choose_first_weight,
    scores_at,
    second_scores,
)
from tfmtr.models import JointModel, TwoTower
from tfmtr.retrieval.index import build_index
from tfmtr.retrieval.second_stage import CANDIDATES
from tfmtr.run import Run, versions
from tfmtr.schema import Schema

BATCH = 8192


def evaluate(
    run: str | os.PathLike,
    data: str | os.PathLike | None = None,
    *,
    k: int = 10,
    recall_users: int = 10_000,
    local_share: float = LOCAL_SHARE,
    baselines: Sequence[str] | None = None,
    among: int | None = None,
    metrics: Sequence[str] = (),
    retrieval: str | os.PathLike | None = None,
    candidates: int = CANDIDATES,
) -> Evaluation:
    """Evaluates test window i with the model that was trained up to window i - 1, beside what people have without it.

    Writes `evaluation.json` and, for figures that need them, `scores.parquet` with the score of every test row (its
    window and one column a task, in the order of the test files) and `list_scores.parquet` with the metrics of every
    user's list, of the model and of the baselines.

    Lists are those of users with a positive of the primary task in the window (at most `recall_users`, those that come
    first in the files' hash order): the k titles that the exact index returns for their territory out of the window's
    catalogue. They are as they are served: titles that the user had before the window are in no list and no positives.
    Beside them, and never mixed with them, stand lists that may repeat such titles. A ranking model has lists with
    `retrieval`: those of both stages, beside which stand the first one's own. Data that do not tell what users had
    have no lists.

    Args:
        run: Run directory made by `tfmtr train`.
        data: Directory made by `tfmtr prepare`; what the run was trained on by default.
        k: Titles that the index returns.
        recall_users: Most users that have lists.
        local_share: See `tfmtr.evaluation.title_facts.title_facts`, which says what a local title is.
        baselines: Names of baselines of `tfmtr.evaluation.baselines.table`; all that can be had by default, none if
            empty.
        among: Titles that each positive is ranked among, too, as in many papers (100: with 99 random ones that the user
            did not have); `None` for no such figures.
        metrics: Metrics of lists beside those of `tfmtr/evaluation/list_metrics/`: import paths of functions like
            theirs.
        retrieval: Run directory of a two-tower model whose index finds what a ranking model orders.
        candidates: How many titles it finds for each user.

    Returns:
        An `Evaluation` of the document written to `<run>/evaluation.json`; cells are as the functions describe that
        make them:

        * `"tasks"` (`evaluate_task`), `"gauc"` (of binary tasks): `{task: {column: {window: {slice: cell}}}}` of the
          columns of `tfmtr.evaluation.splits.split_columns`: the slices, and the scenarios;
        * `"title_classes"` (`evaluate_task`): `{task: {window: {"global", "local" or "overall": cell}}}`;
        * `"recall"`: `{window: float}`, or `None` where a window has no positive;
        * `"lists"` (`list_metrics`): `{metric: {window: {territory: cell}}}`, windows with a positive only;
        * `"repeats"` (`evaluate_lists`): `{window: {territory: cell}}` of lists that may repeat what users had;
        * `"among"`: the same for each positive among random titles, if asked for;
        * `"left_out"`: `{window: {"users", "positives"}}`: had before the window, and users with nothing else;
        * `"baselines"`: see `tfmtr.evaluation.baseline_lists`, with `"compared"` (`compare_with`);
        * `"first_stage"`: of a ranking model with `retrieval`, the latter's `"run_id"`, `"candidates"`, the `"weight"`
          of its score (`choose_first_weight`), and how the lists of both stages compare with its own (`"compared"`);
          otherwise `None`;
        * `"means"` (`means_of`): of all lists together, of the model and the baselines;
        * `"by_task"` (`tfmtr.evaluation.task_lists.by_task`): of the lists of all contenders by what each binary task
          has as positives, pooled and in the scenario and the slices of these; `"scenario_split"`, the column that
          tells scenarios apart;
        * `"segments"` (`segments_of`): lists of new and known users, and new and known titles in them;
        * `"warnings"`: texts, such as that the model is below the best baseline, with what may be the cause;
        * `"titles"`, numbers of local and global ones; `"k"`, `"local_share"`; what was evaluated, when and by what.

    Raises:
        ValueError: If `data` is not what the run was trained on, an argument is out of its range, or `retrieval` is
            given and the run is none of a ranking model.
    """
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise ValueError(f"`k` must be positive, for example 10. Received: k={k!r}")
    check_integer("recall_users", recall_users, least=1)
    check_number("local_share", local_share)
    run = Run(run)
    data, document, schema = run.data if data is None else Dataset(data), run.document, run.schema
    names = None if baselines is None else list(check_texts("baselines", baselines))
    for name in names or ():
        check_choice("baselines", name, tuple(BASELINES))
    if among is not None:
        check_integer("among", among, least=2)
    known_metrics = functions(metrics)
    if document["fingerprint"] != data.report["fingerprint"]:
        raise ValueError(
            "`data` must be what the run was trained on, or its test users may be in the training rows. "
            f"Received: {data.path} with fingerprint {data.report['fingerprint']}, not {document['fingerprint']}"
        )
    first = None
    if retrieval is not None:
        run.check_form("ranking")
        check_integer("candidates", candidates, least=k)
        first = FirstStage(Run(retrieval), data, candidates)
    facts = title_facts(data, local_share=local_share)
    parts = ("tasks", "gauc", "title_classes", "recall", "lists", "repeats", "among", "left_out")
    model, scores_of_pairs, chosen, list_scores, of_tasks, few = None, None, {}, [], [], 0
    by_part: dict[str, Any] = {part: {} for part in parts}
    past, order = Past(data) if has_events(data) else None, run.list_model
    scores = Path(run, "scores.parquet")
    with score_writer(scores, schema) as write_scores:
        for window in data.test_windows:
            if model is None:
                model = run.load(window=window)
            else:
                restore(model, run.weights(window))
            files = data.judged_rows("test", windows=[window])
            wanted = ("title_row", *split_columns(schema))
            columns, users, positives = predict(model, files, schema, data, columns=wanted)
            write_scores(window, columns)
            for path, cells in row_metrics(columns, users, schema, facts):
                put(by_part, (*path, str(window)), cells)
            if data.has_candidates or data.has_impressions:  # lists are judged by all that users took
                positives = positives_of(data, data.discoveries("test", windows=[window]), columns=None)
            by_part["recall"][str(window)] = None
            has_lists = isinstance(model, TwoTower) or first is not None
            if has_lists and past is not None and positives is not None and len(positives):
                history, candidates_of = past.history(window), None
                if first is None:
                    scorer = None if order is None else order.as_of(data, past, window)
                    index = build_index(model, data, schema, window=window, scorer=scorer)  # pyright: ignore[reportArgumentType]
                    options = {
                        "popularity": past.popularity(window), "scorer": scorer, "past": past, "window": window,
                    }  # fmt: skip
                    rank = ranking_of(model, index, schema, data, k=k, **options)  # pyright: ignore[reportArgumentType]
                else:
                    index, candidates_of, evidence = first.at(window, past)
                    if scores_of_pairs is None:
                        scores_of_pairs = second_scores(model, schema, data)
                        as_of = scores_at(run, model, scores_of_pairs)
                        chosen = choose_first_weight(first, as_of, past, data.test_windows, k=k)
                        restore(model, run.weights(window))
                    rank = after_both(candidates_of, evidence, scores_of_pairs, k=k, first_weight=chosen["weight"])
                contenders = {MODEL: rank}
                if candidates_of is not None:
                    contenders[FIRST_STAGE] = lambda rows, allowed, of=candidates_of: of(rows, allowed)[0][:, :k]
                rows = task_rows(data, data.discoveries("test", windows=[window]))
                asked = TaskCase(rows, data.schema, index.catalogue, most=recall_users, past=past, window=window)
                ranked = {name: asked.titles(of) for name, of in contenders.items()}
                of_tasks += [asked.scores(of, known_metrics).assign(contender=name) for name, of in ranked.items()]
                for kind, before in ((NEW, past), (REPEATS, None)):
                    case = ListCase(positives, index.catalogue, most=recall_users, past=before, window=window)
                    found = {
                        name: asked.index_lists(case, ranked[name]) if kind == NEW else case.index_lists(of)
                        for name, of in contenders.items()
                    }
                    list_scores += [
                        user_scores(own, past, history, window, known_metrics).assign(contender=name, list=kind)
                        for name, own in found.items()
                    ]
                    lists = found[MODEL]
                    if kind == REPEATS:
                        by_part["repeats"][str(window)] = evaluate_lists(lists.lists, known_metrics)
                        continue
                    if among is not None:
                        some = AmongCase(case, among)
                        by_part["among"][str(window)] = evaluate_lists(some.lists(rank), known_metrics)
                        few += some.few
                    by_part["recall"][str(window)] = recall_at_k(lists.lists)
                    by_part["left_out"][str(window)] = case.left_out
                    for metric, cells in list_metrics(
                        lists, facts, profiles(past, lists.users, window), known_metrics
                    ).items():
                        put(by_part, ("lists", metric, str(window)), cells)
    by_part["baselines"], by_part["means"], by_part["segments"], by_part["warnings"] = None, {}, {}, []
    by_part["first_stage"], by_part["by_task"] = None, {}
    if first is not None and list_scores:
        compared = compare_with(pd.concat(list_scores), MODEL)[FIRST_STAGE]
        facts_of = {"run_id": first.run.run_id, "candidates": candidates, "weight": chosen}
        by_part["first_stage"] = {**facts_of, "compared": compared}
    if list_scores and (names is None or names):
        others = baseline_lists(data, k=k, most=recall_users, names=names, among=among, metrics=known_metrics)
        list_scores.append(others.scores)
        of_tasks.append(others.tasks)
        by_part["baselines"] = {**others.document, "compared": compare_with(pd.concat(list_scores), MODEL)}
    if list_scores:
        list_scores = pd.concat(list_scores, ignore_index=True)
        write_list_scores(run, list_scores)
        by_part["means"], by_part["segments"] = means_of(list_scores), segments_of(list_scores)
        by_part["warnings"] = shortcomings(by_part, document, data)
        by_part["by_task"] = by_task(pd.concat(of_tasks), data.schema, (by_part["baselines"] or {}).get("best"))
        if few:
            by_part["warnings"].append(
                f"{few} positives were ranked among fewer than {among} titles: no more could be had"
            )
    result = {
        "run_id": document["run_id"],
        "fingerprint": document["fingerprint"],
        "forgotten": data.report.get("forgotten", 0),
        "data": str(data.path.absolute()),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "versions": versions(),
        "k": k,
        "ranked_among": among,
        "scenario_split": scenario_split(data.schema),
        "times": data.report.get("times", True),
        "local_share": local_share,
        "titles": {"local": int(facts.local.sum()), "global": int((~facts.local).sum())},
        **by_part,
    }
    write_json(Path(run, "evaluation.json"), result)
    return Evaluation(result, run.path)


@contextlib.contextmanager
def score_writer(file: Path, schema: Schema) -> Iterator[Callable[[int, Mapping[str, np.ndarray]], None]]:
    """Writes `scores.parquet`, a row group a window; gives a function `write(window, columns of predict)`."""
    fields = {"window": pa.int32(), **{task.name: pa.float32() for task in schema.tasks}}
    with (
        replacing(file) as temporary,
        pq.ParquetWriter(temporary, pa.schema(fields), compression="zstd") as writer,
    ):

        def write(window: int, columns: Mapping[str, np.ndarray]) -> None:
            scores = {task.name: columns[f"{task.name} score"].astype("float32") for task in schema.tasks}
            rows = len(columns["title_row"])
            if rows:
                writer.write_table(pa.table({"window": np.full(rows, window, "int32"), **scores}), row_group_size=rows)

        yield write


def row_metrics(
    columns: Mapping[str, np.ndarray], users: np.ndarray, schema: Schema, facts: TitleFacts
) -> Iterator[tuple[tuple[str, ...], Cells]]:
    """Yields `(path in the document, {slice: cell})` of every metric of a window's rows."""
    is_local = facts.local[columns["title_row"].astype(int)]
    classes = pd.Categorical.from_codes(is_local.astype(np.int8), ["global", "local"])
    for task in schema.tasks:
        order = np.argsort(columns[f"{task.name} score"], kind="stable")  # once, for all metrics
        rows = columns[task.column or task.name][order], columns[f"{task.name} score"][order]
        for column in split_columns(schema):
            slices = columns[column][order]
            yield ("tasks", task.name, column), evaluate_task(*rows, slices, users[order], kind=task.kind)
            if task.kind == "binary":
                yield ("gauc", task.name, column), gauc(*rows, slices, users[order])
        yield ("title_classes", task.name), evaluate_task(*rows, classes[order], users[order], kind=task.kind)


def put(tree: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Sets a value in nested dictionaries, which are made where they are missing."""
    *above, last = path
    for key in above:
        tree = tree.setdefault(key, {})
    tree[last] = value


def predict(
    model: JointModel, files: Sequence[Path], schema: Schema, data: Dataset, *, columns: Sequence[str] = ()
) -> tuple[dict[str, np.ndarray], np.ndarray, pa.Table | None]:
    """Runs a model over files of examples.

    Args:
        model: A `JointModel`.
        files: Example files, as `Dataset.examples` lists them.
        schema: The model's `Schema`.
        data: The `Dataset` directory the files are from.
        columns: Columns of the examples that are wanted beside the slices, as text, or `"scenario"` for the name of
            the row's, or `"title_row"`, an integer.

    Returns:
        `(values, users, positives)`: arrays of shape `(rows,)` by name (label columns, `"<task> score"`, slices and
        `columns`), a number for each row's user, and the table of the primary task's positives.
    """
    stores = inputs.open_stores(data)
    column_names = [*schema.slices, *(column for column in columns if column not in schema.slices)]
    values = {name: [] for task in schema.tasks for name in (task.column or task.name, f"{task.name} score")}
    values |= {name: [] for name in column_names}
    users, positives = [], []
    for table in inputs.read_tables(files, rows=BATCH):
        features = inputs.model_inputs(table, schema, stores)
        scores = model.predictor.predict_on_batch({name: features[name] for name in model.predictor.input})
        for name, label in inputs.labels(table, schema).items():
            values[name].append(label)
        for task in schema.tasks:
            values[f"{task.name} score"].append(np.asarray(scores[task.name])[:, 0])
        for name in column_names:
            if name == "scenario":
                values[name].append(scenario_names(features["scenario"], schema))
            elif name == "title_row":
                values[name].append(table[name].to_numpy())
            else:
                values[name].append(table[name].cast(pa.string()).to_numpy())
        users.append(table["user"])
        positives.append(table.filter(is_positive(table[schema.tasks[0].column])))
    users = pa.chunked_array([chunk for column in users for chunk in column.chunks], pa.string())
    codes = users.combine_chunks().dictionary_encode().indices.to_numpy() if len(users) else np.zeros(0, int)
    values = {name: np.concatenate(parts) if parts else np.zeros(0) for name, parts in values.items()}
    return values, codes, pa.concat_tables(positives) if positives else None
