"""What decides a run's result, beside the data: the recipe that a run directory stores, and a TOML file holds."""

from tfmtr.recipe.changes import as_toml, parse_change, parse_changes
from tfmtr.recipe.former import FORMER_DEFAULTS, with_former_defaults
from tfmtr.recipe.optimizing import optimizer_of
from tfmtr.recipe.part_names import ENCODERS, PARTS, STORED_AS_TABLES
from tfmtr.recipe.recipe import DEFAULTS, OPTIONAL, Recipe, option_texts

__all__ = [
    "DEFAULTS",
    "ENCODERS",
    "FORMER_DEFAULTS",
    "OPTIONAL",
    "PARTS",
    "STORED_AS_TABLES",
    "Recipe",
    "as_toml",
    "optimizer_of",
    "option_texts",
    "parse_change",
    "parse_changes",
    "with_former_defaults",
]
