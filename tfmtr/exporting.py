"""A run and its titles as one SavedModel version, as TF Serving mounts it."""

# There is one archive of Keras for each backend:
# pyright: reportAttributeAccessIssue=false

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from tfmtr import components
from tfmtr.backends import check_tensorflow
from tfmtr.checks import check_integer, check_number, check_path
from tfmtr.documents import read_facts, write_json
from tfmtr.encoders.graph_names import graph
from tfmtr.encoders.raw import look_up, raw_inputs
from tfmtr.encoders.unknown import unknown_values
from tfmtr.export_sources import Ranker, Source, check_finite
from tfmtr.folders import FORMATS, check_out
from tfmtr.listwise.layer import ListQuery
from tfmtr.models import JointModel
from tfmtr.names import SCENARIO
from tfmtr.private_names import saved_object, untrack_layers
from tfmtr.retrieval.index import FOLDER, TitleVectors, build_index, title_vectors
from tfmtr.retrieval.recommender import Recommender
from tfmtr.retrieval.second_stage import CANDIDATES, SecondStage
from tfmtr.scratch import scratch
from tfmtr.serving.deploy_kit import foreign_operations
from tfmtr.serving.versions import find_versions
from tfmtr.signatures._signature import Served, Signature, functions_of, signatures_of
from tfmtr.version import RANKING, Version

SCORES = "serving_default"  # the signature of an export that has scores


def export(
    run: str | os.PathLike | JointModel,
    out: str | os.PathLike,
    *,
    titles: str | os.PathLike | None = None,
    index: str = "exact",
    signatures: Sequence[str] = (),
    ranking: str | os.PathLike | None = None,
    candidates: int = CANDIDATES,
    first_weight: float | None = None,
) -> Version:
    """Exports the newest model of a run together with the index of all titles, as one version.

    Signatures take raw values (text, numbers, vectors) with the features' own names. Each is a file of
    `tfmtr/signatures/`, which says what it takes and gives: `serving_default` (the tasks' probabilities of users and
    titles, row by row), `user_embedding`, `title_embedding`, `recommend` and `recommend_by_vector`; and what installed
    packages name among their entry points `tfmtr.signatures`. One with inputs that may be left out is there once more
    without them, as `recommend_batch`: so servers can run requests of any number of rows together.

    With `ranking` the version has two stages: the index finds candidates, and a ranking model orders them by several
    tasks; `rank` ranks titles that a client names, and `serving_default` has the ranking model's probabilities.

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
        signatures: Signatures beside those that are found by name: import paths of functions like those of
            `tfmtr/signatures/`.
        ranking: Run directory of a ranking model, which orders what the index finds; by default nothing does.
        candidates: How many titles the index finds for it.
        first_weight: Of the index's score in the final one; by default what validation users' lists are best with,
            which `evaluate` of both runs has found, or is found here; 1 where nothing can be.

    Returns:
        The `Version`, `out/<number>`.

    Raises:
        ValueError: If `run` is no finished run, `titles` no prepared directory, without a feature that the model needs
            or with vectors that mean something else; or if there is no such index or signature, or a signature of
            `signatures` needs what the export does not have; or if `ranking` is no finished run of a ranking model,
            has another form of a column that both models read, or needs a feature that the titles do not have.
    """
    check_integer("candidates", candidates, least=1)
    stages = {"ranking": ranking, "candidates": candidates}
    stages["first_weight"] = None if first_weight is None else check_number("first_weight", first_weight)
    return _export(run, out, titles, index, signatures, has_scores=True, **stages)


def export_index(
    run: str | os.PathLike,
    out: str | os.PathLike,
    *,
    titles: str | os.PathLike | None = None,
    index: str = "exact",
    signatures: Sequence[str] = (),
) -> Version:
    """Exports the index of all titles with the towers, as `export` does, but without `serving_default`.

    So the day's titles are served beside a scoring model that stays as it is.

    Args:
        run: Run directory made by `tfmtr train`.
        out: Directory of the index, for example `saved_models/index`.
        titles: As for `export`.
        index: As for `export`.
        signatures: As for `export`; those that need `score` cannot be had.

    Returns, Raises: As `export`.
    """
    return _export(run, out, titles, index, signatures, has_scores=False)


