"""Configuration files in protobuf's text format, also of messages that no Python package has."""

import os
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import Message
from google.protobuf.wrappers_pb2 import BoolValue, Int64Value, StringValue  # noqa: F401 - registers their file

from tfmtr.serving.storage import locate, read_text

Field = descriptor_pb2.FieldDescriptorProto
TYPES = {"bool": Field.TYPE_BOOL, "int64": Field.TYPE_INT64, "string": Field.TYPE_STRING}
# tensorflow/serving: monitoring_config.proto, session_bundle_config.proto and ssl_config.proto, by field number.
MESSAGES = {
    "PrometheusConfig": {1: ("enable", "bool"), 2: ("path", "string")},
    "MonitoringConfig": {1: ("prometheus_config", ".tfmtr.PrometheusConfig")},
    "BatchingParameters": {
        1: ("max_batch_size", ".google.protobuf.Int64Value"),
        2: ("batch_timeout_micros", ".google.protobuf.Int64Value"),
        3: ("max_enqueued_batches", ".google.protobuf.Int64Value"),
        4: ("num_batch_threads", ".google.protobuf.Int64Value"),
        5: ("thread_pool_name", ".google.protobuf.StringValue"),
        6: ("allowed_batch_sizes", "repeated int64"),
        7: ("pad_variable_length_inputs", "bool"),
        8: ("enable_large_batch_splitting", ".google.protobuf.BoolValue"),
        9: ("max_execution_batch_size", ".google.protobuf.Int64Value"),
    },
    "SSLConfig": {
        1: ("server_key", "string"),
        2: ("server_cert", "string"),
        3: ("custom_ca", "string"),
        4: ("client_verify", "bool"),
    },
}


def _make_messages() -> dict[str, type[Message]]:
    file = descriptor_pb2.FileDescriptorProto(
        name="tfmtr/serving.proto", package="tfmtr", syntax="proto3", dependency=["google/protobuf/wrappers.proto"]
    )
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in fields.items():
            is_repeated, kind = kind.startswith("repeated "), kind.removeprefix("repeated ")
            added = message.field.add(
                name=field, number=number, label=Field.LABEL_REPEATED if is_repeated else Field.LABEL_OPTIONAL
            )
            if kind in TYPES:
                added.type = TYPES[kind]
            else:
                added.type, added.type_name = Field.TYPE_MESSAGE, kind
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tfmtr.{name}")) for name in MESSAGES}


_CLASSES = _make_messages()
MonitoringConfig, BatchingParameters, SSLConfig = (
    _CLASSES[name] for name in ("MonitoringConfig", "BatchingParameters", "SSLConfig")
)


def read_text_proto(path: str | os.PathLike, message: type[Message]) -> Any:
    """The message of a file in protobuf's text format.

    Args:
        path: The file, or its address.
        message: Class of the message.

    Raises:
        ValueError: If the file is not such a message; says where.

    Example:
    >>> text_format.Parse("max_batch_size { value: 128 } allowed_batch_sizes: [8, 128]", BatchingParameters())
    max_batch_size {
      value: 128
    }
    allowed_batch_sizes: 8
    allowed_batch_sizes: 128
    """
    try:
        return text_format.Parse(read_text(locate(path)), message())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        kind = message.DESCRIPTOR.name
        raise ValueError(f"{path} must hold a {kind} in protobuf's text format. Received: {error}") from error
