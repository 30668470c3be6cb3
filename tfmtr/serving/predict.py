"""The rules of Predict that both protocols share: which tensors a request must name, and the run."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import grpc
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

from tfmtr.serving.batching import Session
from tfmtr.serving.errors import ServerError, invalid_argument


def find_signature(session: Session, name: str) -> SignatureDef:
    """The `SignatureDef` called `name`.

    Raises:
        ServerError: FAILED_PRECONDITION if there is none.
    """
    if name not in session.signatures:
        raise ServerError(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
    return session.signatures[name]


def _names(names: Iterable[str]) -> str:
    return ",".join(sorted(names))


def check_inputs(signature: SignatureDef, sent: AbstractSet[str]) -> None:
    """Raises if `sent` lacks an input that has no default value, or has more names than there are inputs.

    Raises:
        ServerError: INVALID_ARGUMENT that lists what is too much and what is missing.
    """
    input_names, defaults = set(signature.inputs), set(signature.defaults)
    if len(sent) > len(input_names) or (len(sent) < len(input_names) and not defaults):
        raise invalid_argument(
            f"input size does not match signature: {len(sent)}!={len(input_names)} len({{{_names(sent)}}}) != "
            f"len({{{_names(input_names)}}}). Sent extra: {{{_names(sent - input_names)}}}. "
            f"Missing but required: {{{_names(input_names - sent)}}}."
        )
    for alias in sorted(input_names - sent - defaults):
        raise invalid_argument(
            f"Signature input alias: {alias}(feed name: {signature.inputs[alias].name}) not found in request and no "
            f"default value provided. Inputs expected to be in the request {{{_names(sent)}}}, or default input "
            f"alias set: {_names(defaults)}"
        )


def check_names(signature: SignatureDef, sent: AbstractSet[str]) -> None:
    """Raises unless every name in `sent` is one of the signature's inputs.

    Raises:
        ServerError: INVALID_ARGUMENT that lists the names.
    """
    used = sent & set(signature.inputs)
    if used != sent:
        raise invalid_argument(
            f"Inputs contains invalid name. Used request inputs: {_names(used)}, request input: {_names(sent)}"
        )


def choose_outputs(signature: SignatureDef, output_filter: Iterable[str] = ()) -> list[str]:
    """The aliases to fetch: `output_filter`, or all of the signature.

    Raises:
        ServerError: INVALID_ARGUMENT for an unknown or repeated alias.
    """
    chosen = []
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{{{_names(signature.outputs)}}}."
            )
        if alias in chosen:
            raise invalid_argument(f"duplicate output tensor alias: {alias}")
        chosen.append(alias)
    return chosen or sorted(signature.outputs)


def predict(
    session: Session,
    signature: SignatureDef,
    inputs: Mapping[str, Any],
    outputs: Sequence[str],
    timeout_seconds: float | None = None,
) -> dict[str, Any]:
    """Runs a signature.

    Args:
        session: The `SavedModelSession`.
        signature: One of its signatures.
        inputs: `{alias: array}`, checked with `check_inputs`; absent defaults are added by the caller.
        outputs: Aliases of `choose_outputs`.
        timeout_seconds: As for `SavedModelSession.run`.

    Returns:
        `{alias: array}`.
    """
    feeds = {signature.inputs[alias].name: array for alias, array in inputs.items()}
    arrays = session.run(feeds, [signature.outputs[alias].name for alias in outputs], timeout_seconds)
    return dict(zip(outputs, arrays, strict=True))
