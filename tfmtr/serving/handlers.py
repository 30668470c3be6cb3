"""What each remote procedure answers, whatever the transport: request message in, response message out."""

# Protobuf makes its classes when it is imported:
# pyright: reportAttributeAccessIssue=false

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf.message import Message
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_pb2,
    predict_pb2,
    regression_pb2,
)

from tfmtr.serving import examples
from tfmtr.serving.batching import BatchingSession
from tfmtr.serving.errors import ServerError, invalid_argument
from tfmtr.serving.models import Models
from tfmtr.serving.predict import check_inputs, check_names, choose_outputs, find_signature, predict
from tfmtr.serving.request_counts import METRICS, RUNTIME
from tfmtr.serving.tensor_proto import SENDABLE, to_array, to_proto
from tfmtr.serving.versions import Version
from tfmtr.serving.wire import DEFAULT_SIGNATURE


def check_model_spec(request: Message) -> None:
    """Raises INVALID_ARGUMENT unless the request has a `model_spec`."""
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")


def answer_predict(
    models: Models, request: predict_pb2.PredictRequest, timeout_seconds: float | None = None
) -> predict_pb2.PredictResponse:
    """Answers `PredictionService.Predict`."""
    check_model_spec(request)
    name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    with models.lease(request.model_spec) as version:
        signature = find_signature(version.session, name)
        check_inputs(signature, set(request.inputs))
        protos = {**signature.defaults, **request.inputs}
        inputs = {alias: to_array(alias, protos[alias]) for alias in signature.inputs}
        check_names(signature, set(request.inputs))
        if isinstance(version.session, BatchingSession):
            inputs = repeat_defaults(inputs, signature)
        outputs = choose_outputs(signature, request.output_filter)
        check_types(signature, outputs)
        with METRICS.time(RUNTIME, model_name=request.model_spec.name, API="Predict", runtime="TF1"):
            arrays = predict(version.session, signature, inputs, outputs, timeout_seconds)
    models.count_fallbacks(request.model_spec.name, arrays)
    response = predict_pb2.PredictResponse(model_spec=resolved(request.model_spec, version, name))
    for alias, array in arrays.items():
        declared = signature.outputs[alias].dtype
        response.outputs[alias].CopyFrom(to_proto(array, declared=declared, as_content=models.as_content))
    return response


def repeat_defaults(inputs: Mapping[str, np.ndarray], signature: SignatureDef) -> dict[str, np.ndarray]:
    """Inputs for a batch, where all must have equally many rows: of those with a default one row stands for each.

    Args:
        inputs: `{alias: array}` of all inputs.
        signature: The signature, whose `defaults` name those that a client may leave out.
    """
    sizes = {len(array) for alias, array in inputs.items() if array.ndim and alias not in signature.defaults}
    if len(sizes) != 1:
        return dict(inputs)
    rows = sizes.pop()
    is_one = {alias: alias in signature.defaults and array.shape[:1] == (1,) for alias, array in inputs.items()}
    return {alias: np.repeat(array, rows, axis=0) if is_one[alias] else array for alias, array in inputs.items()}


def check_types(signature: SignatureDef, outputs: Iterable[str]) -> None:
    """Raises UNIMPLEMENTED if an output has a dtype that cannot be sent."""
    for alias in outputs:
        if (number := signature.outputs[alias].dtype) and number not in SENDABLE:  # 0: it is no tensor
            name = tf.as_dtype(number).name
            raise ServerError(
                grpc.StatusCode.UNIMPLEMENTED,
                f"output {alias} has the type {name}, which cannot be sent; name the others in output_filter",
            )


def resolved(spec: model_pb2.ModelSpec, version: Version, signature_name: str = "") -> dict[str, Any]:
    """The `ModelSpec` of a response: the version that ran, never the label that was asked for."""
    return {"name": spec.name, "version": {"value": version.number}, "signature_name": signature_name}


def answer_classify(
    models: Models, request: classification_pb2.ClassificationRequest, timeout_seconds: float | None = None
) -> classification_pb2.ClassificationResponse:
    """Answers `PredictionService.Classify`."""
    return _answer_examples(
        models, request, timeout_seconds, examples.CLASSIFY, classification_pb2.ClassificationResponse
    )


def answer_regress(
    models: Models, request: regression_pb2.RegressionRequest, timeout_seconds: float | None = None
) -> regression_pb2.RegressionResponse:
    """Answers `PredictionService.Regress`."""
    return _answer_examples(models, request, timeout_seconds, examples.REGRESS, regression_pb2.RegressionResponse)


