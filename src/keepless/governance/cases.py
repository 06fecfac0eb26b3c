"""Decisions about abuse cases: confirm, extend, close, list (DECISIONS 4). Operators decide; owners see every case.

Holds: `CaseRecord`, what everybody sees, and `CaseDecisions`. Leaves out: who may ask (admin), signals and captures
(incidents). Each decision is one transaction: the case's row locked, its new state, a log entry as the last step.
"""

from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from keepless.clock import Clock
from keepless.db import Database
from keepless.errors import Code, Problem
from keepless.governance.change import not_found
from keepless.ids import Id
from keepless.incidents.cases import LONGEST_MS
from keepless.incidents.states import CaseState, CloseReason, Signal
from keepless.incidents.tables import abuse_case, abuse_case_key
from keepless.receipts.log import Log
from keepless.receipts.statement import Entry, EntryKind, Fact, FactValue

__all__ = ["MOST_HOURS", "REFERENCE_LETTERS", "CaseDecisions", "CaseRecord"]

MOST_HOURS: Final = LONGEST_MS // 3_600_000
REFERENCE_LETTERS: Final = 80


@dataclass(frozen=True, slots=True)
class CaseRecord:
    """One case as operators and owners see it. Instants in Unix ms; `ends_at`: captures end then, None = none yet."""

    id: Id
    organization_id: Id
    state: CaseState
    signal: Signal
    refusals: int
    key_ids: tuple[Id, ...]
    opened_at: int
    confirmed_at: int | None
    confirmed_by: Id | None  # None with `confirmed_at`: by `abuse_auto_capture`
    ends_at: int | None
    extended_at: int | None
    extended_by: Id | None
    reference: str | None
    closed_at: int | None
    closed_by: Id | None
    closed_for: CloseReason | None
    captured: int


