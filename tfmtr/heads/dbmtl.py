"""Tasks whose towers depend on those of other tasks, in any acyclic graph."""

import graphlib
from collections.abc import Mapping, Sequence

import keras
from keras import ops

from tfmtr.checks import check_choice
from tfmtr.heads._head import Context, Head, Tensors, task_losses, task_outputs, task_towers
from tfmtr.schema import Task


def dbmtl(tasks: Sequence[Task], *, parents: Mapping[str, Sequence[str]] | None = None) -> Head:
    """Factorises the joint probability of the labels along a graph of tasks.

        p(l_1 .. l_T | x) = prod_t p(l_t | x, parents of t),    z_t = W_t ReLU(V_t [q_t, z_i for the parents i])

    with tower vectors `q` and a linear logit of `z_t`. A task reads what its parents know, not their labels, so that
    nothing is asked for at serving time.

    Reference: Wang et al., Deep Bayesian Multi-Target Learning for Recommender Systems, 2019,
    https://arxiv.org/abs/1902.09154, section 3.2. The paper's conditional networks are ours of one hidden layer.

    Args:
        tasks: The schema's tasks.
        parents: `{task: names of its parents}`; by default each task's `after`.

    Returns:
        A `Head` with one output a task.

    Raises:
        ValueError: If a name is no task's, no task has a parent, or the graph has a circle.

    Example:
    >>> from tfmtr.schema import Task
    >>> head = dbmtl([Task("click"), Task("like"), Task("buy")], parents={"buy": ("click", "like")})
    >>> sorted(head.towers())
    ['buy', 'click', 'like']
    """
    names = [task.name for task in tasks]
    if parents is None:
        parents = {task.name: (task.after,) for task in tasks if task.after is not None}
    for name in [*parents, *(parent for several in parents.values() for parent in several)]:
        check_choice("parents", name, names)
    if not any(parents.values()):
        raise ValueError(
            "`head=dbmtl` needs a graph of tasks: `parents={task: (parents, ...)}`, or tasks with `after`. "
            f"Received: {names}, none with a parent"
        )
    try:
        order = list(graphlib.TopologicalSorter(parents).static_order())
    except graphlib.CycleError as error:
        raise ValueError(f"`parents` must have no circle. Received: {' -> '.join(error.args[1])}") from None

    def relate(vectors: Tensors) -> Tensors:
        related = dict(vectors)
        for name in order:
            if parents.get(name):
                width = vectors[name].shape[-1]
                x = ops.concatenate([vectors[name], *(related[parent] for parent in parents[name])], axis=-1)
                x = keras.layers.Dense(width, activation="relu", name=f"{name}_given_parents")(x)
                related[name] = keras.layers.Dense(width, name=f"{name}_related")(x)
        return related

    def losses(outputs: Tensors, logits: Tensors, vectors: Tensors, labels: Tensors, context: Context) -> Tensors:
        return task_losses(tasks, logits, labels, context)

    return Head(lambda: task_towers(tasks), lambda logits: task_outputs(tasks, logits), losses, relate)
