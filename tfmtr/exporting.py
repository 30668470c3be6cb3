"""A run and its titles as one SavedModel version, as TF Serving mounts it."""

# There is one archive of Keras for each backend:
# pyright: reportAttributeAccessIssue=false

import hashlib
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from tfmtr import components
from tfmtr.backends import check_tensorflow
from tfmtr.calibration import calibrated_outputs
from tfmtr.datasets.dataset import Dataset
from tfmtr.datasets.drift import changed_vectors
from tfmtr.diagnosis import not_finite
from tfmtr.documents import read_facts, write_json
from tfmtr.encoders.graph_names import name_apart
from tfmtr.encoders.raw import look_up, raw_inputs
from tfmtr.folders import FORMATS, check_out
from tfmtr.models import JointModel, TwoTower
from tfmtr.names import MODEL, QUERY, SCENARIO, weight_name
from tfmtr.retrieval.index import FOLDER, TitleVectors, build_index, title_vectors
from tfmtr.retrieval.recommender import OPTIONS, RANK_BY, REQUEST, Recommender, repeat
from tfmtr.run import Run, versions
from tfmtr.schema import check_inputs
from tfmtr.scratch import scratch
from tfmtr.serving.deploy_kit import foreign_operations
from tfmtr.serving.versions import find_versions
from tfmtr.version import Version


def export(
    run: str | os.PathLike | JointModel,
    out: str | os.PathLike,
    *,
    titles: str | os.PathLike | None = None,
    index: str = "exact",
) -> Version:
    """Exports the newest model of a run together with the index of all titles, as one version.

    Signatures, all of raw values (text, numbers, vectors) with the features' own names:

    * `serving_default`: features of users and titles, row by row -> the tasks' probabilities, by name, calibrated if
      the run is (`tfmtr calibrate`).
    * `user_embedding`: user features -> query vector of each task; `<query, title> + bias` is the logit; and `model`,
      the run that it is of.
    * `title_embedding`: title features -> `title_embedding`, shape `(batch, d)`.
    * `recommend`: user features, `request_territory`, `seen` (batch, n), `k` (batch,) -> `titles`, `scores`, `count`,
      `is_exact`, `fallback` (see `tfmtr.retrieval.recommender.Recommender`). The user's own territory selects the
      branch, the request's the catalogue. The query is the sum of the tasks' queries, each times `weight_<task>`, by
      default the task's weight. A client may leave out these weights, `allow`, `where`, `diversity` and `rank_by`.
    * `recommend_by_vector`: the same from a `query` of shape (batch, d), without weights and `rank_by`; with `model`, a
      vector of another run is an error.

    The version is the next integer in `out`. It is written under a name that no watcher takes for a version
    and renamed when it is whole. `assets.extra/` holds `schema.json`, `tfmtr.json` (run, fingerprint, biases,
    versions, kind of the index, what it needs to be served) and `titles.parquet`, the titles' vectors. If the newest
    version in `out` is of the same run, only vectors of titles that are new or have changed are computed: that is how
    the titles of the day get into the index.

    Args:
        run: Run directory made by `tfmtr train`; or a two-tower model that was trained by hand.
        out: Directory of the model, for example `saved_models/two_tower`.
        titles: Directory made by `tfmtr prepare`, whose titles and availability the index serves; what the run was
            trained on by default, which a model does not know.
        index: A file of `tfmtr/retrieval/indexes/`: `exact`; `streaming`, whose vectors stay in a file; or `scann`,
            approximate, with custom operations. Or the import path of a function like theirs.

    Returns:
        The `Version`, `out/<number>`.

    Raises:
        ValueError: If `run` is no finished run, `titles` no prepared directory, without a feature that the model needs
            or with vectors that mean something else; or if there is no such index.
    """
    return _export(run, out, titles, index, has_scores=True)


def export_index(
    run: str | os.PathLike,
    out: str | os.PathLike,
    *,
    titles: str | os.PathLike | None = None,
    index: str = "exact",
) -> Version:
    """Exports the index of all titles with the towers, as `export` does, but without `serving_default`.

    So the day's titles are served beside a scoring model that stays as it is.

    Args:
        run: Run directory made by `tfmtr train`.
        out: Directory of the index, for example `saved_models/index`.
        titles: As for `export`.
        index: As for `export`.

    Returns, Raises: As `export`.
    """
    return _export(run, out, titles, index, has_scores=False)


