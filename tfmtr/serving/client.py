"""A client for any server that speaks TF Serving's gRPC protocol; it needs gRPC and NumPy, not TensorFlow."""

# Protobuf makes its classes when it is imported:
# pyright: reportAttributeAccessIssue=false
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import grpc
import numpy as np
from google.protobuf.message import Message

from tfmtr.checks import check_integer, check_number, check_text
from tfmtr.serving.errors import ServerError, first_clause
from tfmtr.serving.wire import DEFAULT_SIGNATURE, WIRE, to_array, to_proto

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
        self._spec = WIRE["ModelSpec"](name=model)
        if version is not None:
            self._spec.version.value = version
        self._timeout = timeout
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self._channel = grpc.insecure_channel(address, options=unlimited)
        self._predict = self._procedure("PredictionService/Predict", "PredictResponse")
        self._get_metadata = self._procedure("PredictionService/GetModelMetadata", "GetModelMetadataResponse")
        self._get_status = self._procedure("ModelService/GetModelStatus", "GetModelStatusResponse")
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
            ValueError: If a value can be no tensor, or not one of the dtype that the signature declares.
            ServerError: With the server's code and text, of an assertion in the graph its own text alone; or
                UNAVAILABLE or DEADLINE_EXCEEDED without them.
        """
        request = WIRE["PredictRequest"](model_spec=self._spec, output_filter=output_filter)
        request.model_spec.signature_name = signature_name
        for name, value in inputs.items():
            dtype = None if isinstance(value, (np.ndarray, np.generic)) else self._dtype(signature_name, name)
            request.inputs[name].CopyFrom(to_proto(name, value, dtype))
        response = self._call(self._predict, request)
        return {name: to_array(proto) for name, proto in response.outputs.items()}

    def metadata(self) -> dict[str, Any]:
        """The signatures of the model: `{name: SignatureDef}`."""
        request = WIRE["GetModelMetadataRequest"](model_spec=self._spec, metadata_field=["signature_def"])
        packed = self._call(self._get_metadata, request).metadata["signature_def"].value
        return dict(WIRE["SignatureDefMap"].FromString(packed).signature_def)

    def status(self) -> list[Any]:
        """The versions that the server has seen, newest first: a list of `ModelVersionStatus` messages."""
        request = WIRE["GetModelStatusRequest"](model_spec=self._spec)
        return list(self._call(self._get_status, request).model_version_status)

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _procedure(self, path: str, response: str) -> Callable[..., Any]:
        return self._channel.unary_unary(
            f"/tensorflow.serving.{path}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=WIRE[response].FromString,
        )

    def _dtype(self, signature_name: str, name: str) -> int | None:
        """Number of the dtype that a signature declares; `None` of an input that it does not have."""
        if self._signatures is None:
            self._signatures = self.metadata()
        signature = self._signatures.get(signature_name)
        return signature.inputs[name].dtype if signature and name in signature.inputs else None

    def _call(self, method: Callable[..., Any], request: Message) -> Any:
        try:
            return method(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise ServerError(error.code(), first_clause(error.details() or "")) from error
