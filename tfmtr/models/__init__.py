"""Puts the parts together: encode, share, score, head."""

from tfmtr.models.building import add_l2, kernels
from tfmtr.models.joint import JointModel, is_frame
from tfmtr.models.ranking_models import ranking
from tfmtr.models.two_towers import TwoTower, two_tower

__all__ = ["FORMS", "JointModel", "TwoTower", "add_l2", "is_frame", "kernels", "ranking", "two_tower"]

FORMS = {"two_tower": two_tower, "ranking": ranking}
