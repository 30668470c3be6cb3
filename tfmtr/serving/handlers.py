"""What each remote procedure answers, whatever the transport: request message in, response message out."""

from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from tfmtr.serving.errors import invalid_argument
from tfmtr.serving.predict import DEFAULT_SIGNATURE, check_inputs, choose_outputs, find_signature, predict
from tfmtr.serving.tensor_proto import to_array, to_proto


def check_model_spec(request):
    """Raises INVALID_ARGUMENT unless the request has a `model_spec`."""
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")


def answer_predict(models, request, timeout_seconds=None):
    """Answers `PredictionService.Predict`."""
    check_model_spec(request)
    name = request.model_spec.signature_name or DEFAULT_SIGNATURE
    with models.lease(request.model_spec) as version:
        signature = find_signature(version.session, name)
        check_inputs(signature, set(request.inputs))
        protos = {**signature.defaults, **request.inputs}
        inputs = {alias: to_array(alias, proto) for alias, proto in protos.items()}
        outputs = choose_outputs(signature, request.output_filter)
        arrays = predict(version.session, signature, inputs, outputs, timeout_seconds)
    response = predict_pb2.PredictResponse()
    response.model_spec.name = request.model_spec.name
    response.model_spec.signature_name = name
    response.model_spec.version.value = version.number
    for alias, array in arrays.items():
        response.outputs[alias].CopyFrom(to_proto(array))
    return response


def signature_map(models, spec):
    """The signatures of a version, as saved.

    Returns:
        `(version number, SignatureDefMap)`.
    """
    signatures = get_model_metadata_pb2.SignatureDefMap()
    with models.lease(spec) as version:
        for name, signature in version.session.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
    return version.number, signatures


def answer_metadata(models, request):
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


def answer_status(models, request):
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
