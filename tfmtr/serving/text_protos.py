"""Configuration files in protobuf's text format, also of messages that no Python package has."""

import os
from typing import Any

from google.protobuf import text_format
from google.protobuf.message import Message

from tfmtr.serving.protos import messages
from tfmtr.serving.storage import locate, read_text

_CLASSES = messages("configuration.proto")
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
