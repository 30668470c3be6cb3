"""The rules of Classify, Regress and MultiInference: `tf.Example`s in, classes or numbers out."""

# Protobuf makes its classes when it is imported:
# pyright: reportAttributeAccessIssue=false

from collections.abc import Mapping, Sequence

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.framework.types_pb2 import DataType
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.apis.classification_pb2 import ClassificationResult
from tensorflow_serving.apis.input_pb2 import Input
from tensorflow_serving.apis.regression_pb2 import RegressionResult

from tfmtr.serving.batching import Session
from tfmtr.serving.errors import ServerError, invalid_argument
from tfmtr.serving.tensor_proto import as_array

INPUT, CLASSES, SCORES, OUTPUT = "inputs", "classes", "scores", "outputs"
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


def find_signature(session: Session, name: str) -> SignatureDef:
    """The `SignatureDef` called `name`.

    Raises:
        ServerError: INVALID_ARGUMENT if there is none.
    """
    if name not in session.signatures:
        raise invalid_argument(f"No signature was found with the name: {name}")
    return session.signatures[name]


def serialized(request_input: Input) -> np.ndarray:
    """The examples of an `Input` as one string array of shape `(examples,)`, the context in front of each.

    Raises:
        ServerError: INVALID_ARGUMENT if there is no example.
    """
    kind, context = request_input.WhichOneof("kind"), b""
    examples = []
    if kind == "example_list":
        examples = request_input.example_list.examples
    elif kind == "example_list_with_context":
        examples = request_input.example_list_with_context.examples
        context = request_input.example_list_with_context.context.SerializeToString()
    if not examples:
        raise invalid_argument("Input is empty.")
    array = np.empty(len(examples), object)
    array[:] = [context + example.SerializeToString() for example in examples]
    return array


def _check_one_input(signature: SignatureDef) -> None:
    if len(signature.inputs) != 1:
        raise invalid_argument("Expected one input Tensor.")


def _check_input_alias(signature: SignatureDef, kind: str) -> None:
    if INPUT not in signature.inputs:
        raise invalid_argument(f"No {kind} inputs found in SignatureDef: {_text(signature)}")