def _export(run, out, titles, kind, *, has_scores):
    check_tensorflow("An export", "export in a process of its own: weights are the same on every backend")
    components.find(FOLDER, kind)
    out = Path(out)
    check_out(out)
    if isinstance(run, JointModel):
        model, document, schema, titles = _of_model(run, titles)
        run = None
    else:
        run = Run(run)
        model, document, schema = run.load(form="two_tower"), run.document, run.schema
        titles = run.data if titles is None else Dataset(titles)
    _check_finite(model)
    check_inputs(schema.by_role("title"), titles.schema.by_role("title"), "titles")
    if run is not None:
        _check_meaning(run, document, titles)
    vectors = title_vectors(model, titles, schema, _known(out, document["run_id"]))
    with scratch(out, "tmp-") as folder:
        staging, file = folder / "version", folder / "vectors.float32"
        index = build_index(model, titles, schema, vectors=vectors, kind=kind, file=file)
        archive, optional = _archive(run, model, index, schema, document["run_id"], has_scores=has_scores)
        archive.write_out(str(staging), verbose=False)
        operations = _add_defaults(staging, optional, has_scores=has_scores)
        extra = staging / "assets.extra"
        extra.mkdir()
        schema.save(extra)
        vectors.save(extra / "titles.parquet")
        facts: dict[str, Any] = {"format": FORMATS["version"]}
        facts |= {key: document[key] for key in ("run_id", "fingerprint", "recipe", "versions")}
        facts |= {
            "new_titles": vectors.num_new,
            "titles_fingerprint": titles.report["fingerprint"],
            "titles": index.catalogue.num_titles,
            "biases": model.biases,
            "index": kind,
        }
        if operations:
            facts["needs"] = f"an image of TensorFlow Serving with ScaNN's operations ({', '.join(operations)})"
        write_json(extra / "tfmtr.json", facts)
        return Version(publish(staging, out))


def _check_finite(model):
    """Raises a `ValueError` if a model has a variable that is not finite: all that it serves would be NaN."""
    if bad := not_finite(model.variables):
        raise ValueError(
            "`run` must be a model whose variables are finite; train it with a lower learning rate, or look at the "
            f"data. Received: NaN or infinity in {len(bad)} of {len(model.variables)} variables, the first one {bad[0]}"
        )


def _of_model(model, titles):
    """`(model, document, schema, titles)` of a model that was trained by hand: it is known by its weights."""
    if not isinstance(model, TwoTower):
        raise ValueError(
            "`run` must be a two-tower model, or a run, for an index of titles; `model.export` exports what any joint "
            f"model serves. Received: a model of the class {type(model).__name__}"
        )
    if titles is None:
        raise ValueError("`titles` must name a prepared directory where the model is of no run. Received: titles=None")
    titles, weights = Dataset(titles), hashlib.sha256()
    for variable in model.variables:
        weights.update(np.asarray(variable).tobytes())
    document = {
        "run_id": f"by-hand-{weights.hexdigest()[:16]}",
        "fingerprint": titles.report["fingerprint"],
        "recipe": None,
        "versions": versions(),
    }
    return model, document, model.schema, titles


def _check_meaning(run, document, titles):
    """Raises a `ValueError` if titles that did not change have other vectors than in the run's data, where these are.

    Vectors of another store or fit have the same width, and mean something else.
    """
    if titles.report["fingerprint"] == document["fingerprint"]:
        return
    try:
        before = run.data
    except ValueError:
        return
    compared, changed = changed_vectors(titles, before)
    if 2 * changed > compared:
        raise ValueError(
            "`titles` must have the vectors of the model's data for titles that did not change; take the same store, "
            f"or prepare with --like {before.path}. Received: {titles.path}, where {changed} of {compared} have others"
        )


def _known(out, run_id):
    """Titles' vectors of the newest version, if it is of the same run."""
    versions, _ = find_versions(out)
    if not versions or not (versions[max(versions)] / "assets.extra" / "titles.parquet").exists():
        return None
    extra = versions[max(versions)] / "assets.extra"
    is_same = read_facts(versions[max(versions)])["run_id"] == run_id
    return TitleVectors.load(extra / "titles.parquet") if is_same else None


