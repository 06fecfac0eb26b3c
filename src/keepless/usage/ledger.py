"""The ledger: one usage row a request, written off the hot path in batches by a thread of its own.

Holds: `Ledger` (`add`, `close`) and `Counters`. Leaves out: reading (totals), what a record may hold (record).

`add` costs an append and never blocks, waits or raises. Every `flush_seconds`, less often under load, the writer puts
all that waits into ONE transaction (the commit point). What is lost: nothing on `close` (SIGTERM), at most what was
added since the last flush on `kill -9`. While the database cannot be written (full disk, locked), rows wait, at most
`max_rows`; beyond that only sums per (organization, model, status, hour) are kept, which become `usage_gap` rows when
writing works again: a request is then counted and billed though its row is missing. Sums are bounded too: past
`max_gaps` kinds they drop the model, then the organization.

Rows are made and inserted a few at a time, with a rest after each, unless too many wait: on a core that it shares with
the event loop the writer would otherwise run until the kernel's next look at the clock (4 ms at 250 Hz), though it
holds no lock. Where nobody waits for the event loop (`rests` False: batches), it does neither: a transaction that rests
keeps SQLite's one writer from the journals.

`refused` is given the records of what data controls refused, after their rows are written, on the writer's thread; it
may block and does not raise (governance.refusals makes entries of the audit log of them).
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.db import Database, insert_many, insert_or_ignore
from keepless.errors import Code, KeeplessError
from keepless.log import Event, emit, failure
from keepless.usage.record import Kind, Record
from keepless.usage.tables import usage, usage_gap, usage_kind, usage_sketch

__all__ = ["REFUSALS", "Counters", "Ledger"]

HOUR_MS: Final = 3_600_000
_BATCH: Final = 5_000  # rows a transaction
_RETRY_S: Final = 0.5  # after a failed one
_BUSY: Final = 200  # rows at once, after which the next ones are given more time to gather:
_BUSY_S: Final = 0.2
_PIECE: Final = 64  # rows made and inserted at once: about 0.3 ms, the longest that the event loop waits for them
_LARGE_PIECE: Final = 256  # without rests
_REST_S: Final = 0.0005
_ROW: Final = tuple(column.name for column in usage.columns)[1:]
_SKETCH: Final = tuple(column.name for column in usage_sketch.columns)[1:]
_KIND: Final = tuple(column.name for column in usage_kind.columns)[2:]
_MOST_KINDS: Final = 50_000  # remembered with their numbers; the rest is asked for again
_GAP: Final = tuple(column.name for column in usage_gap.columns)[1:]

# What a data control or a legal hold did not let through: told to `refused` once its rows are written.
REFUSALS: Final = frozenset(
    {
        Code.FEATURE_DISABLED,
        Code.HELD,
        Code.LOOSENING_REFUSED,
        Code.RETENTION_CONFLICT,
        Code.UPSTREAM_REGION,
        Code.UPSTREAM_RETENTION,
    }
)
_GapKey = tuple[int, str | None, str | None, int]  # hour's beginning, organization, model, status


@dataclass(slots=True)
class Counters:
    """How the ledger fares, since the start of the process."""

    added: int = 0
    written: int = 0
    failures: int = 0  # transactions that failed; their rows were kept and tried again
    gapped: int = 0  # requests of which only sums remain


class Ledger:
    """Writes usage rows. `start` it once, `add` from any thread, `close` it to write all that waits."""

    def __init__(
        self,
        db: Database,
        *,
        max_rows: int = 20_000,
        flush_seconds: float = 0.05,
        max_gaps: int = 10_000,
        rests: bool = True,
        refused: Callable[[Sequence[Record]], None] | None = None,
    ) -> None:
        self._db: Final = db
        self._max_rows: Final = max_rows
        self._flush_seconds: Final = flush_seconds
        self._max_gaps: Final = max_gaps
        self._rests: Final = rests
        self._piece: Final = _PIECE if rests else _LARGE_PIECE
        self._refused: Final = refused
        self._waiting: Final[deque[Record]] = deque()
        self._gaps: dict[_GapKey, list[int]] = {}
        self._kinds: dict[Kind, int] = {}
        self._gap_lock: Final = threading.Lock()
        self._writing: Final = threading.Lock()
        self._stop: Final = threading.Event()
        self._runner: Final = threading.Thread(target=self._run, name="ledger", daemon=True)
        self.counters: Final = Counters()
        self.healthy = True  # whether the last rows could be written

    def start(self) -> None:
        """Begin to write."""
        self._runner.start()

    def add(self, record: Record) -> None:
        """Take one record. Never blocks on the database, never raises."""
        self.counters.added += 1
        if len(self._waiting) < self._max_rows:
            self._waiting.append(record)
        else:
            self._fold([record])

    @property
    def waiting(self) -> int:
        """Rows not yet written."""
        return len(self._waiting)

    def flush(self) -> bool:
        """Write all that waits now. False when the database cannot be written (nothing is lost by that)."""
        with self._writing:
            # What comes meanwhile waits for the next time: under load there would be no end, and a transaction for
            # every few rows.
            left = len(self._waiting)
            while left or self._gaps:
                batch = [self._waiting.popleft() for _ in range(min(_BATCH, left))]
                if not self._write(batch):
                    return False
                left -= len(batch)
                self._forget(batch)
            return True

    def close(self, *, seconds: float = 10.0) -> bool:
        """Stop the writer and write all that waits, trying again for `seconds`. True when nothing is left unwritten."""
        self._stop.set()
        if self._runner.is_alive():
            self._runner.join()
        pause, waited = threading.Event(), 0.0
        while not self.flush() or self._waiting:
            if waited >= seconds:
                emit(Event.LEDGER_FAILED, rows=len(self._waiting))
                return False
            pause.wait(0.2)
            waited += 0.2
        return True

    def _run(self) -> None:
        pause = self._flush_seconds
        while not self._stop.wait(pause if self.healthy else _RETRY_S):
            before = self.counters.written
            self.flush()
            busy = self.counters.written - before >= _BUSY
            pause = max(_BUSY_S, self._flush_seconds) if busy else self._flush_seconds

    def _write(self, batch: list[Record]) -> bool:
        with self._gap_lock:
            gaps, self._gaps = self._gaps, {}
        try:
            kinds, found = self._kinds_of(batch)
            with self._db.write() as tx:
                new = _numbers(tx, found.difference(self._kinds))
                numbers = {**self._kinds, **new} if new else self._kinds
                for at in range(0, len(batch), self._piece):
                    if at:
                        self._rest()
                    some = zip(batch[at : at + self._piece], kinds[at : at + self._piece], strict=True)
                    insert_many(tx, usage, _ROW, [record.row(numbers[kind]) for record, kind in some])
                _insert(tx, batch, gaps)
        except (sa.exc.SQLAlchemyError, KeeplessError) as error:
            self.counters.failures += 1
            failure(Event.LEDGER_FAILED, error, rows=len(batch))
            self._keep(batch, gaps)
            self.healthy = False
            return False
        self.healthy = True
        # Only now: numbers given out by a transaction that failed would mean something else afterwards.
        self._kinds = numbers if len(numbers) <= _MOST_KINDS else {}
        self.counters.written += len(batch)
        if self._refused is not None:
            by_control = [record for record in batch if record.code is not None and record.code in REFUSALS]
            if by_control:
                self._refused(by_control)
        if gaps:
            emit(Event.LEDGER_GAP, rows=len(gaps), requests=sum(sums[0] for sums in gaps.values()))
        return True

    def _kinds_of(self, batch: list[Record]) -> tuple[list[Kind], set[Kind]]:
        """The kind of each, and which there are; with a rest after every few as well."""
        kinds: list[Kind] = []
        found: dict[Kind, Kind] = {}
        for at in range(0, len(batch), 4 * _PIECE):
            if at:
                self._rest()
            for record in batch[at : at + 4 * _PIECE]:
                kind = record.kind()
                kinds.append(found.setdefault(kind, kind))  # each once: thousands would wake the garbage collector
        return kinds, set(found)

    def _forget(self, batch: list[Record]) -> None:
        """Freeing thousands of records at once takes as long as writing some."""
        while batch:
            del batch[-4 * _PIECE :]
            self._rest()

    def _rest(self) -> None:
        """Leave the core to the event loop, unless rows come faster than that allows or the end is near."""
        if self._rests and len(self._waiting) < self._max_rows // 4 and not self._stop.is_set():
            time.sleep(_REST_S)

    def _keep(self, batch: list[Record], gaps: dict[_GapKey, list[int]]) -> None:
        """Put back what could not be written: the newest rows that fit, sums for the rest."""
        room = max(self._max_rows - len(self._waiting), 0)
        old, young = (batch[:-room], batch[-room:]) if room else (batch, [])
        self._waiting.extendleft(reversed(young))
        with self._gap_lock:
            for key, sums in gaps.items():
                self._sum(key, sums)
        self._fold(old)

    def _fold(self, records: list[Record]) -> None:
        self.counters.gapped += len(records)
        with self._gap_lock:
            for r in records:
                key = (r.at_ms - r.at_ms % HOUR_MS, r.organization_id, r.model, r.status)
                self._sum(key, [1, r.prompt_tokens, r.completion_tokens, r.cached_tokens])

    def _sum(self, key: _GapKey, sums: list[int]) -> None:
        hour, organization_id, _, status = key
        for wider in (key, (hour, organization_id, None, status), (hour, None, None, status)):
            if wider in self._gaps or len(self._gaps) < self._max_gaps:
                break
        present = self._gaps.setdefault(wider, [0, 0, 0, 0])
        for at, value in enumerate(sums):
            present[at] += value


def _numbers(tx: Connection, kinds: set[Kind]) -> dict[Kind, int]:
    """The numbers of kinds, given out where they are new; in one order, so that two processes do not wait crosswise."""
    numbers: dict[Kind, int] = {}
    for digest, kind in sorted(
        (sha256(msgspec.json.encode([_plain(part) for part in kind])).digest(), kind) for kind in kinds
    ):
        insert_or_ignore(tx, usage_kind, digest=digest, **dict(zip(_KIND, kind, strict=True)))
        numbers[kind] = tx.execute(sa.select(usage_kind.c.id).where(usage_kind.c.digest == digest)).scalar_one()
    return numbers


def _insert(tx: Connection, batch: list[Record], gaps: dict[_GapKey, list[int]]) -> None:
    if sketches := [r.sketch.row(str(r.request_id), r.at_ms) for r in batch if r.sketch is not None]:
        insert_many(tx, usage_sketch, _SKETCH, sketches)
    if gaps:
        rows = [
            (hour, _plain(organization_id), _plain(model), status, *sums)
            for (hour, organization_id, model, status), sums in gaps.items()
        ]
        insert_many(tx, usage_gap, _GAP, rows)


def _plain(value: str | int | None) -> str | int | None:
    return str(value) if isinstance(value, str) else value
