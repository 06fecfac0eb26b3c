"""Entries of the log as events of OpenAI's audit log: the public names of kinds, and the shape, from a statement alone.

Holds: `TYPES`, `OPENAI_FACTS`, `event_of`, `event_id`. Leaves out: names and addresses of people and projects, which no
entry holds (the admin API adds those of today). So an event of an export follows from its statement byte for byte, and
who verifies the one has verified the other.
"""

from collections.abc import Mapping
from typing import Any, Final

from keepless.ids import Prefix
from keepless.receipts.statement import SUBJECTS, EntryKind, Fact

__all__ = ["OPENAI_FACTS", "TYPES", "event_id", "event_of", "index_of"]

_PREFIX: Final = "audit_log-"

TYPES: Final[Mapping[EntryKind, str]] = {
    EntryKind.ORGANIZATION_CREATED: "organization.created",
    EntryKind.ORGANIZATION_DELETED: "organization.deleted",
    EntryKind.PROJECT_CREATED: "project.created",
    EntryKind.PROJECT_CHANGED: "project.updated",
    EntryKind.PROJECT_ARCHIVED: "project.archived",
    EntryKind.MEMBER_ADDED: "user.added",
    EntryKind.MEMBER_CHANGED: "user.updated",
    EntryKind.MEMBER_REMOVED: "user.deleted",
    EntryKind.INVITE_CREATED: "invite.sent",
    EntryKind.INVITE_ACCEPTED: "invite.accepted",
    EntryKind.INVITE_REVOKED: "invite.deleted",
    EntryKind.LINK_CREATED: "sign_in_link.created",
    EntryKind.PROOF_CHANGED: "password.updated",
    EntryKind.SIGNED_IN: "login.succeeded",
    EntryKind.SIGN_IN_REFUSED: "login.failed",
    EntryKind.SIGNED_OUT: "logout.succeeded",
    EntryKind.KEY_CREATED: "api_key.created",
    EntryKind.KEY_CHANGED: "api_key.updated",
    EntryKind.KEY_REVOKED: "api_key.deleted",
    EntryKind.LIMITS_CHANGED: "rate_limit.updated",
    EntryKind.CONTROLS_CHANGED: "data_retention.updated",
    EntryKind.PERIOD_CHANGED: "data_retention.period.updated",
    EntryKind.OPT_OUT_ACKNOWLEDGED: "data_retention.acknowledged",
    EntryKind.PURGE_REQUESTED: "purge.requested",
    EntryKind.PURGE_FINISHED: "purge.finished",
    EntryKind.CAPTURED: "content.captured",
    EntryKind.OPENING_REQUESTED: "open_request.created",
    EntryKind.OPENING_APPROVED: "open_request.approved",
    EntryKind.OPENING_REFUSED: "open_request.refused",
    EntryKind.OPENING_ENDED: "open_request.ended",
    EntryKind.OPENED: "content.accessed",
    EntryKind.EXPORT_BEGUN: "export.started",
    EntryKind.EXPORTED: "content.exported",
    EntryKind.DELETED: "content.deleted",
    EntryKind.KEY_DESTROYED: "encryption_key.destroyed",
    EntryKind.HOLD_PLACED: "legal_hold.placed",
    EntryKind.HOLD_RELEASED: "legal_hold.released",
    EntryKind.CASE_OPENED: "abuse_case.opened",
    EntryKind.CASE_CONFIRMED: "abuse_case.confirmed",
    EntryKind.CASE_EXTENDED: "abuse_case.extended",
    EntryKind.CASE_CLOSED: "abuse_case.closed",
    EntryKind.ACCESS_REFUSED: "access.refused",
    EntryKind.REQUEST_REFUSED: "request.refused",
    EntryKind.REFERENCE_ERASED: "reference.erased",
    EntryKind.ENTRY_ERASED: "audit_log.erased",
    EntryKind.WEBHOOK_CREATED: "webhook_endpoint.created",
    EntryKind.WEBHOOK_CHANGED: "webhook_endpoint.updated",
    EntryKind.WEBHOOK_DELETED: "webhook_endpoint.deleted",
}
# Facts that OpenAI has names of its own for.
OPENAI_FACTS: Final[Mapping[str, str]] = {
    "requests_per_minute": "max_requests_per_1_minute",
    "requests_per_day": "max_requests_per_1_day",
    "tokens_per_minute": "max_tokens_per_1_minute",
}
_OWN_FIELD: Final = frozenset({"v", "kind", "at_ms", "organization_id", Fact.ACTOR.value})
_OUTER: Final = ("object_id", Fact.PURGE_ID.value, "project_id", "organization_id")
Statement = Mapping[str, str | int | bool]


def event_id(index: int) -> str:
    """The id of the event at an index of the log."""
    return f"{_PREFIX}{index}"


def index_of(id_: str) -> int | None:
    """The index that the id of an event names."""
    number = id_.removeprefix(_PREFIX)
    is_one = id_.startswith(_PREFIX) and number.isascii() and number.isdigit() and len(number) < 16
    return int(number) if is_one else None


def event_of(index: int, statement: Statement) -> dict[str, Any] | None:
    """The event that a statement at an index is; None for one of no known kind or without an instant."""
    kind, at_ms = statement.get("kind"), statement.get("at_ms")
    if kind not in _BY_VALUE or type(at_ms) is not int:
        return None
    name = TYPES[_BY_VALUE[str(kind)]]
    inner = "changes_requested" if name.endswith(".updated") else "data"
    said = {OPENAI_FACTS.get(fact, fact): value for fact, value in statement.items() if fact not in _OWN_FIELD}
    project_id = statement.get("project_id")
    return {
        "object": "organization.audit_log",
        "id": event_id(index),
        "type": name,
        "effective_at": at_ms // 1000,
        "actor": _actor(statement.get(Fact.ACTOR.value)),
        "project": None if project_id is None else {"id": project_id, "name": None},
        "log_index": index,
        "receipt_id": statement.get("receipt_id"),
        name: {"id": _subject(statement), inner: said},
    }


_BY_VALUE: Final = {kind.value: kind for kind in TYPES}


def _subject(statement: Statement) -> str | int | bool | None:
    names = (*(fact.value for fact in SUBJECTS), *_OUTER)
    return next((statement[name] for name in names if name in statement), None)


def _actor(actor: str | int | bool | None) -> dict[str, Any] | None:
    if actor is None:
        return None
    if str(actor).startswith(Prefix.MEMBER):
        user = {"id": actor, "email": None}
        return {"type": "session", "session": {"user": user, "ip_address": None}, "api_key": None}
    key = {"id": actor, "service_account": {"id": actor}, "type": "service_account"}
    return {"type": "api_key", "api_key": key, "session": None}
