"""A client for any server that speaks TF Serving's gRPC protocol."""

# Protobuf makes its classes when it is imported:
# pyright: reportAttributeAccessIssue=false
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf.message import Message
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tfmtr.checks import check_integer, check_number, check_text
from tfmtr.serving.errors import ServerError, first_clause
from tfmtr.serving.predict import DEFAULT_SIGNATURE

__all__ = ["Client", "ServerError"]


class Client:
    """Asks one model of one server; thread-safe, and a context manager that closes the connection.

    Args:
        address: `host:port` of the gRPC port.
        model: Name of the model.
        version: Number of the version; by default the newest that is loaded.
        timeout: Deadline of each call, in seconds.

    Raises:
        ValueError: If an argument is of another kind.

    Example:
        client = Client("127.0.0.1:8500", "two_tower")
        scores = client.predict({"user_id": ["42"], "title_id": ["7"]})["click"]
    """

    def __init__(self, address: str, model: str, *, version: int | None = None, timeout: float = 10.0) -> None:
        is_address = isinstance(address, str) and ":" in address.strip(":")
        if not is_address:
            raise ValueError(f"`address` must be host:port of the gRPC server, or unix:path. Received: {address!r}")
        check_text("model", model)
        check_number("timeout", timeout, above=0)
        if version is not None:
            check_integer("version", version, least=0)
        self._spec = model_pb2.ModelSpec(name=model)
        if version is not None:
            self._spec.version.value = version
        self._timeout = timeout
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._channel = grpc.insecure_channel(address, options=unlimited)
        self._predictions = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._signatures = None

    def predict(
        self, inputs: Mapping[str, Any], signature_name: str = DEFAULT_SIGNATURE, output_filter: Sequence[str] = ()
    ) -> dict[str, np.ndarray]:
        """Runs a signature.

        Args:
            inputs: `{name: array or list}`. An array is sent with its own dtype, because the server casts
                nothing; a list or scalar takes the dtype that the signature declares.
            signature_name: The signature.
            output_filter: Outputs to compute and return; all by default.

        Returns:
            `{name: array}`; strings are object arrays of bytes.

        Raises:
            ServerError: With the server's code and text, of an assertion in the graph its own text alone; or
                UNAVAILABLE or DEADLINE_EXCEEDED without them.
        """
        request = predict_pb2.PredictRequest(model_spec=self._spec, output_filter=output_filter)
        request.model_spec.signature_name = signature_name
        for name, value in inputs.items():
            dtype = None if isinstance(value, (np.ndarray, np.generic)) else self._dtype(signature_name, name)
            request.inputs[name].CopyFrom(tf.make_tensor_proto(value, dtype))
        response = self._call(self._predictions.Predict, request)
        return {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}

    def metadata(self) -> dict[str, Any]:
        """The signatures of the model: `{name: SignatureDef}`."""
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=self._spec, metadata_field=["signature_def"]
        )
        signatures = get_model_metadata_pb2.SignatureDefMap()
        self._call(self._predictions.GetModelMetadata, request).metadata["signature_def"].Unpack(signatures)
        return dict(signatures.signature_def)

    def status(self) -> list[Any]:
        """The versions that the server has seen, newest first: a list of `ModelVersionStatus` messages."""
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=self._spec)
        return list(self._call(self._models.GetModelStatus, request).model_version_status)

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _dtype(self, signature_name: str, name: str) -> tf.DType | None:
        if self._signatures is None:
            self._signatures = self.metadata()
        signature = self._signatures.get(signature_name)
        return tf.as_dtype(signature.inputs[name].dtype) if signature and name in signature.inputs else None

    def _call(self, method: Callable[..., Any], request: Message) -> Any:
        try:
            return method(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise ServerError(error.code(), first_clause(error.details() or "")) from error