def _archive(run, model, index, schema, run_id, *, has_scores):
    users = raw_inputs(schema, "user", "context", scenario=True)
    titles = raw_inputs(schema, "title")
    encoded_users = look_up(users, schema, "user", "context", scenario=True)
    encoded_titles = look_up(titles, schema, "title")
    raw, encoded = {**users, **titles}, {**encoded_users, **encoded_titles}
    user = graph(users, model.user_tower(encoded_users))
    title = graph(titles, model.title_tower(encoded_titles))
    scenario = graph(users, keras.ops.reshape(encoded_users[SCENARIO], (-1, 1)))
    weights = {weight_name(task.name): task.weight for task in schema.tasks if task.name in user.output}
    recommender = Recommender(index, outputs=model.head.outputs, biases=model.biases, names=model.predictor.output)

    def recommend(request):
        raw = {name: request[name] for name in users}
        queries, batch = user(raw), tf.shape(request["k"])[0]
        query = tf.add_n(
            [
                repeat(request[weight_name(t)], batch)[:, None] * q if weight_name(t) in weights else q
                for t, q in queries.items()
            ]
        )
        return recommender(query, request, queries, is_cold(request, schema), scenario(raw)[:, 0] == 0)

    def recommend_by_vector(request):
        known = tf.reduce_all((request[MODEL] == "") | (request[MODEL] == run_id))
        text = f"`{MODEL}` must be {run_id}: a vector of another model means nothing to these titles."
        with tf.control_dependencies([tf.debugging.Assert(known, [text, request[MODEL]])]):
            return recommender(tf.identity(request[QUERY]), request)

    def user_embedding(raw):
        queries = user(raw)
        batch = tf.shape(next(iter(queries.values())))[:1]
        return {**queries, MODEL: tf.fill(batch, run_id)}

    def specs(raw):
        return {name: tf.TensorSpec(value.shape, value.dtype, name=name) for name, value in raw.items()}

    options = OPTIONS | RANK_BY | {name: (tf.TensorSpec([None], tf.float32), [w]) for name, w in weights.items()}
    by_user = {**specs(users), **specs(REQUEST), **specs({name: spec for name, (spec, _) in options.items()})}
    by_vector = specs({QUERY: tf.TensorSpec([None, title.output.shape[1]], tf.float32), **REQUEST})
    vector_options = OPTIONS | {MODEL: (tf.TensorSpec([None], tf.string), [""])}
    by_vector |= specs({name: spec for name, (spec, _) in vector_options.items()})
    archive = keras.export.ExportArchive()
    for part in (user, title, scenario, recommender):
        archive.track(part)
    # Keras takes variables and tables from layers; a streaming index also has a file.
    archive._tf_trackable.file = getattr(index, "file", None)
    if has_scores:
        outputs = model.predictor(encoded)
        score = graph(raw, outputs if run is None else calibrated_outputs(run, outputs, raw, encoded, schema))
        archive.track(score)
        archive.add_endpoint("serving_default", lambda raw: score(raw), [specs({**users, **titles})])
    archive.add_endpoint("user_embedding", user_embedding, [specs(users)])
    archive.add_endpoint("title_embedding", lambda raw: {"title_embedding": title(raw)}, [specs(titles)])
    archive.add_endpoint("recommend", recommend, [by_user])
    archive.add_endpoint("recommend_by_vector", recommend_by_vector, [by_vector])
    return archive, {"recommend": options, "recommend_by_vector": vector_options}


def graph(inputs, outputs):
    """The Keras model between inputs that features name as they like and outputs."""
    name_apart(inputs, outputs)
    return keras.Model(inputs, outputs)


def is_cold(request, schema):
    """Of whom no taste is known, boolean of shape `(batch,)`: a zero vector, empty sets and sequences.

    Args:
        request: `{column: tensor}` of raw values.
        schema: The `Schema`.

    Returns:
        A tensor, or `None` where users have no such feature: the model knows all users equally.
    """
    features = [f for f in schema.by_role("user") if f.kind in ("vector", "set", "sequence")]
    known = [tf.reduce_any(request[f.name] != (0.0 if f.kind == "vector" else ""), axis=1) for f in features]
    return ~tf.reduce_any(tf.stack(known), axis=0) if known else None


def _add_defaults(version, optional, *, has_scores):
    """Lets clients leave out what has a default, `{signature: {input: (spec, value)}}`; returns custom operations."""
    file = version / "saved_model.pb"
    saved_model = SavedModel.FromString(file.read_bytes())
    for signature, options in optional.items():
        defaults = saved_model.meta_graphs[0].signature_def[signature].defaults
        for name, (spec, value) in options.items():
            defaults[name].CopyFrom(tf.make_tensor_proto(value, spec.dtype))
    if not has_scores:
        del saved_model.meta_graphs[0].signature_def["serving_default"]  # Keras's name for the first endpoint
    file.write_bytes(saved_model.SerializeToString())
    return sorted(foreign_operations(saved_model))


def publish(staging, out):
    """Renames a whole version, on `out`'s file system, to the next free integer; returns its path."""
    while True:
        versions, _ = find_versions(out)
        target = out / str(max(versions, default=0) + 1)
        try:
            staging.rename(target)
            return target
        except OSError:
            if not target.exists():
                raise  # else: another export took this number first
