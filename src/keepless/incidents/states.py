"""States, signals and reasons of abuse cases: closed lists, each member with its meaning."""

from enum import StrEnum

__all__ = ["CaseState", "CloseReason", "Signal"]


class CaseState(StrEnum):
    """suspected -> confirmed (capture is on) -> closed; suspected -> closed."""

    SUSPECTED = "suspected"  # metadata only: nothing is captured
    CONFIRMED = "confirmed"  # an operator confirmed it (or abuse_auto_capture did)
    CLOSED = "closed"


class Signal(StrEnum):
    """What made a case suspected."""

    MANY_KEYS = "many_keys"  # one origin used many keys of an organization around 429 answers
    MANY_ORGANIZATIONS = "many_organizations"  # the same across organizations
    KEY_ROTATION = "key_rotation"  # a key came into use right after another one of its project met 429


class CloseReason(StrEnum):
    """How a case ended."""

    FALSE_ALARM = "false_alarm"
    RESOLVED = "resolved"
    KEYS_REVOKED = "keys_revoked"
    LAPSED = "lapsed"  # its time was over
