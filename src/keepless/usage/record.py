"""One usage record: what is written down about every request, always, and nothing else (PRODUCT 1, DECISIONS 19).

Holds: `Record`, `Sketch` (for errors only) and their closed vocabularies. Leaves out: writing (ledger), sums
(totals).

Every field is a whole number, an instant, a member of a closed enum or an id of ours; a record that holds anything
else cannot be made: `TypeError` with a fixed text. So nothing that a client typed can reach the ledger, whatever
the caller does: not an unknown model name (`model` is an id of the operator's catalogue), not a header, not an
upstream's words.
"""

from collections.abc import Iterable
from enum import IntFlag, StrEnum
from typing import Final

import msgspec

from keepless.config import Endpoint, UpstreamRetention
from keepless.errors import Code
from keepless.ids import Id
from keepless.policy.controls import Source
from keepless.policy.decision import DiscardReason

__all__ = [
    "Endpoint",
    "Flag",
    "Kind",
    "Outcome",
    "Phase",
    "Record",
    "Role",
    "Route",
    "Sketch",
    "roles_from",
    "roles_to",
]

Kind = tuple[str | int | None, ...]  # plain, and hashable at the speed of its parts

_LIMIT: Final = 2**63
_WHOLE: Final = "a usage record takes whole numbers from 0 to 63 bits"


class Route(StrEnum):
    """What kind of engine the request went to."""

    NONE = "none"
    EMBEDDED = "embedded"
    UPSTREAM = "upstream"


class Outcome(StrEnum):
    """What became of the content."""

    NONE = "none"  # nothing was kept, nothing could have been
    ON_ERROR = "on_error"  # it would have been kept had it failed; it did not
    REFUSED = "refused"  # a capture was asked for and refused; `discard` says why
    CAPTURED = "captured"
    STORED = "stored"  # the call asked for something to be kept, and it was


class Phase(StrEnum):
    """How far a request came before it failed."""

    HEAD = "head"
    BODY = "body"
    AUTHENTICATE = "authenticate"
    VALIDATE = "validate"
    LIMIT = "limit"
    ROUTE = "route"
    CONNECT = "connect"
    FIRST_BYTE = "first_byte"
    ANSWER = "answer"


class Flag(IntFlag):
    """Features a request used."""

    STREAM = 1
    INCLUDE_USAGE = 2
    SYSTEM = 4
    TOOLS = 8
    TOOL_CHOICE = 16
    JSON_OBJECT = 32
    JSON_SCHEMA = 64
    LOGPROBS = 128
    SEVERAL = 256  # n > 1
    SEED = 512
    STOP = 1024
    IMAGES = 2048
    AUDIO = 4096
    FILES = 8192
    REASONING = 16384
    PRIVACY_SWITCH = 32768
    EXTRA_PARAMETERS = 65536


