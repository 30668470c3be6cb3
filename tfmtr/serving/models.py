"""The models of one server: what its configuration asks for, and from a request's `ModelSpec` to a loaded version."""

# Protobuf makes its classes when it is imported:
# pyright: reportAttributeAccessIssue=false

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence

import grpc
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.config.file_system_storage_path_source_pb2 import FileSystemStoragePathSourceConfig
from tensorflow_serving.config.model_server_config_pb2 import ModelConfigList

from tfmtr.serving.errors import ServerError, invalid_argument, not_found
from tfmtr.serving.request_counts import METRICS
from tfmtr.serving.storage import check_scheme
from tfmtr.serving.versions import Model, Policy, Version, all_versions, latest, specific


class Models:
    """Keeps the configured models, and chooses model and version for a request.

    Args:
        make: `make(name, base_path, policy=...)`, returns a `tfmtr.serving.versions.Model` that is not started.
        allow_labels_for_unavailable: Whether a new label may be given to a version that is not available.
        check_method_names: Whether Classify and Regress need signatures of these method names.
        as_content: Whether outputs are raw bytes instead of typed values.

    Iterating yields the models that are configured now.
    """

    def __init__(
        self,
        make: Callable[..., Model],
        *,
        allow_labels_for_unavailable: bool = False,
        check_method_names: bool = False,
        as_content: bool = False,
    ) -> None:
        self._make, self.check_method_names, self.as_content = make, check_method_names, as_content
        self._allow_labels = allow_labels_for_unavailable
        self.count_fallbacks = METRICS.count_fallbacks
        self._models = {}  # all that were ever configured: their versions are remembered
        self._configured = {}  # {name: (base path, bytes of the policy)}
        self._labels = {}
        self._lock = threading.Lock()
        self._generation = 0

    def __iter__(self) -> Iterator[Model]:
        return iter([self._models[name] for name in self._configured])

    def configure(self, model_config_list: ModelConfigList) -> list[Model]:
        """Makes the models those of a `ModelConfigList`: starts new ones, changes known ones, unloads the others.

        Returns:
            The new `Model`s, which load in threads of their own.

        Raises:
            ServerError: INVALID_ARGUMENT if the list is not well-formed; nothing is changed then.
        """
        check_config(model_config_list, self._configured)
        with self._lock:
            self._generation += 1
            configs = {c.name: c for c in model_config_list.config}
            for name in set(self._configured) - set(configs):
                self._models[name].configure(None, None)
                del self._configured[name]
                self._labels.pop(name, None)
            new = []
            for name, config in configs.items():
                place = config.base_path, config.model_version_policy.SerializeToString(deterministic=True)
                policy = make_policy(config.model_version_policy)
                if name not in self._models:
                    self._models[name] = self._make(name, config.base_path, policy=policy)
                    self._models[name].start()
                elif self._configured.get(name) != place:
                    self._models[name].configure(config.base_path, policy)
                if name not in self._configured:
                    new.append(self._models[name])
                self._configured[name] = place
        return new

    def reload(self, model_config_list: ModelConfigList, timeout_seconds: float | None = None) -> None:
        """`configure`, then waits for the new models and gives the labels.

        Args:
            model_config_list: The `ModelConfigList`.
            timeout_seconds: Longest time to wait.

        Raises:
            ServerError: INVALID_ARGUMENT if the list is not well-formed, UNKNOWN if a new model has no version that can
                be loaded, FAILED_PRECONDITION if a label's version is not available.
        """
        new = self.configure(model_config_list)
        generation, end = self._generation, time.monotonic() + (timeout_seconds or 1e9)
        failures = []
        for model in new:
            try:
                if not model.wait_until_available(min(1e6, max(0.0, end - time.monotonic())), is_needed=True):
                    if time.monotonic() >= end:
                        raise ServerError(grpc.StatusCode.DEADLINE_EXCEEDED, f"model {model.name} is still loading")
                    raise not_found(f"no version of model {model.name} under {model.base_path}")
            except ServerError as error:
                versions = [version.number for version in model.status() if version.error]
                failures.append((model.name, versions[0] if versions else "none", error))
        if failures:
            raise ServerError(grpc.StatusCode.UNKNOWN, unavailable_text(failures))
        with self._lock:
            if generation == self._generation:  # otherwise another configuration has come meanwhile
                self._assign_labels(model_config_list)

    def _assign_labels(self, model_config_list: ModelConfigList) -> None:
        labels = {config.name: dict(config.version_labels) for config in model_config_list.config}
        for name, numbers in labels.items():
            for label, number in numbers.items():
                is_known = self._labels.get(name, {}).get(label, number) != number
                if not self._models[name].is_available(number) and (is_known or not self._allow_labels):
                    raise ServerError(
                        grpc.StatusCode.FAILED_PRECONDITION,
                        f"Request to assign label to version {number} of model {name}, which is not currently "
                        "available for inference",
                    )
        self._labels = labels

    def cancel(self) -> None:
        """Ends the runs under way, and all that would come, with UNAVAILABLE."""
        for model in list(self._models.values()):
            model.cancel()

    def stop(self) -> None:
        """Unloads everything."""
        for model in self._models.values():
            model.stop()

    @contextlib.contextmanager
    def lease(self, spec: ModelSpec) -> Iterator[Version]:
        """Holds the version that a `ModelSpec` asks for: that number or label, or by default the largest available.

        Raises:
            ServerError: If the spec names no model, an unknown label or what is not available.
        """
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        number = spec.version.value if choice == "version" else None
        if choice == "version_label":
            number = self._labels.get(spec.name, {}).get(spec.version_label)
            if number is None:
                raise invalid_argument(f"Unrecognized servable version label: {spec.version_label}")
        if spec.name not in self._models:
            which = f"Latest({spec.name})" if number is None else f"Specific({spec.name}, {number})"
            raise not_found(f"Servable not found for request: {which}")
        with self._models[spec.name].lease(number) as version:
            yield version

    def status(self, spec: ModelSpec) -> list[Version]:
        """The `Version`s of a model, newest first; of one number if the spec has one, whatever its label.

        Raises:
            ServerError: NOT_FOUND if the server has never seen any.
        """
        number = spec.version.value if spec.WhichOneof("version_choice") == "version" else None
        versions = self._models[spec.name].status(number) if spec.name in self._models else []
        if not versions:
            what = "any versions" if number is None else f"version {number}"
            raise not_found(f"Could not find {what} of model {spec.name}")
        return versions


