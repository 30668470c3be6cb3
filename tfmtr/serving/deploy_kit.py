"""Everything that TensorFlow Serving on a GPU needs beside the model: configurations, manifests, clients, warm-up."""

import json
import os
import re
import string
import warnings
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow_serving.apis.predict_pb2 import PredictRequest  # pyright: ignore[reportAttributeAccessIssue]

from tfmtr.documents import read_facts
from tfmtr.private_names import is_operation
from tfmtr.serving.errors import ServerError
from tfmtr.serving.session import SavedModelSession
from tfmtr.serving.versions import find_versions
from tfmtr.serving.warmup import replay, write_warm_up

IMAGE_VERSION = "2.20.0"
SCORE_BYTES = 512 * 2**20  # of one batch's scores of all titles, and as much again for its top k
PAIRS = 2**16  # of a user and a candidate that a ranking model has at once
MAX_NAME_BYTES = 255  # of a directory in the container
YAML_WORDS = ("null", "true", "false", "yes", "no", "on", "off", "y", "n")  # which are no text there
NO_REQUEST = "__saved_model_init_op"
FOREIGN_PACKAGES = ("Scann", "Addons")  # a library that is loaded in this process may have registered theirs
TEMPLATES = resources.files("tfmtr.serving") / "deployment"


def deploy_kit(model: str | os.PathLike, out: str | os.PathLike, *, name: str | None = None) -> list[str]:
    """Writes the files that serve an exported model with the official GPU image, and warm-up requests into its version.

    Args:
        model: Directory of the model's versions, made by `tfmtr export`.
        out: Directory to write; files of the same names are replaced.
        name: Name that clients ask for, by default the directory's: text without a slash and control characters.

    Returns:
        Paths of the files, relative to `out`.

    Warns:
        UserWarning: If a signature does not answer its warm-up request, and so has none: a version whose warm-up fails
            is not served.

    Raises:
        ValueError: If `model` has no version, or one whose graph needs operations that the image does not have; or if
            `name` cannot be one.
    """
    model, out = Path(model).resolve(), Path(out)
    version, name = newest_version(model), check_name(model.name if name is None else name)
    saved_model = SavedModel.FromString((version / "saved_model.pb").read_bytes())
    foreign = foreign_operations(saved_model)
    if foreign:
        raise ValueError(
            "the stock image of TensorFlow Serving lacks operations of this graph; serve it with an image that has "
            f"them. Received: {sorted(foreign)} in {version}"
        )
    signatures = saved_model.meta_graphs[0].signature_def
    facts = read_facts(version) or {"titles": 0}
    titles, candidates = facts["titles"], facts.get("ranking", {}).get("candidates", 1)
    size, k = batch_size(titles, candidates), min(10, titles or 10)
    warm, cold = answerable(version, warm_up_requests(name, signatures, size, k))
    write_warm_up(warm, version)
    for signature, reason in cold.items():
        warnings.warn(
            f"the signature {signature!r} has no warm-up requests: it does not answer one of zeros and empty text "
            f"({reason})",
            stacklevel=2,
        )
    signature = "recommend" if "recommend" in signatures else "serving_default"
    row = {alias: value[0] for alias, value in example_inputs(signatures[signature], k=k).items()}
    bytes_on_disk = sum(file.stat().st_size for file in version.rglob("*") if file.is_file())
    values = {
        "model": name,
        "model_quoted": _quoted(name),
        "model_mount": _quoted(f"/models/{name}"),
        "compose_folder": _quoted(str(model)).replace("$", "$$"),  # Compose fills in variables
        "compose_mount": _quoted(f"/models/{name}").replace("$", "$$"),
        "model_path": quote(name, safe=""),
        "model_repr": repr(name),
        "signature_repr": repr(signature),
        "dtypes_repr": repr({alias: tf.as_dtype(i.dtype).name for alias, i in signatures[signature].inputs.items()}),
        "model_folder": str(model),
        "service": service_name(name),
        "version": version.name,
        "image_version": IMAGE_VERSION,
        "max_batch_size": size,
        "allowed_batch_sizes": "\n".join(f"allowed_batch_sizes: {n}" for n in batch_sizes(size)),
        "storage": f"{1 + 4 * bytes_on_disk // 2**30}Gi",
        "memory": f"{4 + 3 * bytes_on_disk // 2**30}Gi",
    }
    files = {"request.json": _json({"signature_name": signature, "instances": [row]})}
    for file in ("model.config", "batching.config", "monitoring.config"):
        files[f"config/{file}"] = fill(file, values)
        values[file.replace(".", "_")] = "\n".join("    " + line for line in files[f"config/{file}"].splitlines())
    for file in ("docker-compose.yml", "kubernetes.yaml", "client.py", "client.sh", "load_test.py", "README.md"):
        files[file] = fill(file, values)
    for file, text in files.items():
        (out / file).parent.mkdir(parents=True, exist_ok=True)
        (out / file).write_text(text, encoding="utf-8")
    return sorted(files)


