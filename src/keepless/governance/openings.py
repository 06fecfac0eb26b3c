"""Break-glass: nobody reads what was captured without a request that a second person approved (DECISIONS 11).

Holds: `OpeningRecord`, what owners and operators see; `Shown`, what the requester is given; `Openings`. Leaves out:
HTTP, and what may be read at all (vault.reading: nothing that has ended, unless a legal hold keeps it).

Request: one transaction: the object is there, row, log entry. Decide: one transaction: the row locked, second person
checked, state, log entry. Show: 1. one transaction: approval checked, count, log entry OPENED. COMMIT POINT 2. content
read. So nothing was ever shown that is not in the log; a crash between the two has logged an access that nobody had.

A pair is an operator and an owner of the organization, or two operators: where there is one person alone, it stays
closed. A key is a person here: an operator who keeps two keys can open alone, which the log shows.
"""

from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from keepless.accounts.principal import AdminPrincipal
from keepless.accounts.roles import ROLES, Permission, Role
from keepless.clock import Clock
from keepless.content import Content, Purpose
from keepless.db import Database
from keepless.errors import Code, ErrorType, Problem
from keepless.governance.change import not_found, organization_row
from keepless.ids import Id, Prefix, mint
from keepless.incidents.container import unpack
from keepless.incidents.states import OpeningReason, OpeningState
from keepless.incidents.tables import opening
from keepless.policy.data_class import CAPTURES, DataClass
from keepless.receipts.log import Log
from keepless.receipts.statement import Entry, EntryKind, Fact, FactValue
from keepless.vault.catalogue import one_kept
from keepless.vault.door import Vault
from keepless.vault.errors import NotKeptError
from keepless.vault.in_force import holds_of, is_held
from keepless.vault.rows import Kept

__all__ = ["MOST_BYTES", "MOST_MINUTES", "REFERENCE_LETTERS", "OpeningRecord", "Openings", "Shown"]

MOST_MINUTES: Final = 60
MOST_BYTES: Final = 64 * 2**20  # what is shown in one answer; larger objects are their owner's to export
REFERENCE_LETTERS: Final = 80
_WAITS_MS: Final = 24 * 3_600_000  # for a second person
_OPEN: Final = (OpeningState.REQUESTED, OpeningState.APPROVED)


@dataclass(frozen=True, slots=True)
class OpeningRecord:
    """One request and what became of it. Instants in Unix ms; `ends_at`: no decision, or no access, from then on."""

    id: Id
    organization_id: Id
    object_id: Id
    state: OpeningState
    reason: OpeningReason
    reference: str
    minutes: int
    requested_by: Id
    requested_role: Role
    requested_at: int
    decided_by: Id | None
    decided_at: int | None
    ends_at: int
    ended_by: Id | None
    ended_at: int | None
    accesses: int


@dataclass(frozen=True, slots=True)
class Shown:
    """The content of one object. `facts` are those of the captured request; of another object only `whole` is there."""

    opening: OpeningRecord
    facts: dict[str, str | int | bool | None]
    request: Content | None
    answer: Content | None
    whole: Content | None


