"""Nothing is specific to a scenario: the baseline."""

import keras


def none(x, scenario, *, towers, num_scenarios):
    """Returns the representation itself; several towers get one linear projection each.

    The global model that Gampa et al. 2023 (section 4.3) compare with. With one tower it is the
    identity, which tells a two-tower model to leave the user tower's last layer linear.

    Args:
        x: Tensor of shape `(batch, width)`.
        scenario: Ignored.
        towers: Names of the towers.
        num_scenarios: Ignored.

    Returns:
        `{tower: tensor of shape (batch, width)}`.
    """
    if len(towers) == 1:
        return {towers[0]: x}
    return {tower: keras.layers.Dense(x.shape[-1], name=f"{tower}_projection")(x) for tower in towers}
