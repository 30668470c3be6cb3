"""One loaded version: a SavedModel in a graph and a C++ session, as TF Serving runs it."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grpc
import tensorflow as tf
from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

from tfmtr.private_names import run_session, saved_model_loader, session_functions, session_handle
from tfmtr.serving.errors import CODES, STOPPING, ServerError, not_found
from tfmtr.serving.storage import Location, is_file, join, locate

SESSION = session_functions()
MOST_MILLISECONDS = 2**53  # of a run: some 285 thousand years


class SavedModelSession:
    """A SavedModel that runs named tensors, without casts and without shape checks of its own.

    The session is TensorFlow's C++ session, reached below `Session.run`: that one casts what is fed and
    refuses shapes that the graph itself takes, and TF Serving does neither.

    Args:
        path: Directory of one version: `saved_model.pb` and `variables/`; or its address.
        tags: Tags of the graph to load.
        config: `ConfigProto` of the session; what the other arguments say comes first.
        memory_fraction: Share of a GPU's memory to take; 0 for as much as is needed.
        intra_op_threads: Threads within an operation; 0 for one a core.
        inter_op_threads: Threads between operations; 0 for one a core.

    Raises:
        ServerError: If the directory holds no SavedModel, or one that cannot be loaded.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        tags: Iterable[str] = ("serve",),
        *,
        config: tf.compat.v1.ConfigProto | None = None,
        memory_fraction: float = 0.0,
        intra_op_threads: int = 0,
        inter_op_threads: int = 0,
    ) -> None:
        path = locate(path)
        if not any(is_file(join(path, name)) for name in ("saved_model.pb", "saved_model.pbtxt")):
            raise not_found(f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: {path}")
        growing = {"allow_growth": not memory_fraction}
        settings = tf.compat.v1.ConfigProto()
        settings.MergeFrom(tf.compat.v1.ConfigProto(gpu_options=growing) if config is None else config)
        settings.MergeFrom(
            tf.compat.v1.ConfigProto(
                allow_soft_placement=True,
                intra_op_parallelism_threads=intra_op_threads,
                inter_op_parallelism_threads=inter_op_threads,
                gpu_options={"per_process_gpu_memory_fraction": memory_fraction},
            )
        )
        self._graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=self._graph, config=settings)
        self._handles, self._is_cancelled = {}, False
        try:
            with self._graph.as_default():
                meta_graph = load(path, self._session, tags)
            self.signatures = dict(meta_graph.signature_def)
            for signature in self.signatures.values():
                for info in (*signature.inputs.values(), *signature.outputs.values()):
                    if ":" in info.name:
                        self._handle(info.name)
        except tf.errors.OpError as error:
            self.close()
            raise ServerError(CODES[error.error_code], error.message) from error
        except Exception as error:  # the loader's own checks raise several built-in types
            self.close()
            raise ServerError(grpc.StatusCode.UNKNOWN, str(error)) from error

    def _handle(self, name: str) -> Any:
        if name not in self._handles:
            try:
                self._handles[name] = session_handle(self._graph.get_tensor_by_name(name))
            except (KeyError, ValueError) as error:
                raise not_found(f"FetchOutputs node {name}: not found") from error
        return self._handles[name]

    def run(self, feeds: Mapping[str, Any], fetches: Sequence[str], timeout_seconds: float | None = None) -> list[Any]:
        """Runs the graph once; safe to call from many threads.

        Args:
            feeds: `{tensor name: array}`; strings are object arrays of bytes.
            fetches: Names of tensors.
            timeout_seconds: The run is cancelled after this time; `None` for no limit.

        Returns:
            The fetched arrays, in the order of `fetches`.

        Raises:
            ServerError: With TensorFlow's own code and text.
        """
        options = None
        if timeout_seconds is not None:
            proto = tf.compat.v1.RunOptions(timeout_in_ms=min(max(1, int(timeout_seconds * 1000)), MOST_MILLISECONDS))
            options = SESSION.TF_NewBufferFromString(proto.SerializeToString())
        try:
            return run_session(
                self._session,
                options,
                {self._handle(name): array for name, array in feeds.items()},
                [self._handle(name) for name in fetches],
            )
        except tf.errors.CancelledError as error:
            if not self._is_cancelled:
                raise ServerError(grpc.StatusCode.CANCELLED, error.message) from error
            raise ServerError(grpc.StatusCode.UNAVAILABLE, STOPPING) from error
        except tf.errors.OpError as error:
            raise ServerError(CODES[error.error_code], error.message) from error
        finally:
            if options is not None:
                SESSION.TF_DeleteBuffer(options)

    def cancel(self) -> None:
        """Ends the runs under way with UNAVAILABLE; nothing runs in this session afterwards."""
        session, self._is_cancelled = self._session, True
        if session is not None:
            session.close()

    def close(self) -> None:
        """Frees the variables and tables; no run may be under way."""
        self._session.close()
        self._session = None  # the C++ session, and the memory with it, lives as long as this object
        self._handles = {}
        self._graph = None


def load(path: Location, session: tf.compat.v1.Session, tags: Iterable[str]) -> MetaGraphDef:
    """Loads a SavedModel into a session and returns its MetaGraphDef; ScaNN's operations are there if it needs them."""
    loader = saved_model_loader(str(path))
    try:
        return loader.load(session, list(tags))  # pyright: ignore[reportReturnType]
    except tf.errors.NotFoundError as error:
        if "Op type not registered 'Scann>" not in error.message:
            raise
    from tfmtr.retrieval.indexes.scann import load_operations

    load_operations()
    return loader.load(session, list(tags))  # pyright: ignore[reportReturnType]
