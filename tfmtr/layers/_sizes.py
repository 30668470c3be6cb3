"""Checks of sizes and shapes that layers and sharing files share."""

from collections.abc import Sequence

Shape = tuple[int | None, ...]  # as Keras gives it to a layer, the batch None


def check_sizes(**sizes: int | Sequence[int]) -> None:
    """Raises a `ValueError` that names the size which is no positive integer, or no tuple of at least one.

    >>> check_sizes(num_experts=4, units=(512, 256))
    """
    for argument, value in sizes.items():
        if isinstance(value, tuple | list):
            if not value or min(value) < 1:
                raise ValueError(
                    f"`{argument}` must be the widths of one or more layers, all positive. Received: {argument}={value}"
                )
        elif value < 1:  # pyright: ignore[reportOperatorIssue]
            raise ValueError(f"`{argument}` must be a positive integer. Received: {argument}={value}")


def check_matrix(shape: Shape) -> None:
    """Raises a `ValueError` unless a layer's inputs have shape `(batch, width)`."""
    if len(shape) != 2:
        raise ValueError(f"`inputs` must have shape (batch, width). Received: inputs.shape={tuple(shape)}")