def _export(
    run: str | os.PathLike | JointModel,
    out: str | os.PathLike,
    titles: str | os.PathLike | None,
    kind: str,
    signatures: Sequence[str],
    *,
    has_scores: bool,
    ranking: str | os.PathLike | None = None,
    candidates: int = CANDIDATES,
    first_weight: float | None = None,
) -> Version:
    check_tensorflow("An export", "export in a process of its own: weights are the same on every backend")
    components.find(FOLDER, kind)
    functions_of(signatures)
    out = check_path("out", out)
    check_out(out)
    source = Source.of(run, titles)
    check_finite("run", source.model)
    ranker = None if ranking is None else Ranker.of(ranking, source)
    vectors = title_vectors(source.model, source.titles, source.schema, _known(out, source.facts["run_id"]))
    with scratch(out, "tmp-") as folder:
        staging, file = folder / "version", folder / "vectors.float32"
        scorer = source.scorer()
        options = {"vectors": vectors, "scorer": scorer, "kind": kind, "file": file}
        index = build_index(source.model, source.titles, source.schema, **options)
        order = None if scorer is None else ListQuery(scorer, index.catalogue.title_index)
        second, chosen = None, {"weight": 0.0 if first_weight is None else first_weight}
        if ranker is not None:
            chosen = ranker.choose_first_weight(source, candidates) if first_weight is None else chosen
            second = ranker.second_stage(source, candidates, chosen["weight"])
        archive, all_signatures = _archive(
            source, index, order, signatures, has_scores=has_scores, second=second, ranker=ranker
        )
        archive.write_out(str(staging), verbose=False)
        operations = _add_defaults(staging, all_signatures)
        extra = staging / "assets.extra"
        extra.mkdir()
        source.schema.save(extra)
        vectors.save(extra / "titles.parquet")
        facts = {
            "format": FORMATS["version"],
            **source.facts,
            "new_titles": vectors.num_new,
            "titles_fingerprint": source.titles.report["fingerprint"],
            "titles": index.catalogue.num_titles,
            "biases": source.model.biases,
            "index": kind,
            "is_ordered": scorer is not None,
        }
        if ranker is not None:
            (extra / RANKING).mkdir()
            ranker.run.schema.save(extra / RANKING)
            facts["ranking"] = {**ranker.facts, "candidates": candidates, "first_stage": chosen}
        if operations:
            facts["needs"] = f"an image of TensorFlow Serving with ScaNN's operations ({', '.join(operations)})"
        write_json(extra / "tfmtr.json", facts)
        return Version(publish(staging, out))


def _known(out: Path, run_id: str) -> TitleVectors | None:
    """Titles' vectors of the newest version, if it is of the same run."""
    versions, _ = find_versions(out)
    if not versions or not (versions[max(versions)] / "assets.extra" / "titles.parquet").exists():
        return None
    extra = versions[max(versions)] / "assets.extra"
    is_same = read_facts(versions[max(versions)])["run_id"] == run_id
    return TitleVectors.load(extra / "titles.parquet") if is_same else None