class CaseDecisions:
    """Abuse cases of one deployment. Every method blocks."""

    def __init__(self, db: Database, clock: Clock, log: Log) -> None:
        self._db: Final = db
        self._clock: Final = clock
        self._log: Final = log

    def list(
        self, organization_id: Id | None = None, *, closed: bool = True, after: Id | None = None, limit: int = 100
    ) -> list[CaseRecord]:
        """Cases of one organization (or of all: operators), in the order of their ids, after `after`."""
        query = sa.select(abuse_case).order_by(abuse_case.c.id).limit(limit)
        if organization_id is not None:
            query = query.where(abuse_case.c.organization_id == organization_id)
        if not closed:
            query = query.where(abuse_case.c.state != CaseState.CLOSED)
        if after is not None:
            query = query.where(abuse_case.c.id > after)
        with self._db.read() as tx:
            return _records(tx, list(tx.execute(query)))

    def get(self, organization_id: Id, case_id: Id) -> CaseRecord:
        """One case. Raises `Problem` 404."""
        with self._db.read() as tx:
            return _records(tx, [_found(tx, organization_id, case_id)])[0]

    def confirm(self, organization_id: Id, case_id: Id, actor: Id) -> CaseRecord:
        """Begin to capture under a suspected case, for at most 72 hours. Raises `Problem` 400, 404."""
        now_ms = self._clock.now_ms()
        values = {
            "state": CaseState.CONFIRMED,
            "confirmed_at": now_ms,
            "confirmed_by": actor,
            "ends_at": now_ms + LONGEST_MS,
        }
        facts: dict[Fact, FactValue] = {Fact.ENDS_AT: now_ms + LONGEST_MS}
        return self._decide(
            organization_id,
            case_id,
            actor,
            EntryKind.CASE_CONFIRMED,
            values=values,
            facts=facts,
            allowed=(CaseState.SUSPECTED,),
        )

    def extend(self, organization_id: Id, case_id: Id, actor: Id, *, hours: int, reference: str) -> CaseRecord:
        """Let captures go on for 1 to 72 hours from now, for the reason in `reference`. Raises `Problem` 400, 404."""
        if not 1 <= hours <= MOST_HOURS:
            raise Problem(400, Code.INVALID_VALUE, f"hours is 1 to {MOST_HOURS}.", param="hours")
        if not (reference.isprintable() and 1 <= len(reference) <= REFERENCE_LETTERS):
            raise Problem(
                400,
                Code.INVALID_VALUE,
                f"A case is extended only with a reason of 1 to {REFERENCE_LETTERS} printable characters.",
                param="reference",
            )
        now_ms = self._clock.now_ms()
        ends_at = now_ms + hours * 3_600_000
        values = {"ends_at": ends_at, "extended_at": now_ms, "extended_by": actor, "reference": reference}
        facts: dict[Fact, FactValue] = {Fact.ENDS_AT: ends_at}
        return self._decide(
            organization_id,
            case_id,
            actor,
            EntryKind.CASE_EXTENDED,
            values=values,
            facts=facts,
            allowed=(CaseState.CONFIRMED,),
        )

    def close(
        self, organization_id: Id, case_id: Id, actor: Id, reason: CloseReason = CloseReason.RESOLVED
    ) -> CaseRecord:
        """End a case: nothing more is captured for it. Raises `Problem` 400, 404."""
        values = {
            "state": CaseState.CLOSED,
            "closed_at": self._clock.now_ms(),
            "closed_by": actor,
            "closed_for": reason,
        }
        facts: dict[Fact, FactValue] = {Fact.REASON: reason}
        allowed = (CaseState.SUSPECTED, CaseState.CONFIRMED)
        return self._decide(
            organization_id, case_id, actor, EntryKind.CASE_CLOSED, values=values, facts=facts, allowed=allowed
        )

    def close_lapsed(self) -> int:
        """Close every case whose time is over; returns how many. For housekeeping."""
        now_ms = self._clock.now_ms()
        columns = abuse_case.c
        lapsed = sa.select(columns.id, columns.organization_id).where(
            columns.state == CaseState.CONFIRMED, columns.ends_at <= now_ms
        )
        with self._db.write() as tx:
            rows = tx.execute(lapsed.order_by(columns.id).with_for_update()).all()
            values = {"state": CaseState.CLOSED, "closed_at": now_ms, "closed_for": CloseReason.LAPSED}
            tx.execute(abuse_case.update().where(columns.id.in_([row.id for row in rows])).values(values))
            facts = [{Fact.CASE_ID: row.id, Fact.REASON: CloseReason.LAPSED} for row in rows]
            self._log.append(
                tx,
                [
                    Entry(EntryKind.CASE_CLOSED, now_ms, row.organization_id, facts=each)
                    for row, each in zip(rows, facts, strict=True)
                ],
            )
        return len(rows)

    def _decide(
        self,
        organization_id: Id,
        case_id: Id,
        actor: Id,
        kind: EntryKind,
        *,
        values: dict[str, Any],
        facts: dict[Fact, FactValue],
        allowed: tuple[CaseState, ...],
    ) -> CaseRecord:
        with self._db.write() as tx:
            row = _found(tx, organization_id, case_id, lock=True)
            if row.state not in allowed:
                raise Problem(400, Code.INVALID_VALUE, _NOT_NOW[kind])
            tx.execute(abuse_case.update().where(abuse_case.c.id == case_id).values(values))
            record = _records(tx, [_found(tx, organization_id, case_id)])[0]
            said = {Fact.CASE_ID: case_id, Fact.ACTOR: actor, **facts}
            self._log.append(tx, [Entry(kind, self._clock.now_ms(), organization_id, facts=said)])
        return record


_NOT_NOW: Final = {
    EntryKind.CASE_CONFIRMED: "Only a suspected case can be confirmed.",
    EntryKind.CASE_EXTENDED: "Only a confirmed case can be extended.",
    EntryKind.CASE_CLOSED: "This case is closed.",
}


def _found(tx: Connection, organization_id: Id, case_id: Id, *, lock: bool = False) -> Row[Any]:
    query = sa.select(abuse_case).where(abuse_case.c.id == case_id, abuse_case.c.organization_id == organization_id)
    row = tx.execute(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise not_found()
    return row


def _records(tx: Connection, rows: list[Row[Any]]) -> list[CaseRecord]:
    keys: dict[Id, list[Id]] = {row.id: [] for row in rows}
    named = sa.select(abuse_case_key).where(abuse_case_key.c.case_id.in_(list(keys)))
    for row in tx.execute(named.order_by(abuse_case_key.c.key_id)):
        keys[row.case_id].append(row.key_id)
    return [
        CaseRecord(
            id=row.id,
            organization_id=row.organization_id,
            state=row.state,
            signal=row.signal,
            refusals=row.refusals,
            key_ids=tuple(keys[row.id]),
            opened_at=row.opened_at,
            confirmed_at=row.confirmed_at,
            confirmed_by=row.confirmed_by,
            ends_at=row.ends_at,
            extended_at=row.extended_at,
            extended_by=row.extended_by,
            reference=row.reference,
            closed_at=row.closed_at,
            closed_by=row.closed_by,
            closed_for=row.closed_for,
            captured=row.captured_total,
        )
        for row in rows
    ]
