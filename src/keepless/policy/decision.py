"""What `decide` answers: `Retain`, the permit that the vault's door demands, or `Discard` with its reason.

Only `keepless.policy.decide` can make a `Retain`: the constructor asks for a seal that no other module may import
(a lint rule and a typing test hold that), and there is no default anywhere.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, final

from keepless.policy.controls import Source
from keepless.policy.data_class import DataClass

__all__ = ["Decision", "Discard", "DiscardReason", "Reason", "Retain", "Trigger"]


class Trigger(StrEnum):
    """What asks for something to be kept."""

    NONE = "none"  # nothing happened: an ordinary request
    RELIABILITY_ERROR = "reliability_error"
    ABUSE_CASE = "abuse_case"  # an open, confirmed case that names this key
    FEATURE = "feature"  # the customer used a feature that needs it


class Reason(StrEnum):
    """The reason code written with every kept object (PRODUCT 2)."""

    ENGINE_CRASH = "engine_crash"
    UPSTREAM_5XX = "upstream_5xx"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    UPSTREAM_CUT = "upstream_cut"
    UPSTREAM_MALFORMED = "upstream_malformed"
    INTERNAL_ERROR = "internal_error"
    ABUSE_CASE = "abuse_case"
    CUSTOMER_UPLOAD = "customer_upload"
    FEATURE_RESULT = "feature_result"
    FEATURE_WORK = "feature_work"


class DiscardReason(StrEnum):
    """Why nothing is kept. The first group is policy's; the second is refused on the way (fail closed)."""

    NO_TRIGGER = "no_trigger"
    WRONG_TRIGGER = "wrong_trigger"
    ZERO_DATA_RETENTION = "zero_data_retention"
    OPTED_OUT = "opted_out"
    FEATURE_OFF = "feature_off"
    REQUEST_FORBIDS = "request_forbids"
    POLICY_UNREADABLE = "policy_unreadable"

    CAPPED = "capped"
    TOO_LARGE = "too_large"
    STALE_EPOCH = "stale_epoch"
    LOCATION_RED = "location_red"
    STORE_FAILED = "store_failed"


_SEAL: Final = object()


@final
@dataclass(frozen=True, slots=True)
class Retain:
    """A permit to keep one object: what, whose, why, under which epoch, until when (Unix ms, None = until deleted)."""

    seal: object
    organization_id: str
    project_id: str
    data_class: DataClass
    reason: Reason
    epoch: int
    created_at_ms: int
    expires_at_ms: int | None
    request_id: str | None
    source: Source

    def __post_init__(self) -> None:
        if self.seal is not _SEAL:
            raise TypeError("only policy.decide can mint a Retain")


@final
@dataclass(frozen=True, slots=True)
class Discard:
    """Nothing may be kept, and why; `source` is the level that decided."""

    reason: DiscardReason
    source: Source = Source.SCHEDULE


Decision = Retain | Discard
