"""States, signals and reasons of abuse cases: closed lists, each member with its meaning."""

from enum import StrEnum

__all__ = ["CaseState", "CloseReason", "OpeningReason", "OpeningState", "Signal"]


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


class OpeningReason(StrEnum):
    """Why somebody asks to see content (DECISIONS 11): a closed list."""

    RELIABILITY = "reliability"  # an error cannot be understood without what was sent
    ABUSE = "abuse"  # an abuse case is being decided
    SECURITY = "security"  # an incident is being contained
    LEGAL = "legal"  # a court or regulator asked for what a legal hold keeps
    CUSTOMER_REQUEST = "customer_request"  # the customer asked for help with this very request


class OpeningState(StrEnum):
    """requested -> approved -> ended; requested -> refused | ended (nobody decided, or it was withdrawn)."""

    REQUESTED = "requested"
    APPROVED = "approved"
    REFUSED = "refused"
    ENDED = "ended"