def _archive(
    source: Source,
    index: Any,
    order: ListQuery | None,
    more: Sequence[str],
    *,
    has_scores: bool,
    second: SecondStage | None = None,
    ranker: Ranker | None = None,
) -> tuple[Any, dict[str, Signature]]:
    """The Keras `ExportArchive` of a source and its `{name: Signature}`."""
    model, schema = source.model, source.schema
    users = raw_inputs(schema, "user", "context", scenario=True)
    titles = raw_inputs(schema, "title")
    encoded_users = look_up(users, schema, "user", "context", scenario=True)
    encoded_titles = look_up(titles, schema, "title")
    parts = {
        "user": graph(users, model.user_tower(encoded_users)),
        "title": graph(titles, model.title_tower(encoded_titles)),
        "scenario": graph(users, keras.ops.reshape(encoded_users[SCENARIO], (-1, 1))),
        "recommender": Recommender(
            index,
            outputs=model.head.outputs,
            biases=model.biases,
            names=model.predictor.output if second is None else second.names,
            order=order,
            second=second,
            unknown=unknown_values([schema] if ranker is None else [schema, ranker.run.schema]),
        ),
    }
    rows = {**users, **titles}
    if ranker is not None and second is not None:
        parts["ranker"] = second
        rows, parts["score"] = ranker.rows()
    elif has_scores:
        raw, encoded = {**users, **titles}, {**encoded_users, **encoded_titles}
        parts["score"] = graph(raw, source.outputs(raw, encoded))
    signatures = signatures_of(Served(schema, source.facts["run_id"], users, titles, rows), parts, more)
    archive = keras.export.ExportArchive()
    for part in parts.values():
        archive.track(part)
    # Keras would look for the tables among all that layers are saved with, and trace each part again for that.
    saved = saved_object(archive)
    saved.tables = lookup_tables(parts.values())
    untrack_layers(archive)
    # It takes variables and tables from layers; a streaming index also has a file.
    saved.file = getattr(index, "file", None)
    for name, signature in signatures.items():
        archive.add_endpoint(name, signature.function, [dict(signature.inputs)])
        # TensorFlow traces functions anew while it saves them, but not what is one trace already.
        trace = getattr(saved, name).get_concrete_function()
        setattr(saved, name, trace)
    return archive, signatures


def lookup_tables(layers: Iterable[keras.layers.Layer]) -> list[Any]:
    """The tables of layers, which are saved with functions that look something up in them."""
    trackables = [each for layer in layers for each in tf.train.TrackableView(layer).descendants()]
    return [each for each in trackables if isinstance(each, tf.saved_model.experimental.TrackableResource)]


def _add_defaults(version: Path, signatures: Mapping[str, Signature]) -> list[str]:
    """Lets clients leave out what has a default, one by one or all; returns custom operations of the graph."""
    file = version / "saved_model.pb"
    saved_model = SavedModel.FromString(file.read_bytes())
    saved = saved_model.meta_graphs[0].signature_def
    for signature, made in signatures.items():
        defaults = {name: tf.make_tensor_proto(value, spec.dtype) for name, (spec, value) in made.defaults.items()}
        for name in defaults.keys() - set(made.context):
            saved[signature].defaults[name].CopyFrom(defaults[name])
        if made.defaults and f"{signature}_batch" not in saved:
            add_batch_signature(saved_model.meta_graphs[0], signature)
        for name in made.context:  # which requests of several users have, a row each
            saved[signature].defaults[name].CopyFrom(defaults[name])
    if SCORES not in signatures:
        del saved[SCORES]  # Keras's name for the first endpoint
    file.write_bytes(saved_model.SerializeToString())
    return sorted(foreign_operations(saved_model))


def add_batch_signature(meta_graph: MetaGraphDef, name: str) -> None:
    """Adds the signature `<name>_batch`: as `name`, without the inputs that have a default.

    A batch takes requests whose inputs have equally many rows, and a default that is sent along has one. Here the
    defaults are constants of the graph, beside a second call of the same function, so that nothing is traced again.
    """
    signature, nodes = meta_graph.signature_def[name], meta_graph.graph_def.node
    constants = {}  # {placeholder: constant}
    for option, value in signature.defaults.items():
        constant = nodes.add(name=f"batch/{name}/{option}", op="Const")
        constant.attr["dtype"].type = value.dtype
        constant.attr["value"].tensor.CopyFrom(value)
        constants[signature.inputs[option].name.partition(":")[0]] = constant.name
    (called,) = {info.name.partition(":")[0] for info in signature.outputs.values()}
    call = nodes.add()
    call.CopyFrom(next(node for node in nodes if node.name == called))
    call.name, found = f"batch/{name}/call", [constants.get(given.partition(":")[0], given) for given in call.input]
    call.ClearField("input")
    call.input.extend(found)
    batch = meta_graph.signature_def[f"{name}_batch"]
    batch.CopyFrom(signature)
    for option in signature.defaults:
        del batch.inputs[option]
    batch.ClearField("defaults")
    for info in batch.outputs.values():
        info.name = f"{call.name}:{info.name.partition(':')[2]}"


def publish(staging: Path, out: Path) -> Path:
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
