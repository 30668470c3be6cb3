"""The failure of a request: a gRPC status code and a text, the same on both sides of the wire."""

import re

import grpc

CODES = {code.value[0]: code for code in grpc.StatusCode}  # number of the code (also TensorFlow's) -> code

STOPPING = "The server stops; ask another one"  # of UNAVAILABLE
KINDS = {
    PermissionError: grpc.StatusCode.PERMISSION_DENIED,
    FileNotFoundError: grpc.StatusCode.NOT_FOUND,
    MemoryError: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


class ServerError(Exception):
    """A request that the server refuses or fails.

    Args:
        code: The `grpc.StatusCode`.
        message: The text that the client receives, without the code.

    Example:
    >>> str(ServerError(grpc.StatusCode.NOT_FOUND, "Could not find any versions of model m"))
    'NOT_FOUND: Could not find any versions of model m'
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message


def first_clause(message: str) -> str:
    r"""What an assertion in a graph says, without what TensorFlow adds to it; other texts as they are.

    >>> first_clause("assertion failed: [`k` must be at most 60.] [Condition x <= y ...] [100]\n\t [[{{node Assert}}]]")
    '`k` must be at most 60.'
    >>> first_clause("assertion failed: [One of ['a', 'b'] must not be 0.] [[0 0]]")
    "One of ['a', 'b'] must not be 0."
    """
    match = re.search(r"assertion failed: \[(.+?)\s*\](?= \[|\n|$)", message)
    return match[1].replace("\\'", "'") if match else message


def invalid_argument(message: str) -> ServerError:
    """A `ServerError` with the code of most refusals."""
    return ServerError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> ServerError:
    """A `ServerError` for a model, version or signature that is not there."""
    return ServerError(grpc.StatusCode.NOT_FOUND, message)


def server_error(error: Exception) -> ServerError:
    """Whatever Python or TensorFlow raised, as a `ServerError`; one that is a `ServerError` stays as it is.

    Example:
    >>> str(server_error(PermissionError(13, "Permission denied")))
    'PERMISSION_DENIED: PermissionError: [Errno 13] Permission denied'
    """
    if isinstance(error, ServerError):
        return error
    if getattr(error, "error_code", None) in CODES:  # one of `tf.errors`
        return ServerError(CODES[error.error_code], error.message)  # pyright: ignore[reportAttributeAccessIssue]
    code = next((code for kind, code in KINDS.items() if isinstance(error, kind)), grpc.StatusCode.UNKNOWN)
    return ServerError(code, f"{type(error).__name__}: {error}")
