"""What figures are split by: the slices and the scenarios of a schema, under the names that it gives them."""

import numpy as np
import pyarrow as pa

from tfmtr.inputs.encoder import Encoder
from tfmtr.schema import Schema

SCENARIO = "scenario"
UNKNOWN = "unknown"  # what a value that is not given, and a scenario that is in no group, are called


def scenario_split(schema: Schema) -> str:
    """What tells scenarios apart: the slice whose values they are, or `"scenario"` where no slice's are.

    Example:
    >>> from tfmtr.schema import Scenario, Task
    >>> schema = Schema((), [Task("click")], Scenario(["tab"], {"home": "home"}), slices=["territory", "tab"])
    >>> scenario_split(schema), scenario_split(schema.replace(scenario=Scenario(["tab"], {"home": "all"})))
    ('tab', 'scenario')
    """
    column, *others = schema.scenario.columns
    is_slice = not others and column in schema.slices and all(key == (g,) for key, g in schema.scenario.groups.items())
    return column if is_slice else SCENARIO


def split_columns(schema: Schema) -> tuple[str, ...]:
    """The slices, and `"scenario"` unless a slice's values are the scenarios."""
    return tuple(dict.fromkeys([*schema.slices, scenario_split(schema)]))


def scenario_names(numbers: np.ndarray, schema: Schema) -> np.ndarray:
    """Names of scenarios from the numbers that a model takes, text of shape `(rows,)`: "" is in no group."""
    return np.asarray(["", *schema.scenario.names])[numbers]


def split_values(table: pa.Table, schema: Schema) -> dict[str, np.ndarray]:
    """What each row of examples is of: `{column of split_columns: text of shape (rows,)}`, "" where it is not known."""
    values = {}
    for column in split_columns(schema):
        if column == SCENARIO:
            values[column] = scenario_names(Encoder(schema)(table.select(schema.scenario.columns))[SCENARIO], schema)
        else:
            texts = table[column].cast(pa.string()).to_pandas()
            values[column] = texts.fillna("").to_numpy().astype(str)
    return values


def shown(value: str) -> str:
    """A value as tables show it.

    >>> shown("home"), shown("")
    ('home', 'unknown')
    """
    return value or UNKNOWN
