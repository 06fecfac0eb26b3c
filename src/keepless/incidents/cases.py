"""Abuse cases as every serving process knows them: opening a suspected one, and capturing under a confirmed one.

Holds: `CaseBook`. Leaves out: signals (abuse), what operators decide (governance.cases), policy and keeping
(capture).

A suspected case is metadata only. Capture covers the keys that a *confirmed* case names, until its end, at most
`CAPTURES_A_DAY` requests a UTC day; each capture asks policy like any other (ZDR and opt-out win). `watches`
answers from a snapshot of at most `REFRESH_S` ago and only decides what is asked for; whether the case still
stands, its end and its count are checked in the database, in the transaction that takes the place of one capture.
"""

import threading
from collections.abc import Mapping
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.clock import Clock, day_of
from keepless.db import Database, insert_or_ignore
from keepless.errors import KeeplessError
from keepless.ids import Id, Prefix, mint
from keepless.incidents.abuse import Suspicion
from keepless.incidents.capture import Capture, Incident, PolicyReader, Vault
from keepless.incidents.states import CaseState
from keepless.incidents.tables import abuse_case, abuse_case_key
from keepless.log import Event, emit, failure
from keepless.policy.data_class import DataClass
from keepless.policy.decision import Discard, DiscardReason, Reason, Trigger
from keepless.receipts.log import Log
from keepless.receipts.statement import Entry, EntryKind, Fact, FactValue
from keepless.vault.rows import Kept

__all__ = ["CAPTURES_A_DAY", "LONGEST_MS", "REFRESH_S", "CaseBook"]

CAPTURES_A_DAY: Final = 100
LONGEST_MS: Final = 72 * 3_600_000
REFRESH_S: Final = 1.0


