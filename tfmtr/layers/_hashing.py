"""Places of ids in tables of a fixed size."""

import keras
from keras import KerasTensor, ops

PRIME = 2**31 - 1


def hashed_places(ids: KerasTensor, num_hashes: int, num_buckets: int) -> KerasTensor:
    """Places in one table of `num_hashes` times `num_buckets` entries, int32 of shape `(num_hashes, batch)`.

    Args:
        ids: Integer tensor of shape `(batch,)`.
        num_hashes: Number of hash functions, each with a part of the table of its own.
        num_buckets: Entries of a part.
    """
    # JAX has no 64-bit integers by default: there products wrap around, which is a hash as well.
    ids = ops.cast(ids, "int32" if keras.backend.backend() == "jax" else "int64")
    places = []
    for h in range(num_hashes):
        factor = pow(48_271, h + 2, PRIME)  # large, so that ids which collide in one table do not in the next
        places.append(h * num_buckets + ids * factor % PRIME % num_buckets)
    return ops.cast(ops.stack(places), "int32")
