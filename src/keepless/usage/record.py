"""One usage record: what is written down about every request, always, and nothing else (PRODUCT 1, DECISIONS 19).

Holds: `Record` and its closed vocabularies. Leaves out: writing (ledger), sums (totals), the shape of what failed
(sketch).

Every field is a whole number, an instant, a member of a closed enum or an id of ours; a record that holds anything
else cannot be made: `TypeError` with a fixed text. So nothing that a client typed can reach the ledger, whatever
the caller does: not an unknown model name (`model` is an id of the operator's catalogue), not a header, not an
upstream's words.
"""

from enum import StrEnum
from typing import Final

from keepless.config import Endpoint, UpstreamRetention
from keepless.errors import Code
from keepless.ids import Id
from keepless.policy.controls import Source
from keepless.policy.decision import DiscardReason
from keepless.usage.sketch import Flag, Phase, Role, Sketch, roles_from, roles_to

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


# Looked up once: a member of an enum costs ten times a name.
_NOT_KEPT: Final = Outcome.NONE
_NOWHERE: Final = Route.NONE
_OTHER: Final = Endpoint.OTHER
_NONE: Final = type(None)
_ID: Final = (_NONE, Id)
_CODE: Final = (_NONE, Code)
_DISCARD: Final = (_NONE, DiscardReason)
_SOURCE: Final = (_NONE, Source)
_UPSTREAM: Final = (_NONE, UpstreamRetention)
_SKETCH: Final = (_NONE, Sketch)


class Record:
    """One request. Instants in Unix ms, durations in microseconds, sizes in bytes; 0 = nothing to count.

    Making one raises `TypeError` unless every value is of its closed type.
    """

    __slots__ = (
        "at_ms",
        "audio_ms",
        "batch",
        "bytes_in",
        "bytes_out",
        "cached_tokens",
        "code",
        "completion_tokens",
        "discard",
        "endpoint",
        "epoch",
        "first_byte_us",
        "key_id",
        "latency_us",
        "model",
        "object_id",
        "organization_id",
        "outcome",
        "project_id",
        "prompt_tokens",
        "request_id",
        "route",
        "sketch",
        "source",
        "status",
        "streamed",
        "upstream",
    )

    def __init__(
        self,
        *,
        request_id: Id,
        at_ms: int,
        status: int,
        endpoint: Endpoint = _OTHER,
        organization_id: Id | None = None,
        project_id: Id | None = None,
        key_id: Id | None = None,
        model: Id | None = None,  # of the operator's catalogue, never as the client typed it
        code: Code | None = None,
        prompt_tokens: int = 0,
        completion_tokens: int = 0,
        cached_tokens: int = 0,
        audio_ms: int = 0,
        latency_us: int = 0,
        first_byte_us: int = 0,
        bytes_in: int = 0,
        bytes_out: int = 0,
        streamed: bool = False,
        batch: bool = False,  # a line of a batch
        epoch: int = 0,
        outcome: Outcome = _NOT_KEPT,
        discard: DiscardReason | None = None,
        source: Source | None = None,  # the level that decided
        object_id: Id | None = None,  # what was captured
        route: Route = _NOWHERE,
        upstream: UpstreamRetention | None = None,  # what the answering upstream promises to keep
        sketch: Sketch | None = None,
    ) -> None:
        if not (
            type(request_id) is Id
            and type(endpoint) is Endpoint
            and type(outcome) is Outcome
            and type(route) is Route
            and type(organization_id) in _ID
            and type(project_id) in _ID
            and type(key_id) in _ID
            and type(model) in _ID
            and type(object_id) in _ID
            and type(code) in _CODE
            and type(discard) in _DISCARD
            and type(source) in _SOURCE
            and type(upstream) in _UPSTREAM
            and type(sketch) in _SKETCH
        ):
            raise TypeError("a usage record takes ids of ours and members of closed enums")
        if sketch is not None and code is None:
            raise TypeError("only a request that failed has a sketch")
        try:
            # One `or` over all numbers: a text, a float or None in any place raises TypeError, and the sign and
            # the width of the result are those of the worst.
            worst: int = (
                at_ms
                | status
                | prompt_tokens
                | completion_tokens
                | cached_tokens
                | audio_ms
                | latency_us
                | first_byte_us
                | bytes_in
                | bytes_out
                | streamed
                | batch
                | epoch
            )
        except TypeError:
            worst = -1
        if type(worst) is not int or not 0 <= worst < _LIMIT:
            raise TypeError(_WHOLE)
        self.request_id: Final = request_id
        self.at_ms: Final = at_ms
        self.status: Final = status
        self.endpoint: Final = endpoint
        self.organization_id: Final = organization_id
        self.project_id: Final = project_id
        self.key_id: Final = key_id
        self.model: Final = model
        self.code: Final = code
        self.prompt_tokens: Final = prompt_tokens
        self.completion_tokens: Final = completion_tokens
        self.cached_tokens: Final = cached_tokens
        self.audio_ms: Final = audio_ms
        self.latency_us: Final = latency_us
        self.first_byte_us: Final = first_byte_us
        self.bytes_in: Final = bytes_in
        self.bytes_out: Final = bytes_out
        self.streamed: Final = streamed
        self.batch: Final = batch
        self.epoch: Final = epoch
        self.outcome: Final = outcome
        self.discard: Final = discard
        self.source: Final = source
        self.object_id: Final = object_id
        self.route: Final = route
        self.upstream: Final = upstream
        self.sketch: Final = sketch

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
