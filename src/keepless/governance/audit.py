"""The audit log of an organization, read from the transparency log: who did what, on what, when.

Holds: `Event`, `Asked`, `events`, `exported`. Leaves out: writing (whoever acts appends within their own transaction),
the public names of kinds and proofs (receipts), shapes of answers (admin).

What was erased from the log is an event without actor and facts. Names and addresses are those of today: of whoever
has left, only the id remains. Where requests came from is kept nowhere (DECISIONS 13).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.accounts.tables import member, project
from keepless.db import Database
from keepless.ids import Id, trusted
from keepless.receipts.audit_export import audit_lines
from keepless.receipts.events import TYPES
from keepless.receipts.log import Log, Logged, Sought
from keepless.receipts.statement import EntryKind, Fact

__all__ = ["Asked", "Event", "events", "exported"]

_KINDS: Final = {name: kind for kind, name in TYPES.items()}
_OWN_FIELD: Final = frozenset({"v", "kind", "at_ms", "organization_id", Fact.ACTOR.value})
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked for; None does not narrow. `types` are names of `TYPES` (others match nothing).

    Instants in Unix ms, `to_ms` exclusive.
    """

    actor_ids: Sequence[str] | None = None
    actor_emails: Sequence[str] | None = None
    types: Sequence[str] | None = None
    project_ids: Sequence[str] | None = None
    resource_ids: Sequence[str] | None = None
    from_ms: int | None = None
    to_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One entry. `facts`: what it says besides, by the names of `receipts.statement.Fact`."""

    index: int
    kind: EntryKind
    at_ms: int
    actor_id: Id | None
    actor_email: str | None
    subject_id: Id | None
    project_id: Id | None
    project_name: str | None
    receipt_id: Id | None
    facts: Mapping[str, Any]

    @property
    def type(self) -> str:
        """Its public name."""
        return TYPES[self.kind]


def events(
    db: Database,
    log: Log,
    organization_id: Id,
    asked: Asked,
    *,
    below: int | None = None,
    above: int | None = None,
    limit: int = 100,
) -> list[Event]:
    """Events, newest first: the nearest `limit` below an index of the log, or else above one."""
    with db.read() as tx:
        emails = _emails(tx, organization_id)
        found = log.sought(tx, organization_id, _sought(asked, emails), below=below, above=above, limit=limit)
        names = _names(tx, organization_id)
    return [_event(entry, emails, names) for entry in found]


def exported(db: Database, log: Log, organization_id: Id, asked: Asked) -> Iterator[bytes]:
    """The lines of an export with a proof for each event, newest first. Raises `LogForkError` before the first."""
    with db.read() as tx:
        sought = _sought(asked, _emails(tx, organization_id))
    return audit_lines(db, log, organization_id, sought)


def _sought(asked: Asked, emails: Mapping[Id, str]) -> Sought:
    return Sought(
        kinds=None if asked.types is None else frozenset(_KINDS[name] for name in asked.types if name in _KINDS),
        actors=_actors(asked, emails),
        projects=_ids(asked.project_ids),
        subjects=_ids(asked.resource_ids),
        from_ms=asked.from_ms,
        to_ms=asked.to_ms,
    )


def _actors(asked: Asked, emails: Mapping[Id, str]) -> frozenset[Id] | None:
    if asked.actor_emails is None:
        return _ids(asked.actor_ids)
    wanted = {address.lower() for address in asked.actor_emails}
    named = frozenset(member_id for member_id, address in emails.items() if address in wanted)
    ids = _ids(asked.actor_ids)
    return named if ids is None else named & ids


def _ids(texts: Sequence[str] | None) -> frozenset[Id] | None:
    return None if texts is None else frozenset(trusted(text) for text in texts)


def _emails(tx: Connection, organization_id: Id) -> dict[Id, str]:
    query = sa.select(member.c.id, member.c.email).where(member.c.organization_id == organization_id)
    return {row.id: row.email for row in tx.execute(query)}


def _names(tx: Connection, organization_id: Id) -> dict[Id, str]:
    query = sa.select(project.c.id, project.c.name).where(project.c.organization_id == organization_id)
    return {row.id: row.name for row in tx.execute(query)}


def _event(entry: Logged, emails: Mapping[Id, str], names: Mapping[Id, str]) -> Event:
    said = {} if entry.body is None else _decode(entry.body)
    return Event(
        index=entry.index,
        kind=entry.kind,
        at_ms=entry.at_ms,
        actor_id=entry.actor_id,
        actor_email=None if entry.actor_id is None else emails.get(entry.actor_id),
        subject_id=entry.subject_id,
        project_id=entry.project_id,
        project_name=None if entry.project_id is None else names.get(entry.project_id),
        receipt_id=entry.receipt_id,
        facts={name: value for name, value in said.items() if name not in _OWN_FIELD},
    )
