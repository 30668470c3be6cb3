"""What Keras and TensorFlow have no public name for: all uses of their private names, so that an update has one place.

Elsewhere are methods of Keras's alone that a class replaces: `JointModel._maybe_symbolic_build`, and `_clip_gradients`
of the row-sparse optimizers. Nothing heavy is imported before a function is called.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

KERAS_CLASSES = "keras.src.saving.object_registration"  # the module of the dictionary of classes by registered name


def is_loading_safely() -> bool:
    """Whether Keras loads a file in its safe mode, which runs no code that the file names."""
    from keras.src.saving.serialization_lib import in_safe_mode

    return bool(in_safe_mode())


def layers_within(model: Any) -> list[Any]:
    """A Keras model and all layers in it, at any depth."""
    return list(model._flatten_layers())


def count_loss(model: Any, loss: Any, rows: Any) -> None:
    """Has Keras's mean of an epoch's losses count one more batch of so many rows."""
    model._loss_tracker.update_state(loss, sample_weight=rows)


def is_decayed(optimizer: Any, variable: Any) -> bool:
    """Whether an optimizer's weight decay acts on a variable."""
    return bool(optimizer._use_weight_decay(variable))


def place_of(optimizer: Any, variable: Any) -> int:
    """Number of a variable among those that an optimizer was built with."""
    return optimizer._get_variable_index(variable)


def moving_averages(optimizer: Any) -> list[Any]:
    """An optimizer's moving averages of the model's trainable variables, in their order; it must `use_ema`."""
    return optimizer._model_variables_moving_average


def history_of(tensor: Any) -> Any:
    """Where a symbolic tensor of Keras comes from: `(operation, node_index, tensor_index)`."""
    return tensor._keras_history


def node_of(operation: Any, index: int) -> Any:
    """One call of a Keras operation in a graph, with its arguments."""
    return operation._inbound_nodes[index]


def nodes_of(model: Any) -> Iterator[Any]:
    """All calls of operations in a functional model, each after those that it needs."""
    for depth in sorted(model._nodes_by_depth, reverse=True):
        yield from (node for node in model._nodes_by_depth[depth] if node.operation and not node.is_input)


def saved_object(archive: Any) -> Any:
    """What an `ExportArchive` saves: its attributes are the endpoints, and what is tracked beside them."""
    return archive._tf_trackable


def untrack_layers(archive: Any) -> None:
    """Has an `ExportArchive` trace no layer that it tracks again, and write no variable twice.

    It keeps Keras's variables beside those of TensorFlow that its functions use, and writes both.
    """
    archive._tracked = []
    for name in ("variables", "trainable_variables", "non_trainable_variables"):
        setattr(archive._tf_trackable, name, [])


@contextlib.contextmanager
def op_determinism(is_on: bool) -> Iterator[None]:
    """Makes TensorFlow's ops deterministic while it lasts; the setting is the process's, and other models may mind."""
    from tensorflow.python.framework import config  # TensorFlow exports no way to ask or to switch it off

    if not is_on or config.is_op_determinism_enabled():
        yield
        return
    config.enable_op_determinism()
    try:
        yield
    finally:
        config.disable_op_determinism()


def is_operation(name: str) -> bool:
    """Whether TensorFlow knows an operation of this name."""
    from tensorflow.python.framework import op_def_registry

    return op_def_registry.get(name) is not None


def saved_model_loader(path: str) -> Any:
    """Loads a SavedModel into a session: `saved_model_loader(path).load(session, tags)`."""
    from tensorflow.python.saved_model.loader_impl import SavedModelLoader

    return SavedModelLoader(path)


def session_functions() -> ModuleType:
    """TensorFlow's C++ session below `Session.run`: `TF_NewBufferFromString` and `TF_DeleteBuffer` of options."""
    from tensorflow.python.client import pywrap_tf_session

    return pywrap_tf_session


def session_handle(tensor: Any) -> Any:
    """What the C++ session calls a tensor of a graph."""
    return tensor._as_tf_output()


def run_session(session: Any, options: Any, feeds: Mapping[Any, Any], fetches: Sequence[Any]) -> list[Any]:
    """Runs handles in the C++ session, which casts nothing and checks no shape."""
    return session._call_tf_sessionrun(options, feeds, fetches, [], None)