def check_name(name: str) -> str:
    """The name of a model, which is also that of a directory in the container.

    Raises:
        ValueError: If it cannot be one.
    """
    is_name = isinstance(name, str) and name not in ("", ".", "..") and "/" not in name and name.isprintable()
    if not is_name or len(name.encode()) > MAX_NAME_BYTES:
        raise ValueError(
            f"`name` must be text without a slash and control characters, of at most {MAX_NAME_BYTES} bytes, and "
            f"neither empty nor `.` or `..`. Received: name={name!r}"
        )
    return name


def service_name(name: str) -> str:
    """What Compose and Kubernetes call the service of a model: small letters, digits and dashes, a letter first.

    Example:
    >>> [service_name(name) for name in ("Two Tower", "2tower", "null", "é")]
    ['two-tower', 'model-2tower', 'model-null', 'model']
    """
    label = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")[:48].rstrip("-")
    if not label:
        return "model"
    is_plain = label[0].isalpha() and label not in YAML_WORDS
    return label if is_plain else f"model-{label}"


def fill(file: str, values: Mapping[str, Any]) -> str:
    """Text of a template, its `$name`s replaced."""
    return string.Template((TEMPLATES / f"{file}.template").read_text(encoding="utf-8")).substitute(values)


def newest_version(model: str | os.PathLike) -> Path:
    """Directory of the largest version.

    Raises:
        ValueError: If there is none.
    """
    by_number, _ = find_versions(Path(model))
    versions = {number: path for number, path in by_number.items() if (path / "saved_model.pb").exists()}
    if not versions:
        raise ValueError(f"`model` must hold <integer version>/saved_model.pb; export one there. Received: {model}")
    return versions[max(versions)]


def foreign_operations(saved_model: SavedModel) -> set[str]:
    """Names of the operations of a `SavedModel` that stock TensorFlow does not have."""
    operations = set()
    for meta_graph in saved_model.meta_graphs:
        graph = meta_graph.graph_def
        for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
            operations |= {node.op for node in nodes}
        operations -= {function.signature.name for function in graph.library.function}
    return {op for op in operations if not is_operation(op) or op.partition(">")[0] in FOREIGN_PACKAGES}


def batch_size(titles: int, candidates: int = 1) -> int:
    """Most rows of one run: as many as there is memory for, a power of two in [16, 1024].

    Args:
        titles: Of which a row has the scores.
        candidates: Which a second stage ranks for each row.
    """
    rows = min(SCORE_BYTES // (4 * max(titles, 1)), PAIRS // candidates)
    return int(min(1024, max(16, 2 ** int(np.log2(max(rows, 1))))))


def batch_sizes(largest: int) -> list[int]:
    """Sizes that batches are padded to, so that the graph meets few shapes."""
    return [2**i for i in range(3, int(np.log2(largest)) + 1)]


def example_inputs(signature: SignatureDef, rows: int = 1, k: int = 10) -> dict[str, np.ndarray]:
    """Arrays that a signature takes: an unknown user, an unknown title, `k` results, and defaults."""
    arrays = {}
    for alias, info in signature.inputs.items():
        shape = [rows if i == 0 else max(dim.size, 1) for i, dim in enumerate(info.tensor_shape.dim)]
        dtype = tf.as_dtype(info.dtype)
        if alias in signature.defaults:
            value = tf.make_ndarray(signature.defaults[alias])
            if dtype == tf.string:
                value = np.asarray([text.decode() for text in value.ravel()], object).reshape(value.shape)
            arrays[alias] = np.repeat(value, rows, axis=0)
        elif dtype == tf.string:
            arrays[alias] = np.full(shape, "", object)
        else:
            arrays[alias] = np.full(shape, k if alias == "k" else 0, dtype.as_numpy_dtype)
    return arrays


def warm_up_requests(
    name: str, signatures: Mapping[str, SignatureDef], largest: int, k: int = 10
) -> list[PredictRequest]:
    """A `PredictRequest` for every signature, for one row and for each batch size."""
    requests = []
    for signature in sorted(set(signatures) - {NO_REQUEST}):
        for rows in sorted({1, *batch_sizes(largest)}):
            request = PredictRequest(model_spec={"name": name, "signature_name": signature})
            for alias, array in example_inputs(signatures[signature], rows, k).items():
                request.inputs[alias].CopyFrom(tf.make_tensor_proto(array, signatures[signature].inputs[alias].dtype))
            requests.append(request)
    return requests


def answerable(version: Path, requests: Sequence[PredictRequest]) -> tuple[list[PredictRequest], dict[str, str]]:
    """The requests of signatures that answer their first one; a version whose warm-up fails is not served.

    Args:
        version: Directory of the version.
        requests: Those of `warm_up_requests`.

    Returns:
        The requests, and `{signature: the first line of its error}` of the others.
    """
    session, failed = SavedModelSession(version), {}
    try:
        for signature in dict.fromkeys(request.model_spec.signature_name for request in requests):
            first = next(request for request in requests if request.model_spec.signature_name == signature)
            try:
                replay(session, "predict_log", first)
            except ServerError as error:
                failed[signature] = str(error).partition("\n")[0]
    finally:
        session.close()
    return [request for request in requests if request.model_spec.signature_name not in failed], failed


def _quoted(text: str) -> str:
    """Text in double quotes, as YAML and protobuf's text format read it."""
    return json.dumps(text, ensure_ascii=False)


def _json(document: Any) -> str:
    return json.dumps(document, indent=1, default=lambda value: value.tolist()) + "\n"
