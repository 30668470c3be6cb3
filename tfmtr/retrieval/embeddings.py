"""Users' and titles' vectors as Parquet, for a vector database or a store beside the server."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfmtr import inputs
from tfmtr.checks import check_path
from tfmtr.datasets.dataset import Dataset
from tfmtr.documents import read_facts, read_json, write_json
from tfmtr.evaluation.past import Past
from tfmtr.retrieval.index import column, title_vectors
from tfmtr.run import Run, versions
from tfmtr.scratch import scratch, sweep

BATCH = 8192
MANIFEST = "manifest.json"


def write_embeddings(
    run: str | os.PathLike, out: str | os.PathLike, *, data: str | os.PathLike | None = None
) -> dict[str, Any]:
    """Writes the vectors of all users and titles of a prepared directory under a run's newest model.

        out/titles.parquet          title, vector, and a digest of what it was computed from
        out/users/part-0000.parquet user, the scenario's columns, vector, vector_<task> where there are several tasks
        out/manifest.json           which model and data they are of, widths, counts, and each task's bias and weight

    `<user's vector_<task>, title's vector> + bias` is the task's logit; `vector` is the sum of the tasks' vectors, each
    times its weight, as in the signature `recommend`. Where the run has a list model (`"is_ordered"` in the manifest),
    vectors are longer: `vector` orders titles as lists are ordered, and there is a vector of each task, however many
    there are. All is there at once or not at all; users are streamed.

    Args:
        run: Run directory made by `tfmtr train`.
        out: Directory to write; must be new.
        data: Directory made by `tfmtr prepare`; what the run was trained on by default.

    Returns:
        The manifest, a dictionary.

    Raises:
        ValueError: If `out` exists, or `run` or `data` is not what it must be.
    """
    run, out = Run(run), check_path("out", out)
    data, document = run.data if data is None else Dataset(data), run.document
    place = (out.parent, f"tmp-{out.name}-")
    sweep(*place)
    if out.exists():
        raise ValueError(f"`out` must be a new directory; vectors of two models must not meet. Received: {out}")
    model, schema = run.load(form="two_tower"), run.schema
    with scratch(*place) as folder:
        staging = folder / "vectors"
        (staging / "users").mkdir(parents=True)
        titles, order = title_vectors(model, data, schema), run.list_model
        past = None if order is None else Past(data)
        scorer = None if past is None else order.as_of(data, past, data.next_window)
        if scorer is not None:
            titles = titles._replace(vectors=scorer.join_titles(titles.vectors))
        titles.save(staging / "titles.parquet")
        weights = {task.name: task.weight for task in schema.tasks}
        stores, count = inputs.open_stores(data), 0
        for part, table in enumerate(inputs.read_tables([data.path / "users.parquet"], rows=BATCH)):
            features = inputs.model_inputs(inputs.with_unknown_context(table, schema), schema, stores)
            queries = model.user_tower.predict_on_batch({name: features[name] for name in model.user_tower.input})
            queries = {name: np.asarray(query, np.float32) for name, query in queries.items()}
            columns = {name: table[name] for name in ("user", *schema.scenario.columns) if name in table.column_names}
            vector = np.asarray(sum(weights.get(name, 1.0) * query for name, query in queries.items()))
            if scorer is not None:
                user_queries = scorer.queries_of(past, past.numbers(table["user"]), data.next_window)  # pyright: ignore[reportArgumentType]
                vector, rest = scorer.join_queries(vector, user_queries), np.zeros_like(user_queries)
                queries = {name: np.hstack([query, rest]) for name, query in queries.items()}
            columns["vector"] = column(vector)
            if len(queries) > 1 or scorer is not None:
                columns |= {f"vector_{name}": column(query) for name, query in queries.items()}
            pq.write_table(pa.table(columns), staging / "users" / f"part-{part:04d}.parquet")
            count += len(table)
        manifest = {
            "run_id": document["run_id"],
            "fingerprint": data.report["fingerprint"],
            "width": int(titles.vectors.shape[1]),
            "titles": len(titles.ids),
            "users": count,
            "biases": model.biases,
            "weights": weights,
            "is_ordered": scorer is not None,
            "versions": versions(),
        }
        write_json(staging / MANIFEST, manifest)
        staging.rename(out)
        return manifest


def check_same_model(embeddings: str | os.PathLike, version: str | os.PathLike) -> None:
    """Raises unless vectors are of the model that an exported version serves.

    Args:
        embeddings: Directory made by `write_embeddings`.
        version: Directory of the version.

    Raises:
        ValueError: If they are of two runs: a user's vector means nothing to another model's titles.
    """
    run_id = read_json(Path(embeddings) / MANIFEST)["run_id"]
    served = read_facts(Path(version))["run_id"]
    if run_id != served:
        raise ValueError(
            "vectors and served model must be of one run; write the vectors again or serve the model that they are of. "
            f"Received: {embeddings} of run {run_id}, {version} of run {served}"
        )
