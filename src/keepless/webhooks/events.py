"""What an endpoint can be told of, and the body it is sent: ids only, never a name, a count or a result.

Holds: `EventType` (the closed list, in OpenAI's words) and `payload`. Leaves out: who is told
(outbox), the signature.
"""

from enum import StrEnum
from typing import Final

import msgspec

from keepless.ids import Id

__all__ = ["EventType", "mask_of", "payload", "types_in"]


class EventType(StrEnum):
    """What happened. The order never changes: a set of them is stored as bits."""

    BATCH_COMPLETED = "batch.completed"
    BATCH_FAILED = "batch.failed"
    BATCH_EXPIRED = "batch.expired"
    BATCH_CANCELLED = "batch.cancelled"
    FILE_EXPIRING = "file.expiring"  # an extension: results that nobody has downloaded end in three days
    TUNING_SUCCEEDED = "fine_tuning.job.succeeded"
    TUNING_FAILED = "fine_tuning.job.failed"
    TUNING_CANCELLED = "fine_tuning.job.cancelled"


_ALL: Final = tuple(EventType)


class _Subject(msgspec.Struct):
    id: str


class _Event(msgspec.Struct, kw_only=True):
    id: str
    object: str = "event"
    type: EventType
    created_at: int
    data: _Subject


def mask_of(types: list[EventType]) -> int:
    """A set of types as bits."""
    return sum(1 << _ALL.index(one) for one in set(types))


def types_in(mask: int) -> list[EventType]:
    """The types in a set of bits."""
    return [one for at, one in enumerate(_ALL) if mask >> at & 1]


def payload(event_id: Id, kind: EventType, subject_id: Id, created_at_ms: int) -> bytes:
    """The body of a delivery: the same bytes at every attempt."""
    event = _Event(id=str(event_id), type=kind, created_at=created_at_ms // 1000, data=_Subject(str(subject_id)))
    return msgspec.json.encode(event)
