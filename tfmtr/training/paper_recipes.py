"""The three models of Gampa et al. 2023, and the controls of a gain."""

from typing import TYPE_CHECKING

from tfmtr.recipe import Recipe

if TYPE_CHECKING:
    pass

# The three models of Gampa et al. 2023, section 4.2, and the controls that a gain of branches is compared with.
PAPER = {
    "baseline": Recipe(share="none", upsample=False),
    "baseline + upsampling": Recipe(share="none"),
    "multi-task": Recipe(share="territory_branches"),
}
CONTROLS = {
    "one group": Recipe(share="territory_branches", groups="one"),
    "random groups": Recipe(share="territory_branches", groups="random"),
}