def unavailable_text(failures: Sequence[tuple[str, int | str, ServerError]]) -> str:
    """The text of the models that did not become available.

    Example:
    >>> unavailable_text([("toy", 1, not_found("gone"))])
    '1 model(s) did not become available: {{{name: toy version: 1} due to error: NOT_FOUND: gone}, }'
    """
    each = "".join(
        f"{{{{name: {name} version: {number}}} due to error: {error}}}, " for name, number, error in failures
    )
    return f"{len(failures)} model(s) did not become available: {{{each}}}"


def make_policy(policy: FileSystemStoragePathSourceConfig.ServableVersionPolicy) -> Policy:
    """The function of a `ServableVersionPolicy`: from the numbers on disk to those that are wanted."""
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return all_versions
    if choice == "specific":
        return specific(policy.specific.versions)
    return latest(max(1, policy.latest.num_versions))


def check_config(model_config_list: ModelConfigList, known: Collection[str] = ()) -> None:
    """Raises unless every model has a name of its own, an absolute path or an address and the platform "tensorflow".

    Args:
        model_config_list: The `ModelConfigList`.
        known: Names of the models that are configured now.

    Raises:
        ServerError: INVALID_ARGUMENT that names the model.
    """
    names = set()
    for config in model_config_list.config:
        name, path = config.name, config.base_path
        if name in names:
            raise invalid_argument(f"Illegal to list model {name} multiple times in config list")
        names.add(name)
        if not path.startswith("/") and "://" not in path:
            raise invalid_argument(f"Expected model {name} to have an absolute path or URI; got base_path()={path}")
        try:
            check_scheme(path)
        except ValueError as error:
            raise invalid_argument(f"Model {name}: {error}") from error
        if config.model_type and config.model_platform:
            raise invalid_argument(
                "Illegal setting both ModelServerConfig::model_type (deprecated) and ModelServerConfig::model_platform."
            )
        platform = config.model_platform or {1: "tensorflow", 2: "other"}.get(config.model_type, "")
        if not platform:
            raise invalid_argument(
                "Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
                "ModelServerConfig::model_platform."
            )
        if platform != "tensorflow" and name in known:
            raise invalid_argument(
                f"Illegal to change a model's platform. For model {name} platform was tensorflow and new platform "
                f"requested is {platform}"
            )
        if platform != "tensorflow":
            raise invalid_argument(f"Model {name} requests unsupported platform {platform}")
