"""The systems among which `search.py` looked for one that is better than M3oE, and the one that it found.

All have been tried: each has a line in `search.jsonl` and a line on the study's page.
"""

from types import MappingProxyType
from typing import Any, NamedTuple


class Candidate(NamedTuple):
    """A combination of the package's parts.

    Attributes:
        share: Name of a file in `tfmtr/sharing/`, or "as_published".
        options: Its options.
        beside: Fields of `tfmtr.Recipe` beside `share`.
        adam: Options of the optimizer `adam_l2` beside its learning rate.
    """

    share: str
    options: Any = MappingProxyType({})
    beside: Any = MappingProxyType({})
    adam: Any = MappingProxyType({})

    @property
    def parts(self):
        """What a recipe takes of it beside `share`."""
        return {"options": dict(self.options), "beside": dict(self.beside), "adam": dict(self.adam)}


FM = {"encode": "fm", "has_first_order": True}
ONE = {"num_experts": 1}  # as in the study
DECAY, STRONG_DECAY, STRONGEST_DECAY = ({"weight_decay": rate} for rate in (0.3, 1.0, 3.0))
L2, STRONG_L2, STRONGEST_L2 = ({"l2": share} for share in (1e-5, 3e-5, 1e-4))
MEAN = {"use_ema": True, "ema_momentum": 0.95}  # over the last 20 steps, which are an epoch
CANDIDATES = {
    "m3oe": Candidate("m3oe", ONE),
    "m3oe, fm": Candidate("m3oe", ONE, FM),
    "pepnet": Candidate("pepnet"),
    "stem": Candidate("stem"),
    "shared_bottom, fm": Candidate("shared_bottom", {}, FM),
    "m3oe, decay": Candidate("m3oe", ONE, {}, DECAY),
    "m3oe, mean": Candidate("m3oe", ONE, {}, MEAN),
    "m3oe, strong decay": Candidate("m3oe", ONE, {}, STRONG_DECAY),
    "star, decay": Candidate("star", {}, {}, DECAY),
    "pepnet, decay": Candidate("pepnet", {}, {}, DECAY),
    "stem, decay": Candidate("stem", {}, {}, DECAY),
    "pepnet, strong decay": Candidate("pepnet", {}, {}, STRONG_DECAY),
    "stem, strong decay": Candidate("stem", {}, {}, STRONG_DECAY),
    "pepnet, strongest decay": Candidate("pepnet", {}, {}, STRONGEST_DECAY),
    "pepnet, fm, decay": Candidate("pepnet", {}, FM, DECAY),
    "m3oe, strongest l2": Candidate("m3oe", ONE, {}, STRONGEST_L2),
    "m3oe_code, strongest l2": Candidate("as_published", {}, {}, STRONGEST_L2),
    "pepnet, l2": Candidate("pepnet", {}, {}, L2),
    "pepnet, strong l2": Candidate("pepnet", {}, {}, STRONG_L2),
    "pepnet, strongest l2": Candidate("pepnet", {}, {}, STRONGEST_L2),
    "pepnet, l2 of 3e-4": Candidate("pepnet", {}, {}, {"l2": 3e-4}),
    "stem, strong l2": Candidate("stem", {}, {}, STRONG_L2),
    "stem, l2 of 3e-4": Candidate("stem", {}, {}, {"l2": 3e-4}),
    "stem, strongest l2": Candidate("stem", {}, {}, STRONGEST_L2),
}
CHOSEN = "stem, strongest l2"
CHOSEN_BEFORE = "pepnet, strong decay"  # without the published code's L2

# M3oE's published code read another way than the paper, to see what decides its figures.
READINGS = {
    "m3oe_4_experts": Candidate("m3oe"),
    "m3oe_code": Candidate("as_published"),
    "m3oe_code_1_expert": Candidate("as_published", ONE),
    "m3oe_code_fixed": Candidate("as_published", {"learn_fusion": False}),
    "m3oe_code_plain_star": Candidate("as_published", {"normalize_star": False}),
    "m3oe_code_plain_towers": Candidate("as_published", {"normalize_towers": False}),
}
