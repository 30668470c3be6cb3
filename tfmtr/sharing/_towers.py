"""The last block of most systems, and a check of their sizes."""

from tfmtr.layers.experts import Experts


def dense_towers(h, towers, units, *, normalize=True):
    """Puts dense layers of its own on top of each tower's input.

        u_t = f_t(h_t)

    Args:
        h: Tensor of shape `(batch, num_towers, width)`, or `(batch, width)` where all towers have the same input.
        towers: Names of the towers.
        units: Widths of the layers; none to return the inputs.
        normalize: Whether layers have layer normalisation.

    Returns:
        `{tower: tensor of shape (batch, width of the last layer)}`.
    """
    for i, width in enumerate(units):  # all towers' layers at once
        h = Experts(len(towers), width, activation="relu", normalize=normalize, name=f"towers_{i}")(h)
    return {tower: h[:, t] if len(h.shape) == 3 else h for t, tower in enumerate(towers)}


def check_sizes(**sizes):
    """Raises a `ValueError` that names the size which is no positive integer, or no tuple of at least one.

    >>> check_sizes(num_experts=4, units=(512, 256))
    """
    for argument, value in sizes.items():
        if isinstance(value, tuple | list):
            if not value or min(value) < 1:
                raise ValueError(
                    f"`{argument}` must be the widths of one or more layers, all positive. Received: {argument}={value}"
                )
        elif value < 1:
            raise ValueError(f"`{argument}` must be a positive integer. Received: {argument}={value}")