class Role(StrEnum):
    """Roles of messages; the position in this list, from 1, is the octal digit in `Sketch.roles`."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"
    FUNCTION = "function"
    OTHER = "other"


_DIGIT: Final = {role.value: digit for digit, role in enumerate(Role, 1)}
_ROLES: Final = tuple(Role)
_MAX_ROLES: Final = 20  # 60 bits


def roles_from(roles: Iterable[str]) -> int:
    """The role sequence of at most the last 20 messages as one number: octal digits, the last message lowest."""
    number = 0
    for role in list(roles)[-_MAX_ROLES:]:
        number = number << 3 | _DIGIT.get(role, _DIGIT["other"])
    return number


def roles_to(number: int) -> list[Role]:
    """The role sequence that `roles_from` packed."""
    roles: list[Role] = []
    while number:
        roles.append(_ROLES[(number & 7) - 1])
        number >>= 3
    return roles[::-1]


class Sketch(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The shape of a request that failed: counts and sizes in bytes, so that it can be helped without its content."""

    phase: Phase
    flags: Flag = Flag(0)
    roles: int = 0  # see `roles_from`
    messages: int = 0
    tools: int = 0
    body_bytes: int = 0
    largest_message_bytes: int = 0
    max_tokens: int = 0  # asked for; 0 = not said
    upstream_status: int = 0  # 0 = none came
    answered_bytes: int = 0

    def __post_init__(self) -> None:
        if type(self.phase) is not Phase or type(self.flags) is not Flag:
            raise TypeError("a sketch takes members of closed enums")
        try:
            worst = (
                self.roles
                | self.messages
                | self.tools
                | self.body_bytes
                | self.largest_message_bytes
                | self.max_tokens
                | self.upstream_status
                | self.answered_bytes
            )
        except TypeError:
            worst = -1
        if type(worst) is not int or not 0 <= worst < _LIMIT:
            raise TypeError(_WHOLE)

    def row(self, request_id: str, at_ms: int) -> tuple[object, ...]:
        """Plain values in the order of the columns of `usage_sketch`."""
        return (
            request_id,
            at_ms,
            self.phase.value,
            int(self.flags),
            self.roles,
            self.messages,
            self.tools,
            self.body_bytes,
            self.largest_message_bytes,
            self.max_tokens,
            self.upstream_status,
            self.answered_bytes,
        )


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One request. Instants in Unix ms, durations in microseconds, sizes in bytes; 0 = nothing to count.

    Making one raises `TypeError` unless every value is of its closed type.
    """

    request_id: Id
    at_ms: int
    status: int
    endpoint: Endpoint = Endpoint.OTHER
    organization_id: Id | None = None
    project_id: Id | None = None
    key_id: Id | None = None
    model: Id | None = None  # of the operator's catalogue, never as the client typed it
    code: Code | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    audio_ms: int = 0
    latency_us: int = 0
    first_byte_us: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    streamed: bool = False
    batch: bool = False  # a line of a batch
    epoch: int = 0
    outcome: Outcome = Outcome.NONE
    discard: DiscardReason | None = None
    source: Source | None = None  # the level that decided
    object_id: Id | None = None  # what was captured
    route: Route = Route.NONE
    upstream: UpstreamRetention | None = None  # what the answering upstream promises to keep
    sketch: Sketch | None = None

    def __post_init__(self) -> None:
        if not (
            type(self.request_id) is Id
            and type(self.endpoint) is Endpoint
            and type(self.outcome) is Outcome
            and type(self.route) is Route
            and type(self.organization_id) in _ID
            and type(self.project_id) in _ID
            and type(self.key_id) in _ID
            and type(self.model) in _ID
            and type(self.object_id) in _ID
            and type(self.code) in _CODE
            and type(self.discard) in _DISCARD
            and type(self.source) in _SOURCE
            and type(self.upstream) in _UPSTREAM
            and type(self.sketch) in _SKETCH
        ):
            raise TypeError("a usage record takes ids of ours and members of closed enums")
        if self.sketch is not None and self.code is None:
            raise TypeError("only a request that failed has a sketch")
        try:
            # One `or` over all numbers: a text, a float or None in any place raises TypeError, and the sign and
            # the width of the result are those of the worst.
            worst = (
                self.at_ms
                | self.status
                | self.prompt_tokens
                | self.completion_tokens
                | self.cached_tokens
                | self.audio_ms
                | self.latency_us
                | self.first_byte_us
                | self.bytes_in
                | self.bytes_out
                | self.streamed
                | self.batch
                | self.epoch
            )
        except TypeError:
            worst = -1
        if type(worst) is not int or not 0 <= worst < _LIMIT:
            raise TypeError(_WHOLE)

    def kind(self) -> Kind:
        """What it has in common with many others: values in the order of the columns of `usage_kind`."""
        return (
            self.organization_id,
            self.project_id,
            self.key_id,
            self.endpoint._value_,
            self.model,
            self.status,
            None if self.code is None else self.code._value_,
            self.streamed,
            self.batch,
            self.epoch,
            self.outcome._value_,
            None if self.discard is None else self.discard._value_,
            None if self.source is None else self.source._value_,
            self.route._value_,
            None if self.upstream is None else self.upstream._value_,
        )

    def row(self, kind_id: int) -> tuple[object, ...]:
        """Plain values in the order of the columns of `usage`."""
        return (
            str(self.request_id),
            kind_id,
            self.at_ms,
            self.prompt_tokens,
            self.completion_tokens,
            self.cached_tokens,
            self.audio_ms,
            self.latency_us,
            self.first_byte_us,
            self.bytes_in,
            self.bytes_out,
            None if self.object_id is None else str(self.object_id),
        )


_NONE: Final = type(None)
_ID: Final = (_NONE, Id)
_CODE: Final = (_NONE, Code)
_DISCARD: Final = (_NONE, DiscardReason)
_SOURCE: Final = (_NONE, Source)
_UPSTREAM: Final = (_NONE, UpstreamRetention)
_SKETCH: Final = (_NONE, Sketch)
