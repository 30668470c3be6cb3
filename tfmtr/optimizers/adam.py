"""Keras's Adam, the default."""

from keras.optimizers import Adam

__all__ = ["Adam"]
