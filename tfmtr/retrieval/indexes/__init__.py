"""How titles are searched: a file has one function of its name, which makes the index that the graph carries.

    name(catalogue, vectors, file) -> keras.layers.Layer

`catalogue` is the `Catalogue`, `vectors` a float32 array of shape `(titles, d)`, and `file` a path that the index may
write to, or `None`. The layer is called as `ExactIndex` is, and returns what it returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import tensorflow as tf

    from tfmtr.retrieval.catalogue import Catalogue


class Index(Protocol):
    """What such a function returns, as far as others use it."""

    catalogue: Catalogue

    def __call__(self, query: Any, k: Any, allowed: Any) -> dict[str, tf.Tensor]:
        """Searches; see `ExactIndex`."""
        ...

    def vectors_of(self, index: tf.Tensor) -> tf.Tensor:
        """Vectors of candidates: `index` of shape `(batch, candidates)` gives `(batch, candidates, d)`."""
        ...
