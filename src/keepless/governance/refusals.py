"""Refusals of administration as entries of the audit log, bounded so that nobody can flood it.

Holds: `Refusals`. Leaves out: what is refused, and the answer (http); sign-ins that failed (sign_in, bounded by its own
limits); refusals of inference, files and batches, which the usage ledger counts one by one.

The first refusal of a kind (who, which permission, which code) is an entry at once; its like within the hour are
counted and told by the next entry of that kind. Of one organization at most `MOST_AN_HOUR` stand in the log for any
hour, over all processes: the log itself is asked. What could not be written is still refused.
"""

import sqlite3
import threading
from typing import Final

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

__all__ = ["MOST_AN_HOUR", "NOTED", "Refusals"]

MOST_AN_HOUR: Final = 60
NOTED: Final = frozenset({403, 423})  # of these statuses: not yours to do, and held
_HOUR_MS: Final = 3_600_000
_MOST_KINDS: Final = 4_096
_UNWRITTEN: Final = (sa.exc.SQLAlchemyError, sqlite3.Error, OSError, KeeplessError)
_Kind = tuple[Id, Permission, Code]


class Refusals:
    """The refusals of one process. Thread-safe; `note` blocks (database) and never raises for what it stands on."""

    def __init__(self, db: Database, clock: Clock, log: Log) -> None:
        self._db: Final = db
        self._clock: Final = clock
        self._log: Final = log
        self._lock: Final = threading.Lock()
        self._told: Final[dict[_Kind, tuple[int, int]]] = {}  # when it was told, and how many came since

    def note(self, actor: Id, organization_id: Id | None, permission: Permission, code: Code) -> None:
        """Write it down, or count it."""
        now_ms, kind = self._clock.now_ms(), (actor, permission, code)
        with self._lock:
            told_ms, since = self._told.get(kind, (0, 0))
            if now_ms - told_ms < _HOUR_MS:
                self._told[kind] = (told_ms, since + 1)
                return
            if len(self._told) >= _MOST_KINDS:
                self._told.clear()
            self._told[kind] = (now_ms, 0)
        facts: dict[Fact, FactValue] = {
            Fact.ACTOR: actor,
            Fact.PERMISSION: permission,
            Fact.CODE: code,
            Fact.TIMES: since + 1,
        }
        try:
            with self._db.write() as tx:
                column = log_entry.c
                late = sa.select(column.at).where(
                    column.organization_id.is_not_distinct_from(organization_id),
                    column.kind == EntryKind.ACCESS_REFUSED,
                )
                times = tx.execute(late.order_by(column.idx.desc()).limit(MOST_AN_HOUR)).scalars().all()
                if len(times) < MOST_AN_HOUR or times[-1] <= now_ms - _HOUR_MS:
                    self._log.append(tx, [Entry(EntryKind.ACCESS_REFUSED, now_ms, organization_id, facts=facts)])
        except _UNWRITTEN as error:
            failure(Event.REFUSAL_NOT_WRITTEN, error)
