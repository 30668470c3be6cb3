"""The models of one server: from the `ModelSpec` of a request to a loaded version."""

import contextlib

from tfmtr.serving.errors import invalid_argument, not_found


class Models:
    """Chooses model and version for a request.

    Args:
        models: The `tfmtr.serving.versions.Model`s.
    """

    def __init__(self, models):
        self._models = {model.name: model for model in models}

    def __iter__(self):
        return iter(self._models.values())

    @contextlib.contextmanager
    def lease(self, spec):
        """Holds the version that a `ModelSpec` asks for: that number, or by default the largest available.

        Raises:
            ServerError: If the spec names no model, a label (this server has none) or what is not available.
        """
        if not spec.name:
            raise invalid_argument("ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        if choice == "version_label":
            raise invalid_argument(f"Unrecognized servable version label: {spec.version_label}")
        number = spec.version.value if choice == "version" else None
        if spec.name not in self._models:
            which = f"Latest({spec.name})" if number is None else f"Specific({spec.name}, {number})"
            raise not_found(f"Servable not found for request: {which}")
        with self._models[spec.name].lease(number) as version:
            yield version

    def status(self, spec):
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
