"""The shape of a request whose content is one member, `input`, without that content: embeddings and speech.

Holds: `sketch_of`, `NO_FLAG`. Leaves out: conversations (shape). Works on any JSON, refused or not.
"""

from collections.abc import Mapping
from typing import Any, Final

from keepless.gateway.embedding_params import inputs_of
from keepless.gateway.rules import Parameter
from keepless.gateway.switches import BODY
from keepless.usage.record import Flag, Phase, Sketch

__all__ = ["NO_FLAG", "sketch_of"]

NO_FLAG: Final = Flag(0)
_SWITCHES: Final = frozenset(member.path[0] for member in BODY)


def sketch_of(
    body: Mapping[str, Any] | None,
    parameters: Mapping[str, Parameter],
    phase: Phase,
    *,
    body_bytes: int,
    upstream_status: int = 0,
    answered_bytes: int = 0,
    flags: Flag = NO_FLAG,
) -> Sketch:
    """The sketch of a request; `body` None = it could not even be read. An input of tokens counts 4 bytes each."""
    inputs = [] if body is None else inputs_of(dict(body))
    for name in body or ():
        if name in _SWITCHES:
            flags |= Flag.PRIVACY_SWITCH
        elif name not in parameters:
            flags |= Flag.EXTRA_PARAMETERS
    return Sketch(
        phase=phase,
        flags=flags,
        messages=len(inputs),
        body_bytes=body_bytes,
        largest_message_bytes=max(map(_size, inputs), default=0),
        upstream_status=upstream_status,
        answered_bytes=answered_bytes,
    )


def _size(value: Any) -> int:
    if type(value) is str:
        return len(value.encode("utf-8", "surrogatepass"))
    return 4 * len(value) if type(value) is list else 0
