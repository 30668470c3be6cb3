"""A functional model for users with many titles each: what depends on the user alone is computed once a user."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops, tree

from tfmtr.private_names import nodes_of


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """A tensor in the graph, and whether it has a row a pair or a row a user."""

    tensor: Any
    is_pair: bool


def call_pairs(
    model: keras.Model, users: Mapping[str, Any], titles: Mapping[str, Any], number: Any
) -> dict[str, keras.KerasTensor]:
    """A functional model's outputs for all pairs of a user with one of the user's titles.

    Every operation runs on the fewest rows that it can: one whose inputs are of users alone once a user. Where a user's
    tensor meets a title's, it is repeated. The model must compute each row by itself, as it does when it is served.

    Args:
        model: From `{name: tensor}` to `{name: tensor}`.
        users: `{name: tensor of shape (batch, ...)}` of the inputs of users.
        titles: `{name: tensor of shape (batch * number, ...)}` of all others: the first user's titles come first.
        number: Titles of each user, an integer or a scalar tensor.

    Returns:
        `{name: tensor of shape (batch * number, ...)}`.

    Raises:
        ValueError: If an input is in neither.
    """
    given: dict[str, Any] = model.input  # pyright: ignore[reportAssignmentType]
    wanted: dict[str, Any] = model.output  # pyright: ignore[reportAssignmentType]
    if missing := set(given) - set(users) - set(titles):
        raise ValueError(f"`users` and `titles` must have all inputs of the model. Received: none of {sorted(missing)}")
    rows = {id(t): Rows(titles[n] if n in titles else users[n], n in titles) for n, t in given.items()}
    repeated: dict[int, Any] = {}

    def for_pairs(one: Rows) -> Any:
        if one.is_pair:
            return one.tensor
        if id(one) not in repeated:
            repeated[id(one)] = ops.repeat(one.tensor, number, axis=0)
        return repeated[id(one)]

    for node in nodes_of(model):
        arguments = node.arguments.fill_in(rows)
        is_pair = any(isinstance(leaf, Rows) and leaf.is_pair for leaf in tree.flatten(arguments))

        def tensor_of(leaf: Any, is_pair: bool = is_pair) -> Any:
            if not isinstance(leaf, Rows):
                return leaf
            return for_pairs(leaf) if is_pair else leaf.tensor

        args, kwargs = tree.map_structure(tensor_of, arguments)  # pyright: ignore[reportGeneralTypeIssues]
        made = tree.flatten(node.operation(*args, **kwargs))
        rows.update({id(t): Rows(value, is_pair) for t, value in zip(node.outputs, made, strict=True)})
    return {name: for_pairs(rows[id(tensor)]) for name, tensor in wanted.items()}
