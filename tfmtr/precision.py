"""Which precision a run computes in: Keras's dtype policy, which is the process's, not the model's."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

POLICIES = ("float32", "mixed_bfloat16")


def current() -> str:
    """Name of the process's policy.

    Raises:
        ValueError: If models cannot be trained under it.
    """
    import keras

    name = keras.config.dtype_policy().name
    if name not in POLICIES:
        raise ValueError(
            f"The dtype policy must be one of {list(POLICIES)}; float16 overflows without a scaled loss, which "
            'balancers and row-sparse optimizers do not know. Call `keras.config.set_dtype_policy("mixed_bfloat16")`. '
            f"Received: {name!r}"
        )
    return name


@contextlib.contextmanager
def use(name: str) -> Iterator[None]:
    """Makes models that are built inside compute under a policy, whatever the process has."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def check_policy(own: str, workdir: Path, policy: str) -> None:
    """Raises a `ValueError` unless a policy is `own`, the one that the run in `workdir` began under."""
    if own != policy:
        raise ValueError(
            f"A run must go on under the dtype policy that it began under: call "
            f'`keras.config.set_dtype_policy("{own}")` before, or choose another directory. Received: {policy!r}, and '
            f"{workdir} began under {own!r}"
        )
