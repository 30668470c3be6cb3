"""What figures are split by: the slices and the scenarios of a schema, under the names that it gives them."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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
    """What each row of examples is of: `{column of split_columns: text of shape (rows,)}`, "" where it is not known.

    Example:
    >>> from tfmtr.schema import Scenario, Task
    >>> scenario = Scenario(["tab", "territory"], {("home", "DE"): "home/DE"})
    >>> schema = Schema((), [Task("click")], scenario, slices=["tab"])
    >>> split_values(pa.table({"tab": ["home", None], "territory": ["DE", "DE"]}), schema)["scenario"].tolist()
    ['home/DE', '']
    """

    def texts(column: str) -> list[str]:
        return pc.fill_null(table[column].cast(pa.string()), "").to_pylist()

    values = {column: texts(column) for column in split_columns(schema) if column != SCENARIO}
    if SCENARIO in split_columns(schema):
        keys = zip(*map(texts, schema.scenario.columns), strict=True)
        values[SCENARIO] = [schema.scenario.groups.get(key, "") for key in keys]
    return {column: np.asarray(own, str) for column, own in values.items()}


def shown(value: str) -> str:
    """A value as tables show it.

    >>> shown("home"), shown("")
    ('home', 'unknown')
    """
    return value or UNKNOWN
