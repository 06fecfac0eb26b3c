"""States and causes in the catalogue: closed lists, each member with its meaning."""

from enum import StrEnum

__all__ = ["Cause", "KekKind", "KekState", "PurgeState", "Step", "TombstoneState"]


class KekKind(StrEnum):
    """What a KEK's life is tied to (DECISIONS 12)."""

    DAY = "day"  # objects that expire on one UTC day in one location
    HOLD = "hold"  # objects under one legal hold
    OBJECT = "object"  # one object that is kept until deleted


class KekState(StrEnum):
    """active -> retiring (survivors are being rewrapped) -> destroyed."""

    ACTIVE = "active"
    RETIRING = "retiring"
    DESTROYED = "destroyed"


class Cause(StrEnum):
    """Why an object was deleted."""

    EXPIRED = "expired"
    CUSTOMER = "customer"  # the customer's DELETE
    CONTROLS = "controls"  # a data control was turned off
    ACCOUNT = "account"  # its account was deleted
    JOB_ENDED = "job_ended"
    HOLD_RELEASED = "hold_released"  # overdue, held until now


class TombstoneState(StrEnum):
    """destroying (DEK deleted, blob perhaps still there) -> destroyed (blob gone, receipt written)."""

    DESTROYING = "destroying"
    DESTROYED = "destroyed"


class PurgeState(StrEnum):
    """running -> partial (only held objects remain) -> done."""

    RUNNING = "running"
    PARTIAL = "partial"
    DONE = "done"


class Step(StrEnum):
    """Where the door has come to; tests stop it there, as a crash would."""

    INTENT = "intent"
    KEK_FILE = "kek_file"
    KEK_ROW = "kek_row"
    BLOB = "blob"
    GROUP = "group"
    COMMIT = "commit"
    KEK_RETIRING = "kek_retiring"
    KEK_GONE = "kek_gone"