class Openings:
    """Requests to see content, in one deployment. Every method blocks."""

    def __init__(self, db: Database, clock: Clock, log: Log, vault: Vault) -> None:
        self._db: Final = db
        self._clock: Final = clock
        self._log: Final = log
        self._vault: Final = vault

    def request(
        self,
        actor: AdminPrincipal,
        organization_id: Id,
        object_id: Id,
        *,
        reason: OpeningReason,
        reference: str,
        minutes: int = MOST_MINUTES,
    ) -> OpeningRecord:
        """Ask to see a captured request, or what a legal hold keeps. Raises `Problem` 400, 403, 404."""
        _allow(actor, organization_id)
        if not (reference.isprintable() and 1 <= len(reference) <= REFERENCE_LETTERS):
            raise _invalid("reference", f"reference is 1 to {REFERENCE_LETTERS} printable characters.")
        if not 1 <= minutes <= MOST_MINUTES:
            raise _invalid("minutes", f"minutes is 1 to {MOST_MINUTES}.")
        now_ms, opening_id = self._clock.now_ms(), mint(Prefix.OPENING)
        with self._db.write() as tx:
            organization_row(tx, organization_id)
            row = _object(tx, organization_id, object_id)
            values = {
                "id": opening_id,
                "organization_id": organization_id,
                "object_id": object_id,
                "state": OpeningState.REQUESTED,
                "reason": reason,
                "reference": reference,
                "minutes": minutes,
                "requested_by": actor.id,
                "requested_role": actor.role,
                "requested_at": now_ms,
                "ends_at": now_ms + _WAITS_MS,
                "accesses": 0,
            }
            tx.execute(opening.insert().values(values))
            facts: dict[Fact, FactValue] = {Fact.REASON: reason, Fact.MINUTES: minutes, Fact.ACTOR: actor.id}
            found = _found(tx, organization_id, opening_id)
            self._say(tx, EntryKind.OPENING_REQUESTED, found, now_ms, facts, project_id=row.project_id)
        return _record(found)

    def list(
        self,
        organization_id: Id | None = None,
        *,
        object_id: Id | None = None,
        after: Id | None = None,
        limit: int = 100,
    ) -> list[OpeningRecord]:
        """Requests of one organization (or of all: operators), in the order of their ids, after `after`.

        Raises `Problem` 404 for an object that the organization does not keep and that nobody asked to see.
        """
        query = sa.select(opening).order_by(opening.c.id).limit(limit)
        if organization_id is not None:
            query = query.where(opening.c.organization_id == organization_id)
        if object_id is not None:
            query = query.where(opening.c.object_id == object_id)
        if after is not None:
            query = query.where(opening.c.id > after)
        with self._db.read() as tx:
            found = [_record(row) for row in tx.execute(query)]
            if not found and organization_id is not None and object_id is not None and after is None:
                _object(tx, organization_id, object_id)
            return found

    def get(self, organization_id: Id, opening_id: Id) -> OpeningRecord:
        """One request. Raises `Problem` 404."""
        with self._db.read() as tx:
            return _record(_found(tx, organization_id, opening_id))

    def approve(self, actor: AdminPrincipal, organization_id: Id, opening_id: Id) -> OpeningRecord:
        """Allow it, as the second person, for its minutes from now. Raises `Problem` 400, 403, 404."""
        now_ms = self._clock.now_ms()
        with self._db.write() as tx:
            row = self._to_decide(tx, actor, organization_id, opening_id, now_ms)
            if Role.OPERATOR not in (actor.role, row.requested_role):
                raise _second_person()
            ends_at = now_ms + row.minutes * 60_000
            values = {
                "state": OpeningState.APPROVED,
                "decided_by": actor.id,
                "decided_at": now_ms,
                "ends_at": ends_at,
            }
            facts: dict[Fact, FactValue] = {Fact.ACTOR: actor.id, Fact.ENDS_AT: ends_at}
            return self._change(tx, row, EntryKind.OPENING_APPROVED, now_ms, values=values, facts=facts)

    def refuse(self, actor: AdminPrincipal, organization_id: Id, opening_id: Id) -> OpeningRecord:
        """Refuse it. Raises `Problem` 400, 403, 404."""
        now_ms = self._clock.now_ms()
        with self._db.write() as tx:
            row = self._to_decide(tx, actor, organization_id, opening_id, now_ms)
            values = {"state": OpeningState.REFUSED, "decided_by": actor.id, "decided_at": now_ms, "ends_at": now_ms}
            facts: dict[Fact, FactValue] = {Fact.ACTOR: actor.id}
            return self._change(tx, row, EntryKind.OPENING_REFUSED, now_ms, values=values, facts=facts)

    def end(self, actor: AdminPrincipal, organization_id: Id, opening_id: Id) -> OpeningRecord:
        """End it now, whoever asked for it or allowed it. Raises `Problem` 400, 403, 404."""
        _allow(actor, organization_id)
        now_ms = self._clock.now_ms()
        with self._db.write() as tx:
            row = _found(tx, organization_id, opening_id, lock=True)
            if row.state not in _OPEN:
                raise Problem(400, Code.INVALID_VALUE, "This opening request is not open any more.")
            values = {
                "state": OpeningState.ENDED,
                "ended_by": actor.id,
                "ended_at": now_ms,
                "ends_at": min(now_ms, row.ends_at),
            }
            facts: dict[Fact, FactValue] = {Fact.ACTOR: actor.id}
            return self._change(tx, row, EntryKind.OPENING_ENDED, now_ms, values=values, facts=facts)

    def end_lapsed(self) -> int:
        """End every request whose time is over; returns how many. For housekeeping."""
        now_ms, columns = self._clock.now_ms(), opening.c
        lapsed = sa.select(opening).where(columns.state.in_(_OPEN), columns.ends_at <= now_ms)
        with self._db.write() as tx:
            rows = tx.execute(lapsed.order_by(columns.id).with_for_update()).all()
            values = {"state": OpeningState.ENDED, "ended_at": now_ms}
            tx.execute(opening.update().where(columns.id.in_([row.id for row in rows])).values(values))
            self._log.append(tx, [_entry(EntryKind.OPENING_ENDED, row, now_ms, {}) for row in rows])
        return len(rows)

    def show(self, actor: AdminPrincipal, organization_id: Id, object_id: Id, opening_id: Id) -> Shown:
        """The content, to who asked for it, while the approval lasts. Raises `Problem` 403, 404, 413."""
        _allow(actor, organization_id)
        now_ms = self._clock.now_ms()
        with self._db.write() as tx:
            row = _found(tx, organization_id, opening_id, lock=True)
            if row.object_id != object_id:
                raise not_found()
            if row.requested_by != actor.id or row.state is not OpeningState.APPROVED or now_ms >= row.ends_at:
                raise _closed()
            stored = _object(tx, organization_id, object_id)
            if stored.size > MOST_BYTES:
                raise Problem(413, Code.REQUEST_TOO_LARGE, "This object is too large to be shown.", retry=False)
            values = {"accesses": row.accesses + 1}
            facts: dict[Fact, FactValue] = {Fact.ACTOR: actor.id, Fact.DATA_CLASS: stored.data_class}
            record = self._change(tx, row, EntryKind.OPENED, now_ms, values=values, facts=facts)
        try:
            whole = self._vault.read(object_id, organization_id, Purpose.BREAK_GLASS)
        except NotKeptError:
            raise not_found() from None
        if stored.data_class not in CAPTURES:
            return Shown(record, {}, None, None, whole)
        parts = unpack(whole.reveal(Purpose.BREAK_GLASS))
        return Shown(record, dict(parts.header), parts.request, parts.answer, None)

    def _to_decide(
        self, tx: Connection, actor: AdminPrincipal, organization_id: Id, opening_id: Id, now_ms: int
    ) -> Row[Any]:
        """A request that this actor may decide, locked."""
        _allow(actor, organization_id)
        row = _found(tx, organization_id, opening_id, lock=True)
        if row.requested_by == actor.id:
            raise _second_person()
        if row.state is not OpeningState.REQUESTED or now_ms >= row.ends_at:
            raise Problem(400, Code.INVALID_VALUE, "This opening request does not wait for a decision any more.")
        return row

    def _change(
        self,
        tx: Connection,
        row: Row[Any],
        kind: EntryKind,
        now_ms: int,
        *,
        values: dict[str, Any],
        facts: dict[Fact, FactValue],
    ) -> OpeningRecord:
        tx.execute(opening.update().where(opening.c.id == row.id).values(values))
        found = _found(tx, row.organization_id, row.id)
        self._say(tx, kind, found, now_ms, facts)
        return _record(found)

    def _say(
        self,
        tx: Connection,
        kind: EntryKind,
        row: Row[Any],
        now_ms: int,
        facts: dict[Fact, FactValue],
        *,
        project_id: Id | None = None,
    ) -> None:
        self._log.append(tx, [_entry(kind, row, now_ms, facts, project_id)])