def classification_outputs(signature: SignatureDef) -> list[str]:
    """Aliases of the outputs to fetch: `classes`, `scores` or both.

    Raises:
        ServerError: INVALID_ARGUMENT if the signature is not one of classification.
    """
    _check_one_input(signature)
    if len(signature.outputs) not in (1, 2):
        raise invalid_argument(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    _check_input_alias(signature, "classification")
    aliases = [alias for alias in (CLASSES, SCORES) if alias in signature.outputs]
    if not aliases:
        raise invalid_argument(
            'Expected classification signature outputs to contain at least one of "classes" or "scores". Signature '
            f"was: {_text(signature)}"
        )
    return aliases


def regression_outputs(signature: SignatureDef) -> list[str]:
    """Aliases of the outputs to fetch: `outputs`.

    Raises:
        ServerError: INVALID_ARGUMENT if the signature is not one of regression.
    """
    _check_one_input(signature)
    if len(signature.outputs) != 1:
        raise invalid_argument("Expected one output Tensor.")
    _check_input_alias(signature, "regression")
    if OUTPUT not in signature.outputs:
        raise invalid_argument(f"No regression outputs found in SignatureDef: {_text(signature)}")
    return [OUTPUT]


def classification_result(arrays: Mapping[str, np.ndarray], num_examples: int) -> ClassificationResult:
    """The `ClassificationResult` of fetched arrays: labels are empty and scores 0 where the model has none.

    Args:
        arrays: `{"classes": strings, "scores": floats}` of shape `(examples, classes)`, one or both.
        num_examples: How many were sent.

    Raises:
        ServerError: INVALID_ARGUMENT if a shape or dtype is another one.
    """
    num_classes = 0
    arrays = {alias: as_array(array) for alias, array in arrays.items()}
    for alias, array in arrays.items():
        if array.ndim != 2:
            raise invalid_argument(f"Expected Tensor shape: [batch_size num_classes] but got {_shape(array)}")
        dtype, name = (object, "DT_STRING") if alias == CLASSES else (np.float32, "DT_FLOAT")
        if array.dtype != dtype:
            raise invalid_argument(f"Expected {alias} Tensor of {name}. Got: {_type(array)}")
        if len(array) != num_examples:
            raise invalid_argument(f"Expected {alias} output batch size of {num_examples}. Got: {len(array)}")
        if num_classes and array.shape[1] != num_classes:
            raise invalid_argument(
                f"Tensors class and score should match in dim_size(1). Got {num_classes} vs. {array.shape[1]}"
            )
        num_classes = array.shape[1]
    classes = arrays[CLASSES].tolist() if CLASSES in arrays else None
    scores = arrays[SCORES].tolist() if SCORES in arrays else None
    result = ClassificationResult()
    for i in range(num_examples):
        row = result.classifications.add()
        for j in range(num_classes):
            item = row.classes.add()
            if classes:
                item.label = classes[i][j].decode(errors="replace")
            if scores:
                item.score = scores[i][j]
    return result


def regression_result(arrays: Mapping[str, np.ndarray], num_examples: int) -> RegressionResult:
    """The `RegressionResult` of the fetched array `outputs`, of shape `(examples,)` or `(examples, 1)`.

    Raises:
        ServerError: INVALID_ARGUMENT if the shape or dtype is another one.
    """
    array = as_array(arrays[OUTPUT])
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] != 1):
        raise invalid_argument(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {_shape(array)}"
        )
    if len(array) != num_examples:
        raise invalid_argument(f"Input batch size did not match output batch size: {num_examples} vs. {len(array)}")
    if array.dtype != np.float32:
        raise invalid_argument(f"Expected output Tensor of DT_FLOAT.  Got: {_type(array)}")
    result = RegressionResult()
    for value in array.ravel().tolist():
        result.regressions.add(value=value)
    return result


# By method: the outputs to fetch, and what is made of them.
METHODS = {
    CLASSIFY: (classification_outputs, classification_result),
    REGRESS: (regression_outputs, regression_result),
}


def run(
    session: Session,
    signatures: Sequence[tuple[SignatureDef, str]],
    request_input: Input,
    timeout_seconds: float | None = None,
) -> list[ClassificationResult | RegressionResult]:
    """Runs several signatures of examples at once.

    Args:
        session: The `SavedModelSession`.
        signatures: `[(SignatureDef, method)]`, the methods of `METHODS`.
        request_input: The `Input`.
        timeout_seconds: As for `SavedModelSession.run`.

    Returns:
        A `ClassificationResult` or `RegressionResult` for each.
    """
    aliases = [METHODS[method][0](signature) for signature, method in signatures]
    examples = serialized(request_input)
    feeds = {signature.inputs[INPUT].name: examples for signature, _ in signatures}
    names = [signature.outputs[alias].name for (signature, _), outputs in zip(signatures, aliases, strict=True)
             for alias in outputs]  # fmt: skip
    fetches = list(dict.fromkeys(names))
    arrays = dict(zip(fetches, session.run(feeds, fetches, timeout_seconds), strict=True))
    return [
        METHODS[method][1]({alias: arrays[signature.outputs[alias].name] for alias in outputs}, len(examples))
        for (signature, method), outputs in zip(signatures, aliases, strict=True)
    ]


def check_method(method: str) -> None:
    """Raises unless MultiInference has the method.

    Raises:
        ServerError: UNIMPLEMENTED.
    """
    if method not in METHODS:
        raise ServerError(grpc.StatusCode.UNIMPLEMENTED, f"Unsupported signature method_name: {method}")


def _text(signature: SignatureDef) -> str:
    return text_format.MessageToString(signature)


def _shape(array: np.ndarray) -> str:
    return "[" + ",".join(map(str, array.shape)) + "]"


def _type(array: np.ndarray) -> str:
    dtype = tf.string if array.dtype == object else tf.as_dtype(array.dtype)
    return DataType.Name(dtype.as_datatype_enum)
