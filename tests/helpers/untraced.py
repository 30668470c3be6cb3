"""TensorFlow without tracing, which takes longer than a few steps."""

import contextlib


@contextlib.contextmanager
def untraced():
    """In this context functions run as they stand; after it they are traced again, whatever happened."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)