def _entry(
    kind: EntryKind, row: Row[Any], now_ms: int, facts: dict[Fact, FactValue], project_id: Id | None = None
) -> Entry:
    said = {Fact.OPENING_ID: row.id, **facts}
    return Entry(kind, now_ms, row.organization_id, project_id, row.object_id, said)


def _allow(actor: AdminPrincipal, organization_id: Id) -> None:
    """An operator, or an owner of this very organization. Raises `Problem` 403, 404."""
    if actor.organization_id not in (None, organization_id):
        raise not_found()
    if Permission.OPENINGS_DECIDE not in ROLES[actor.role]:
        message = "Content is opened by operators and owners only."
        raise Problem(403, Code.INSUFFICIENT_PERMISSIONS, message, type=ErrorType.PERMISSION)


def _object(tx: Connection, organization_id: Id, object_id: Id) -> Kept:
    """An object that may be opened at all. Raises `Problem` 404."""
    row = one_kept(tx, object_id)
    if row is None or row.organization_id != organization_id or row.data_class is DataClass.BATCH_WORK:
        raise not_found()
    if row.data_class not in CAPTURES and not is_held(row, holds_of(tx, [organization_id])):
        raise not_found()
    return row


def _found(tx: Connection, organization_id: Id, opening_id: Id, *, lock: bool = False) -> Row[Any]:
    query = sa.select(opening).where(opening.c.id == opening_id, opening.c.organization_id == organization_id)
    row = tx.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise not_found()
    return row


def _record(row: Any) -> OpeningRecord:
    return OpeningRecord(**{name: getattr(row, name) for name in OpeningRecord.__dataclass_fields__})


def _second_person() -> Problem:
    return Problem(
        403,
        Code.INSUFFICIENT_PERMISSIONS,
        "A second person decides: an operator for an owner, an owner or another operator for an operator.",
        type=ErrorType.PERMISSION,
    )


def _closed() -> Problem:
    return Problem(
        403,
        Code.INSUFFICIENT_PERMISSIONS,
        "Content is shown to who asked for it only, after a second person's approval, until that approval ends.",
        type=ErrorType.PERMISSION,
    )


def _invalid(param: str, message: str) -> Problem:
    return Problem(400, Code.INVALID_VALUE, message, param=param)
