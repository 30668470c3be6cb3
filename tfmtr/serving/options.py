"""What a server can be told; imports nothing heavy, so that the command can show it."""

import dataclasses
import os
from typing import Any


def _flag(default: Any, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": text})


def _without_effect(default: Any, why: str) -> Any:
    """A flag that is taken and changes no answer; `start` warns once of those that are given."""
    return dataclasses.field(default=default, metadata={"help": f"Accepted, without effect: {why}.", "why": why})


def _refused(default: Any, why: str) -> Any:
    """A flag that would change answers, or who gets them, and is refused unless it has its default."""
    return dataclasses.field(default=default, metadata={"help": f"Refused: {why}.", "refused": why})


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """`tensorflow_model_server`'s flags under their own names, all of them, and two more (`host`, `max_request_bytes`).

    Three defaults differ from its own: the server is reachable from this machine only, a version that cannot be loaded
    is given up after 5 seconds instead of 5 minutes, and calls beyond the number of threads wait instead of being
    refused.
    """

    model_base_path: str = _flag("", "Directory with the model's versions.")
    model_name: str = _flag("default", "Name that clients ask for.")
    model_config_file: str = _flag("", "ModelServerConfig in protobuf's text format, instead of one model.")
    model_config_file_poll_wait_seconds: int = _flag(0, "Seconds between looks at that file; 0: one look.")
    port: int | None = _flag(8500, "gRPC port; 0: off.")
    rest_api_port: int | None = _flag(0, "REST port; 0: off.")
    host: str = _flag("127.0.0.1", "Address to listen on.")
    grpc_socket_path: str = _flag("", "A Unix socket to listen on, too.")
    grpc_channel_arguments: str = _flag("", "gRPC's own options: name=value,name=value.")
    grpc_max_threads: int = _flag(0, "gRPC calls worked on at once; 0: 4 a core, 64 with batching.")
    rest_api_num_threads: int = _flag(0, "The same of REST.")
    rest_api_timeout_in_ms: int = _flag(30_000, "Limit of a REST request's run.")
    rest_api_enable_cors_support: bool = _flag(False, "Let web pages of other origins ask.")
    max_request_bytes: int = _flag(0, "Largest request of either port; 0: 16 MiB of REST, 2 GiB of gRPC.")
    ssl_config_file: str = _flag("", "SSLConfig in protobuf's text format, its fields PEM text, for both ports.")
    file_system_poll_wait_seconds: float = _flag(1.0, "Seconds between looks for versions; 0: once; negative: never.")
    max_num_load_retries: int = _flag(5, "Further attempts for a version that cannot be loaded.")
    load_retry_interval_micros: int = _flag(1_000_000, "Microseconds between two attempts.")
    num_load_threads: int = _without_effect(0, "every model loads in a thread of its own")
    num_unload_threads: int = _without_effect(0, "unloading holds nobody up")
    flush_filesystem_caches: bool = _without_effect(True, "the operating system keeps what it has room for")
    saved_model_tags: str = _flag("serve", "Tags of the graph to load.")
    allow_version_labels_for_unavailable_models: bool = _flag(
        False, "New labels may be given before a version is loaded."
    )
    enable_model_warmup: bool = _flag(True, "Replay a version's saved requests before it serves.")
    num_request_iterations_for_warmup: int = _flag(1, "How often.")
    enable_batching: bool = _flag(False, "Run requests of several clients together.")
    batching_parameters_file: str = _flag("", "BatchingParameters in protobuf's text format.")
    enable_per_model_batching_parameters: bool = _flag(False, "Read them from <version>/batching_params.pbtxt.")
    monitoring_config_file: str = _flag("", "MonitoringConfig in protobuf's text format.")
    enable_grpc_healthcheck_service: bool = _flag(False, "Serve grpc.health.v1.Health.")
    enable_serialization_as_tensor_content: bool = _flag(False, "Answer raw bytes instead of typed values.")
    enable_signature_method_name_check: bool = _flag(False, "Classify and Regress only signatures of these methods.")
    per_process_gpu_memory_fraction: float = _flag(0.0, "Share of a GPU's memory to take; 0: as needed.")
    tensorflow_session_parallelism: int = _flag(0, "Threads of a run, within and between operations; 0: one a core.")
    tensorflow_intra_op_parallelism: int = _flag(0, "Threads within an operation.")
    tensorflow_inter_op_parallelism: int = _flag(0, "Threads between operations.")
    tensorflow_session_config_file: str = _flag("", "ConfigProto in protobuf's text format; other flags come first.")
    remove_unused_fields_from_bundle_metagraph: bool = _without_effect(True, "only the signatures of a graph are kept")
    enable_profiler: bool = _without_effect(True, "there is no profiler service")
    num_tflite_pools: int = _without_effect(0, "no model of TensorFlow Lite is served")
    num_tflite_interpreters_per_pool: int = _without_effect(1, "no model of TensorFlow Lite is served")
    xla_cpu_compilation_enabled: bool = _without_effect(False, "what a graph has compiled is compiled")
    xla_gpu_compilation_enabled: bool = _without_effect(False, "what a graph has compiled is compiled")
    thread_pool_factory_config_file: str = _without_effect("", "runs share the session's threads")
    skip_initialize_tpu: bool = _without_effect(False, "no TPU is used")
    prefer_tflite_model: bool = _refused(False, "another model would answer, and this server runs SavedModels only")
    mixed_precision: str = _refused("", "answers would be less exact; train or export in the precision that you want")
    platform_config_file: str = _refused("", "it may replace every other flag; say what you need by the flags")
    use_alts_credentials: bool = _refused(False, "clients would be served without a check; use --ssl_config_file")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_kind(field.name, getattr(self, field.name), field.type)
            if "refused" in field.metadata and getattr(self, field.name) != field.default:
                raise ValueError(
                    f"--{field.name} must be left out: {field.metadata['refused']}. Received: "
                    f"{field.name}={getattr(self, field.name)!r}"
                )
        if self.port is None and self.rest_api_port is None and not self.grpc_socket_path:
            raise ValueError(
                "--port, --rest_api_port or --grpc_socket_path must say where to listen. Received: none of them, or 0"
            )
        if not self.model_base_path and not self.model_config_file:
            raise ValueError(
                "--model_base_path or --model_config_file must say what to serve (the file counts if both are given). "
                "Received: neither"
            )
        if self.batching_parameters_file and not self.enable_batching:
            raise ValueError(
                "--batching_parameters_file needs --enable_batching. Received: "
                f"batching_parameters_file={self.batching_parameters_file!r}"
            )
        for name in ("grpc_max_threads", "rest_api_num_threads", "max_request_bytes", "max_num_load_retries"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} must not be negative. Received: {name}={getattr(self, name)}")

    def without_effect(self) -> list[str]:
        """Of the flags that are given and have no effect here, each with the reason."""
        given = [f for f in dataclasses.fields(self) if "why" in f.metadata and getattr(self, f.name) != f.default]
        return [f"--{field.name} ({field.metadata['why']})" for field in given]


def _check_kind(name: str, value: Any, kind: Any) -> None:
    """Raises a `ValueError` unless a value is of its field's type; a path is text, and a port is one that can be."""
    kinds = {str: str | os.PathLike, float: float | int}
    if not isinstance(value, kinds.get(kind, kind)) or (isinstance(value, bool) and kind is not bool):  # pyright: ignore[reportArgumentType]
        raise ValueError(f"--{name} must be of the type {getattr(kind, '__name__', kind)}. Received: {name}={value!r}")
    if name in ("port", "rest_api_port") and value is not None and not 0 <= value <= 65_535:
        raise ValueError(f"--{name} must be a port, from 0 to 65535. Received: {name}={value}")
