"""Which parts need TensorFlow as Keras's backend; models and heads run on every backend."""

import keras


def is_tensorflow() -> bool:
    """Whether Keras's backend is TensorFlow: rows can be partitioned by a tensor's values, gradients may be sparse."""
    return keras.backend.backend() == "tensorflow"


def check_tensorflow(part: str, instead: str) -> None:
    """Raises a `ValueError` unless Keras's backend is TensorFlow.

    Args:
        part: What needs it.
        instead: What to do on another backend.
    """
    if not is_tensorflow():
        raise ValueError(
            f"{part} needs the TensorFlow backend: start the process with KERAS_BACKEND=tensorflow, or {instead}. "
            f"Received: keras.backend.backend()={keras.backend.backend()!r}"
        )
