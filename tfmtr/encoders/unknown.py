"""What a request says that models do not know: scenarios that are in no group, and values of the context."""

from collections.abc import Iterable

import keras
from keras import ops

from tfmtr.encoders.graph_names import graph
from tfmtr.encoders.raw import look_up, raw_inputs
from tfmtr.kinds import KINDS
from tfmtr.names import SCENARIO
from tfmtr.schema import Schema

DEFAULT_BRANCH, UNKNOWN_CONTEXT = "default_branch", "unknown_context"


def unknown_values(schemas: Iterable[Schema]) -> keras.Model | None:
    """The graph from raw values of a request to what one of several models does not know.

    Args:
        schemas: The models' `Schema`s, which agree on the columns that they share.

    Returns:
        Model from `{column: raw values}` of the context and the scenarios to `{"default_branch", "unknown_context"}`,
        booleans of shape `(batch, 1)`: whether a model's scenario is in no group, and whether a value of a context
        feature is in no vocabulary (one that is left out is in none). `None` where no model has such a feature and all
        have one scenario.
    """
    schemas = list(schemas)
    raw = {}
    for schema in schemas:
        raw = raw_inputs(schema, "context", scenario=True) | raw
    in_no_group, in_no_vocabulary = [], []
    for schema in schemas:
        encoded = look_up(raw, schema, "context", scenario=True)
        in_no_group.append(ops.equal(encoded[SCENARIO], 0))
        known = [f for f in schema.by_role("context") if KINDS[f.kind].has_vocabulary and not KINDS[f.kind].is_wide]
        in_no_vocabulary += [ops.equal(encoded[feature.name], 0) for feature in known]
    if not in_no_vocabulary and all(schema.scenario == schemas[0].scenario for schema in schemas):
        return None
    never = ops.zeros_like(in_no_group[0])
    found = {DEFAULT_BRANCH: in_no_group, UNKNOWN_CONTEXT: [never, *in_no_vocabulary]}
    return graph(raw, {name: ops.any(ops.stack(parts, axis=1), axis=1, keepdims=True) for name, parts in found.items()})
