"""The vector of a title."""

import keras

from tfmtr.signatures._signature import Served, Signature, specs


def title_embedding(served: Served, *, title: keras.Model) -> Signature:
    """Title features -> `title_embedding`, shape `(batch, d)`."""
    return Signature(lambda raw: {"title_embedding": title(raw)}, specs(served.titles))