class CaseBook:
    """The cases of one deployment, for one process. `auto_capture`: a suspected case is confirmed at once."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        log: Log,
        vault: Vault,
        policy_now: PolicyReader,
        *,
        max_bytes: int,
        auto_capture: bool = False,
    ) -> None:
        self._db: Final = db
        self._clock: Final = clock
        self._log: Final = log
        self._capture: Final = Capture(vault, policy_now, max_bytes=max_bytes)
        self._auto_capture: Final = auto_capture
        self._watched: Mapping[Id, int] = {}  # key -> when its case ends
        self._stop: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._run, name="cases", daemon=True)

    def start(self) -> None:
        """Read the cases now, and again every `REFRESH_S`. Blocks for the first reading."""
        self._refresh_calmly()
        self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def watches(self, key_id: Id) -> bool:
        """Whether a confirmed case names this key now, as far as the last reading tells. Never blocks."""
        ends_at = self._watched.get(key_id)
        return ends_at is not None and self._clock.now_ms() < ends_at

    def refresh(self) -> None:
        """Read which keys confirmed cases name. Blocks."""
        columns = abuse_case.c
        query = (
            sa.select(abuse_case_key.c.key_id, sa.func.max(columns.ends_at).label("ends_at"))
            .join(abuse_case, columns.id == abuse_case_key.c.case_id)
            .where(columns.state == CaseState.CONFIRMED, columns.ends_at > self._clock.now_ms())
            .group_by(abuse_case_key.c.key_id)
        )
        with self._db.read() as tx:
            self._watched = {row.key_id: row.ends_at for row in tx.execute(query)}

    def consider(self, incident: Incident) -> Kept | Discard:
        """Keep the request, or say why not. Blocks; never raises for a policy, store or database."""
        cap = _DailyCap(self._db, incident.key_id, self._clock.now_ms())
        result = self._capture.keep(
            incident, data_class=DataClass.ABUSE_LOG, trigger=Trigger.ABUSE_CASE, reason=Reason.ABUSE_CASE, cap=cap
        )
        no_case = isinstance(result, Discard) and result.reason is DiscardReason.CAPPED and not cap.found
        return Discard(DiscardReason.NO_TRIGGER) if no_case else result

    def suspect(self, suspicion: Suspicion) -> Id | None:
        """Open a suspected case, or add keys to the one that waits for a person; returns its id. Blocks.

        None when the database fails: the next suspicion tries again.
        """
        try:
            return self._suspect(suspicion)
        except (sa.exc.SQLAlchemyError, KeeplessError) as error:
            failure(Event.CASE_FAILED, error, organization=suspicion.organization_id)
            return None

    def _suspect(self, suspicion: Suspicion) -> Id:
        now_ms = self._clock.now_ms()
        with self._db.write() as tx:
            present = self._open_case(tx, suspicion, now_ms)
            case_id = mint(Prefix.CASE) if present is None else present
            if present is None:
                self._insert(tx, case_id, suspicion, now_ms)
            for key_id in sorted(suspicion.key_ids):
                insert_or_ignore(tx, abuse_case_key, case_id=case_id, key_id=key_id)
            row = abuse_case.update().where(abuse_case.c.id == case_id)
            tx.execute(row.values(refusals=suspicion.refusals))
            if present is None:
                self._log.append(tx, self._entries(case_id, suspicion, now_ms))
        if present is None:
            emit(Event.CASE_OPENED, case=case_id, organization=suspicion.organization_id, signal=suspicion.signal)
        return case_id

    def _open_case(self, tx: Connection, suspicion: Suspicion, now_ms: int) -> Id | None:
        """The case of the organization that takes the suspicion: one, so that a burst opens one.

        What a person confirmed is what they saw: such a case takes no further key, and beside it the suspicion of one
        opens a case that waits for a person again. A case that captures no longer takes none either.
        """
        columns = abuse_case.c
        own = sa.select(columns.id).where(columns.organization_id == suspicion.organization_id)
        confirmed = sa.and_(columns.state == CaseState.CONFIRMED, columns.ends_at > now_ms)
        if not self._auto_capture:
            named = sa.select(sa.func.count()).where(
                abuse_case_key.c.case_id == columns.id, abuse_case_key.c.key_id.in_(suspicion.key_ids)
            )
            confirmed = sa.and_(confirmed, named.scalar_subquery() == len(suspicion.key_ids))
        query = own.where(sa.or_(columns.state == CaseState.SUSPECTED, confirmed))
        # A confirmed case that names all of the keys comes first.
        order = (sa.case((confirmed, 0), else_=1), columns.opened_at)
        found: Id | None = tx.execute(query.order_by(*order).limit(1).with_for_update()).scalar()
        return found

    def _insert(self, tx: Connection, case_id: Id, suspicion: Suspicion, now_ms: int) -> None:
        confirmed = self._auto_capture
        tx.execute(
            abuse_case.insert().values(
                id=case_id,
                organization_id=suspicion.organization_id,
                state=CaseState.CONFIRMED if confirmed else CaseState.SUSPECTED,
                signal=suspicion.signal,
                refusals=suspicion.refusals,
                opened_at=now_ms,
                confirmed_at=now_ms if confirmed else None,
                ends_at=now_ms + LONGEST_MS if confirmed else None,
                captured=0,
                captured_total=0,
            )
        )

    def _entries(self, case_id: Id, suspicion: Suspicion, now_ms: int) -> list[Entry]:
        facts: dict[Fact, FactValue] = {Fact.CASE_ID: case_id, Fact.REASON: suspicion.signal}
        entries = [Entry(EntryKind.CASE_OPENED, now_ms, suspicion.organization_id, facts=facts)]
        if self._auto_capture:
            until: dict[Fact, FactValue] = {Fact.CASE_ID: case_id, Fact.ENDS_AT: now_ms + LONGEST_MS}
            entries.append(Entry(EntryKind.CASE_CONFIRMED, now_ms, suspicion.organization_id, facts=until))
        return entries

    def _run(self) -> None:
        while not self._stop.wait(REFRESH_S):
            self._refresh_calmly()

    def _refresh_calmly(self) -> None:
        try:
            self.refresh()
        except (sa.exc.SQLAlchemyError, KeeplessError) as error:
            # What was known stands until its own end; every capture asks the database anyway.
            failure(Event.CASE_FAILED, error)


class _DailyCap:
    """A place under the daily bound of the confirmed case that names a key."""

    def __init__(self, db: Database, key_id: Id, now_ms: int) -> None:
        self._db: Final = db
        self._key_id: Final = key_id
        self._now_ms: Final = now_ms
        self._case_id: Id | None = None

    @property
    def found(self) -> bool:
        """Whether there is such a case."""
        return self._case_id is not None

    def take(self) -> bool:
        """See `capture.Cap`."""
        columns, today = abuse_case.c, day_of(self._now_ms)
        with self._db.write() as tx:
            row = tx.execute(
                sa.select(columns.id, columns.captured_day, columns.captured)
                .join(abuse_case_key, abuse_case_key.c.case_id == columns.id)
                .where(
                    abuse_case_key.c.key_id == self._key_id,
                    columns.state == CaseState.CONFIRMED,
                    columns.ends_at > self._now_ms,
                )
                .order_by(columns.opened_at)
                .limit(1)
                .with_for_update(of=abuse_case)
            ).one_or_none()
            if row is None:
                return False
            self._case_id = row.id
            captured = row.captured if row.captured_day == today else 0
            if captured >= CAPTURES_A_DAY:
                return False
            values = {"captured_day": today, "captured": captured + 1, "captured_total": columns.captured_total + 1}
            tx.execute(abuse_case.update().where(columns.id == row.id).values(values))
            return True

    def give_back(self) -> None:
        """See `capture.Cap`."""
        columns = abuse_case.c
        with self._db.write() as tx:
            tx.execute(
                abuse_case.update()
                .where(columns.id == self._case_id)
                .values(captured=columns.captured - 1, captured_total=columns.captured_total - 1)
            )
