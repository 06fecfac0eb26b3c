"""Refusals as entries of the audit log, bounded so that nobody can flood it.

Holds: `Refusals`: of administration (`note`), and of requests that a data control or a hold did not let through
(`note_requests`, given by the ledger's writer, so no request waits for it). Leaves out: what is refused, and the answer
(http, policy); sign-ins that failed (sign_in, bounded by its own limits). The usage ledger counts every
request.

The first refusal of a kind (who, which permission or endpoint, which code) is an entry at once; its like within the
hour are counted and told by the next entry of that kind. Of one organization at most `MOST_AN_HOUR` of administration
and as many of requests stand in the log for any hour, over all processes: the log itself is asked. What could not be
written is still refused.
"""

import sqlite3
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

import sqlalchemy as sa

from keepless.accounts.roles import Permission
from keepless.clock import Clock
from keepless.db import Database
from keepless.errors import Code, KeeplessError
from keepless.ids import Id
from keepless.log import Event, failure
from keepless.receipts.log import Log
from keepless.receipts.statement import Entry, EntryKind, Fact, FactValue
from keepless.receipts.tables import log_entry
from keepless.usage.record import Endpoint, Record

__all__ = ["MOST_AN_HOUR", "NOTED", "Refusals"]

MOST_AN_HOUR: Final = 60
NOTED: Final = frozenset({403, 423})  # of these statuses: not yours to do, and held
_HOUR_MS: Final = 3_600_000
_MOST_KINDS: Final = 4_096
_UNWRITTEN: Final = (sa.exc.SQLAlchemyError, sqlite3.Error, OSError, KeeplessError)


class _Kind(NamedTuple):
    """What refusals are counted by."""

    actor: Id
    what: Permission | Endpoint
    code: Code


class Refusals:
    """The refusals of one process. Thread-safe; it blocks (database) and never raises for what it stands on."""

    def __init__(self, db: Database, clock: Clock, log: Log) -> None:
        self._db: Final = db
        self._clock: Final = clock
        self._log: Final = log
        self._lock: Final = threading.Lock()
        self._told: Final[dict[_Kind, tuple[int, int]]] = {}  # when it was told, and how many came since

    def note(self, actor: Id, organization_id: Id | None, permission: Permission, code: Code) -> None:
        """Write a refusal of administration down, or count it."""
        self._note(_Kind(actor, permission, code), 1, EntryKind.ACCESS_REFUSED, organization_id)

    def note_requests(self, records: Sequence[Record]) -> None:
        """The same of requests with an API key, as the ledger has recorded them."""
        found: Counter[tuple[_Kind, Id, Id | None]] = Counter()
        for one in records:
            if one.key_id is not None and one.organization_id is not None and one.code is not None:
                found[_Kind(one.key_id, one.endpoint, one.code), one.organization_id, one.project_id] += 1
        for (kind, organization_id, project_id), times in found.items():
            self._note(kind, times, EntryKind.REQUEST_REFUSED, organization_id, project_id)

    def _note(
        self, kind: _Kind, times: int, entry: EntryKind, organization_id: Id | None, project_id: Id | None = None
    ) -> None:
        now_ms = self._clock.now_ms()
        with self._lock:
            told_ms, since = self._told.get(kind, (0, 0))
            if now_ms - told_ms < _HOUR_MS:
                self._told[kind] = (told_ms, since + times)
                return
            if len(self._told) >= _MOST_KINDS:
                self._told.clear()
            self._told[kind] = (now_ms, 0)
        what: dict[Fact, FactValue] = (
            {Fact.PERMISSION: kind.what}
            if isinstance(kind.what, Permission)
            else {Fact.ENDPOINT: kind.what, Fact.KEY_ID: kind.actor}
        )
        facts = {Fact.ACTOR: kind.actor, **what, Fact.CODE: kind.code, Fact.TIMES: since + times}
        try:
            with self._db.write() as tx:
                column = log_entry.c
                late = sa.select(column.at).where(
                    column.organization_id.is_not_distinct_from(organization_id), column.kind == entry
                )
                before = tx.execute(late.order_by(column.idx.desc()).limit(MOST_AN_HOUR)).scalars().all()
                if len(before) < MOST_AN_HOUR or before[-1] <= now_ms - _HOUR_MS:
                    self._log.append(tx, [Entry(entry, now_ms, organization_id, project_id, facts=facts)])
        except _UNWRITTEN as error:
            failure(Event.REFUSAL_NOT_WRITTEN, error)
