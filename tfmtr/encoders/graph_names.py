"""Different names for the layers of a graph, whatever features and tasks are called."""

import itertools
from collections.abc import Mapping
from typing import Any

import keras

from tfmtr.private_names import history_of, node_of


def name_apart(inputs: Any, outputs: Any) -> None:
    """Gives the layers and operations between tensors different names, as a Keras model must have them.

    They are made of the names of features and tasks, so that two may meet: `prior_age_embedding` is the table of a
    feature `prior_age`, and the second table of a feature `age`; and a feature may be called `user_dense_0`. All but
    one get a number. An input yields to what computes; its tensor, the key among a model's inputs, keeps its name.

    Args:
        inputs: Inputs, in any structure.
        outputs: Outputs, in any structure.

    Example:
    >>> x = keras.Input((2,), name="dense")
    >>> name_apart(x, keras.layers.Dense(1, name="dense")(x))
    >>> history_of(x).operation.name, x.name
    ('dense_1', 'dense')
    """
    histories = [history_of(tensor) for tensor in keras.tree.flatten([outputs, inputs])]
    nodes = [node_of(operation, index) for operation, index, _ in histories]
    seen, operations = set(nodes), {}
    while nodes:
        node = nodes.pop()
        operations[node.operation] = None
        nodes += [parent for parent in node.parent_nodes if parent not in seen]
        seen.update(node.parent_nodes)
    names, used = {operation.name for operation in operations}, set()
    for operation in sorted(operations, key=lambda operation: isinstance(operation, keras.layers.InputLayer)):
        if operation.name in used:
            numbered = (f"{operation.name}_{number}" for number in itertools.count(1))
            operation.name = next(name for name in numbered if name not in names)
            names.add(operation.name)
        used.add(operation.name)


def graph(inputs: Mapping[str, Any], outputs: Any) -> keras.Model:
    """The Keras model between inputs that features name as they like and outputs."""
    name_apart(inputs, outputs)
    return keras.Model(inputs, outputs)