def _answer_examples(
    models: Models, request: Any, timeout_seconds: float | None, method: str, make: Callable[..., Any]
) -> Any:
    check_model_spec(request)
    name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    with models.lease(request.model_spec) as version:
        signature = examples.find_signature(version.session, name)
        if models.check_method_names and signature.method_name != method:
            kind = "classification" if method == examples.CLASSIFY else "regression"
            raise invalid_argument(
                f"Expected {kind} signature method_name to be {method}. Was: {signature.method_name}"
            )
        api = "Classify" if method == examples.CLASSIFY else "Regress"
        with METRICS.time(RUNTIME, model_name=request.model_spec.name, API=api, runtime="TF1"):
            (result,) = examples.run(version.session, [(signature, method)], request.input, timeout_seconds)
    return make(model_spec=resolved(request.model_spec, version, name), result=result)


def answer_multi_inference(
    models: Models, request: inference_pb2.MultiInferenceRequest, timeout_seconds: float | None = None
) -> inference_pb2.MultiInferenceResponse:
    """Answers `PredictionService.MultiInference`: the version is the one that the first task asks for."""
    if not request.tasks:
        raise invalid_argument("ModelSpec has no name specified.")
    first = request.tasks[0].model_spec
    with models.lease(first) as version:
        signatures = {}
        for task in request.tasks:
            spec, name = task.model_spec, task.model_spec.signature_name or DEFAULT_SIGNATURE
            if not spec.name:
                raise invalid_argument("Found ModelSpec with an empty model name.")
            if spec.name != first.name:
                raise invalid_argument("All ModelSpecs in a MultiInferenceRequest must access the same model name.")
            if name in signatures:
                raise invalid_argument(f"Duplicate evaluation of signature: {name}")
            if name not in version.session.signatures:
                raise invalid_argument(f"Requested signature not found in model graph: {name}")
            examples.check_method(task.method_name)
            signatures[name] = version.session.signatures[name], task.method_name
        results = examples.run(version.session, list(signatures.values()), request.input, timeout_seconds)
    response = inference_pb2.MultiInferenceResponse()
    for name, (_, method), result in zip(signatures, signatures.values(), results, strict=True):
        kind = "classification_result" if method == examples.CLASSIFY else "regression_result"
        response.results.add(model_spec=resolved(first, version, name), **{kind: result})
    return response


def answer_reload(
    models: Models, request: model_management_pb2.ReloadConfigRequest, timeout_seconds: float | None = None
) -> model_management_pb2.ReloadConfigResponse:
    """Answers `ModelService.HandleReloadConfigRequest`."""
    if request.config.WhichOneof("config") != "model_config_list":
        raise invalid_argument(
            "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently "
            "supported"
        )
    before = METRICS.totals()
    models.reload(request.config.model_config_list, timeout_seconds)
    after, response = METRICS.totals(), model_management_pb2.ReloadConfigResponse()
    response.status.SetInParent()
    for name in request.metric_names:
        response.metric.add(name=name, int64_value_increase=after.get(name, 0) - before.get(name, 0))
    return response


def signature_map(models: Models, spec: model_pb2.ModelSpec) -> tuple[int, get_model_metadata_pb2.SignatureDefMap]:
    """The signatures of a version, as saved.

    Returns:
        `(version number, SignatureDefMap)`.
    """
    signatures = get_model_metadata_pb2.SignatureDefMap()
    with models.lease(spec) as version:
        for name, signature in version.session.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
    return version.number, signatures


def answer_metadata(
    models: Models, request: get_model_metadata_pb2.GetModelMetadataRequest
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """Answers `PredictionService.GetModelMetadata`."""
    check_model_spec(request)
    if not request.metadata_field:
        raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != "signature_def":
            raise invalid_argument(f"Metadata field {field} is not supported")
    number, signatures = signature_map(models, request.model_spec)
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = request.model_spec.name
    response.model_spec.version.value = number
    response.metadata["signature_def"].Pack(signatures)
    return response


def answer_status(
    models: Models, request: get_model_status_pb2.GetModelStatusRequest
) -> get_model_status_pb2.GetModelStatusResponse:
    """Answers `ModelService.GetModelStatus`."""
    check_model_spec(request)
    response = get_model_status_pb2.GetModelStatusResponse()
    for version in models.status(request.model_spec):
        entry = response.model_version_status.add(version=version.number, state=version.state)
        entry.status.SetInParent()
        if version.error:
            entry.status.error_code = version.error.code.value[0]
            entry.status.error_message = version.error.message
    return response
