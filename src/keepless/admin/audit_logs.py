"""The audit log over HTTP, in OpenAI's shape: newest first, every filter of OpenAI's client.

An event's own part stands under the name of its type, as OpenAI has it (`"user.added": {"id": ..., "data": {...}}`);
types that OpenAI lacks have names of ours. `log_index` says where it stands in the transparency log.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec

from keepless.admin.asks import AnId, Email, Instant, NoBody, PageSize
from keepless.admin.endpoint import Ask
from keepless.admin.services import Services
from keepless.admin.shapes import Page
from keepless.errors import Code, Problem
from keepless.governance.audit import Asked, Event, events, exported
from keepless.ids import Id, Prefix
from keepless.receipts.audit_export import AuditLine
from keepless.receipts.events import OPENAI_FACTS, event_id

__all__ = ["AuditLog", "asked_for", "export_audit_logs", "list_audit_logs"]

_PREFIX: Final = "audit_log-"
_Cursor = Annotated[str, msgspec.Meta(pattern=rf"^{_PREFIX}[0-9]{{1,15}}(?!\n)$", description="the id of an event")]
_Type = Annotated[
    str, msgspec.Meta(min_length=1, max_length=80, pattern=r"^[a-z_.]+(?!\n)$", description="a type of events")
]


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OpenAI's filters of the audit log; whose (operators). There are no tenants above an organization."""

    actor_ids: list[AnId] | None = None
    actor_emails: list[Email] | None = None
    event_types: list[_Type] | None = None
    project_ids: list[AnId] | None = None
    resource_ids: list[AnId] | None = None
    tenant_only: bool = False
    after_instant: Instant | None = msgspec.field(default=None, name="effective_at[gt]")
    from_instant: Instant | None = msgspec.field(default=None, name="effective_at[gte]")
    before_instant: Instant | None = msgspec.field(default=None, name="effective_at[lt]")
    to_instant: Instant | None = msgspec.field(default=None, name="effective_at[lte]")
    organization_id: AnId | None = None


class AuditQuery(AuditFilter, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One page: `limit` events older than `after`, or the nearest that are newer than `before`."""

    after: _Cursor | None = None
    before: _Cursor | None = None
    limit: PageSize = 20


class _User(msgspec.Struct, kw_only=True):
    id: str
    email: str | None


class _Session(msgspec.Struct, kw_only=True):
    """Where a session came from is kept nowhere."""

    user: _User
    ip_address: None = None


class _Account(msgspec.Struct, kw_only=True):
    id: str


class _Key(msgspec.Struct, kw_only=True):
    """A key is its own account here: it belongs to nobody in particular."""

    id: str
    service_account: _Account
    type: Literal["service_account"] = "service_account"


class Actor(msgspec.Struct, kw_only=True):
    """Who did it: a member, signed in, or a key."""

    type: Literal["session", "api_key"]
    session: _Session | None = None
    api_key: _Key | None = None


class EventProject(msgspec.Struct, kw_only=True):
    """The project in which it was done; `name` is today's."""

    id: str
    name: str | None


class AuditLog(msgspec.Struct, kw_only=True):
    """One event, with its own part under the name of its `type`. `actor` null: the platform, or it was erased."""

    id: str
    type: str
    effective_at: int
    actor: Actor | None
    project: EventProject | None
    log_index: int
    receipt_id: str | None = None
    object: Literal["organization.audit_log"] = "organization.audit_log"


def list_audit_logs(services: Services, ask: Ask[AuditQuery, NoBody]) -> Annotated[bytes, Page[AuditLog]]:
    """Who did what, newest first."""
    query, organization_id = ask.query, ask.organization_id
    below, above = _index(query.after), _index(query.before)
    asked = asked_for(query)
    found: list[Event] = []
    if not query.tenant_only:
        found = events(
            services.db, services.log, organization_id, asked, below=below, above=above, limit=query.limit + 1
        )
    more, upwards = len(found) > query.limit, above is not None and below is None
    shown = found[1:] if more and upwards else found[: query.limit]
    data = [_shape(event) for event in shown]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return msgspec.json.encode({"object": "list", "data": data, **ends, "has_more": more})


def export_audit_logs(services: Services, ask: Ask[AuditFilter, NoBody]) -> Annotated[Iterator[bytes], AuditLine]:
    """Every event with the proof that it stands in the log, newest first, one a line; the last line counts them."""
    if ask.query.tenant_only:
        raise Problem(400, Code.UNSUPPORTED_VALUE, "There are no tenants above an organization.", param="tenant_only")
    return exported(services.db, services.log, ask.organization_id, asked_for(ask.query))


def asked_for(query: AuditFilter) -> Asked:
    """The filters of a query, in milliseconds."""
    starts = [query.from_instant, None if query.after_instant is None else query.after_instant + 1]
    ends = [query.before_instant, None if query.to_instant is None else query.to_instant + 1]
    return Asked(
        actor_ids=query.actor_ids,
        actor_emails=query.actor_emails,
        types=query.event_types,
        project_ids=query.project_ids,
        resource_ids=query.resource_ids,
        from_ms=_ms(starts, max),
        to_ms=_ms(ends, min),
    )


def _ms(seconds: Sequence[int | None], tighter: Any) -> int | None:
    given = [second for second in seconds if second is not None]
    return tighter(given) * 1000 if given else None


def _index(cursor: str | None) -> int | None:
    return None if cursor is None else int(cursor.removeprefix(_PREFIX))


def _shape(event: Event) -> dict[str, Any]:
    shape = AuditLog(
        id=event_id(event.index),
        type=event.type,
        effective_at=event.at_ms // 1000,
        actor=None if event.actor_id is None else _actor(event.actor_id, event.actor_email),
        project=None if event.project_id is None else EventProject(id=str(event.project_id), name=event.project_name),
        log_index=event.index,
        receipt_id=None if event.receipt_id is None else str(event.receipt_id),
    )
    plain: dict[str, Any] = msgspec.to_builtins(shape)
    return plain | {event.type: _own_part(event)}


def _own_part(event: Event) -> Mapping[str, Any]:
    said = {OPENAI_FACTS.get(name, name): value for name, value in event.facts.items()}
    inner = "changes_requested" if event.type.endswith(".updated") else "data"
    return {"id": None if event.subject_id is None else str(event.subject_id), inner: said}


def _actor(actor_id: Id, email: str | None) -> Actor:
    if actor_id.startswith(Prefix.MEMBER):
        return Actor(type="session", session=_Session(user=_User(id=str(actor_id), email=email)))
    return Actor(type="api_key", api_key=_Key(id=str(actor_id), service_account=_Account(id=str(actor_id))))
