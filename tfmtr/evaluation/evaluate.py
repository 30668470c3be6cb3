"""Evaluates a run on its test windows: metrics per slice and task, and recall of the index."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfmtr import inputs, training
from tfmtr.datasets.prepared import Prepared
from tfmtr.documents import write_json
from tfmtr.evaluation.compare import mean_and_deviation
from tfmtr.evaluation.lists import Lists
from tfmtr.evaluation.metrics import evaluate_task
from tfmtr.evaluation.ranking import recall_at_k
from tfmtr.evaluation.tables import pr_auc_table
from tfmtr.retrieval.index import build_index
from tfmtr.schema import Schema

BATCH = 8192


def evaluate(run, data, *, k=10, recall_users=10_000):
    """Evaluates test window i with the model that was trained up to window i - 1, and writes `evaluation.json`.

    Recall is over users with a positive of the primary task in the window (at most `recall_users`, those
    that come first in the files' hash order): the share of their positives among the k titles that the exact
    index returns for their territory out of the window's catalogue.

    Args:
        run: Run directory made by `tfmtr train`.
        data: Directory made by `tfmtr prepare`.
        k: Titles that the index returns.
        recall_users: Most users that recall is measured on.

    Returns:
        The document written to `<run>/evaluation.json`:
        `{"tasks": {task: {slice column: {window: {slice value: cell}}}}, "recall": {window: float}, ...}`;
        cells as `tfmtr.evaluation.metrics.evaluate_task` describes.
    """
    data, schema, document = Prepared(data), Schema.load(run), training.read_run(run)
    if document["fingerprint"] != data.report["fingerprint"]:
        raise ValueError(
            "`data` must be what the run was trained on, or its test users may be in the training rows. "
            f"Received: {data.path} with fingerprint {data.report['fingerprint']}, not {document['fingerprint']}"
        )
    model, tasks, recall = None, {task.name: {column: {} for column in schema.slices} for task in schema.tasks}, {}
    for window in data.test_windows:
        if model is None:
            model = training.load(run, window=window)
        else:
            training.restore(model, Path(run, "weights", f"window-{window}.npz"))
        files = data.examples("test", windows=[window])
        columns, users, positives = predict(model, files, schema, data)
        for task in schema.tasks:
            for column in schema.slices:
                tasks[task.name][column][str(window)] = evaluate_task(
                    columns[task.column], columns[f"{task.name} score"], columns[column], users, kind=task.kind
                )
        recall[str(window)] = _recall(model, positives, schema, data, window=window, k=k, most=recall_users)
    result = {
        "run_id": document["run_id"],
        "fingerprint": document["fingerprint"],
        "k": k,
        "tasks": tasks,
        "recall": recall,
    }
    write_json(Path(run, "evaluation.json"), result)
    return result


def print_results(results, console):
    """Prints a table of PR-AUC per slice for each binary task, and recall; the last model's gains are over the others.

    Args:
        results: `{model: document of evaluate}`.
        console: `rich.console.Console`.
    """
    *_, last = results.values()
    for task, slices in last["tasks"].items():
        for column, windows in slices.items():
            if any("pr_auc" in cell for cells in windows.values() for cell in cells.values()):
                console.print(f"\n[bold]{task}[/] per {column}")
                console.print(pr_auc_table({name: result["tasks"][task][column] for name, result in results.items()}))
    console.print()
    for name, result in results.items():
        recall, _ = mean_and_deviation(result["recall"].values())
        text = "n/a" if recall is None else f"{recall:.4f}"
        console.print(f"recall@{result['k']} of the exact index, {name}: {text}", highlight=False)


def predict(model, files, schema, data, *, columns=()):
    """Runs a model over files of examples.

    Args:
        model: A `JointModel`.
        files: Example files, as `Prepared.examples` lists them.
        schema: The model's `Schema`.
        data: The `Prepared` directory the files are from.
        columns: Columns of the examples that are wanted beside the slices, or `"scenario"` for the name of the row's.

    Returns:
        `(values, users, positives)`: arrays of shape `(rows,)` by name (label columns, `"<task> score"`, slices and
        `columns`), a number for each row's user, and the table of the primary task's positives.
    """
    stores = inputs.open_stores(data)
    wanted = [*schema.slices, *(column for column in columns if column not in schema.slices)]
    values = {name: [] for task in schema.tasks for name in (task.column, f"{task.name} score")}
    values |= {name: [] for name in wanted}
    users, positives = [], []
    for table in inputs.read_tables(files, rows=BATCH):
        features = inputs.model_inputs(table, schema, stores)
        scores = model.predictor.predict_on_batch({name: features[name] for name in model.predictor.input})
        for name, label in inputs.labels(table, schema).items():
            values[name].append(label)
        for task in schema.tasks:
            values[f"{task.name} score"].append(np.asarray(scores[task.name])[:, 0])
        for name in wanted:
            if name == "scenario":
                values[name].append(np.asarray(["", *schema.scenario.names])[features["scenario"]])
            else:
                values[name].append(table[name].cast(pa.string()).to_numpy())
        users.append(table["user"])
        positives.append(table.filter(pc.greater(table[schema.tasks[0].column], 0)))
    users = pa.chunked_array([chunk for column in users for chunk in column.chunks], pa.string())
    codes = users.combine_chunks().dictionary_encode().indices.to_numpy() if len(users) else np.zeros(0, int)
    values = {name: np.concatenate(parts) if parts else np.zeros(0) for name, parts in values.items()}
    return values, codes, pa.concat_tables(positives) if positives else None


def _recall(model, positives, schema, data, *, window, k, most):
    if positives is None or not len(positives):
        return None
    index = build_index(model, data, schema, window=window)
    users, first, user_of_row = np.unique(
        positives["user"].to_numpy().astype(str), return_index=True, return_inverse=True
    )
    kept = np.sort(first)[:most]  # users are in the order of their hash
    features = inputs.model_inputs(positives.take(kept), schema, inputs.open_stores(data))
    queries = model.user_tower.predict({name: features[name] for name in model.user_tower.input}, verbose=0)
    query = np.asarray(queries[schema.tasks[0].name])
    territories = np.asarray(positives.take(kept)["territory"].to_pylist())
    catalogue, ranked = index.catalogue, []
    for i in range(0, len(query), 256):
        some = slice(i, i + 256)
        allowed = catalogue(territories[some], np.full((len(query[some]), 1), ""))
        found = index(query[some], np.full(len(query[some]), min(k, catalogue.num_titles), "int32"), allowed)
        ranked.append(np.where(np.isfinite(found["scores"]), found["index"], -1))
    rows = {title: row for row, title in enumerate(catalogue.title_index.get_vocabulary()[1:])}
    titles = np.array([rows[title] for title in positives["title"].to_pylist()])
    list_of = np.full(len(users), -1)
    list_of[user_of_row[kept]] = np.arange(len(kept))
    held_out = list_of[user_of_row] >= 0
    held_out_by, ranked = list_of[user_of_row[held_out]], np.concatenate(ranked)
    return recall_at_k(Lists(ranked, territories, held_out_by, titles[held_out], num_titles=catalogue.num_titles))
