"""What the stores and the catalogue do not agree on, in both directions.

Holds: `Orphans`. Leaves out: finding strays itself (vault.strays), destroying objects (purge), ending KEKs (roll).

Without a row, older than a grace of one hour: blobs, hidden parts of killed puts, key files: destroyed. Without an end:
an intent older than the grace is taken (its put can then not commit any more) and its blob destroyed.
Without a store: an object whose blob is missing, a KEK whose key is missing. That is loss of data, which nothing here
can mend: it is reported, and the row stays until its own end (a missing KEK retires, so that new objects get another).
A KEK made for one object whose put was refused or died wraps nothing, and no day ends it: older than the grace it ends
here. Most KEKs of one object do wrap it, so every sweep would have to pass them all by (roll).

Intents cost what there is of them. The rest reads whole listings, so it runs a few times a day and when a person asks.
Memory is flat: what a store lists is remembered as bits of a fixed table; a missing blob escapes one run in thousands,
and the next one hashes differently.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

import sqlalchemy as sa

from keepless.clock import Clock
from keepless.db import Database
from keepless.errors import KeeplessError
from keepless.expiry.report import Finding, FindingKind, Report
from keepless.ids import Id
from keepless.log import Event, emit, failure
from keepless.vault.door import Vault
from keepless.vault.errors import BlobMissingError
from keepless.vault.states import KekKind, KekState
from keepless.vault.tables import intent, kek, kept

__all__ = ["GRACE_MS", "Orphans"]

GRACE_MS: Final = 3_600_000
_PAGE: Final = 500
_EVER_MS: Final = 2**53
_FAILURES: Final = (KeeplessError, sa.exc.SQLAlchemyError)


class _Seen:
    """A set of ids in 16 MiB whatever their number (a Bloom filter of two bits an id, salted anew each time)."""

    def __init__(self) -> None:
        self._bits: Final = bytearray(1 << 24)
        self._salt: Final = os.urandom(16)

    def _places(self, id_: str) -> Iterator[tuple[int, int]]:
        digest = int.from_bytes(hashlib.blake2b(id_.encode(), digest_size=8, salt=self._salt).digest())
        for part in (digest >> 32, digest):
            yield part >> 3 & 0xFFFFFF, 1 << (part & 7)

    def add(self, id_: str) -> None:
        for place, bit in self._places(id_):
            self._bits[place] |= bit

    def __contains__(self, id_: str) -> bool:
        return all(self._bits[place] & bit for place, bit in self._places(id_))


class Orphans:
    """Finds and destroys what no row accounts for, and reports rows without a store. Every method blocks."""

    def __init__(self, db: Database, clock: Clock, vault: Vault) -> None:
        self._db: Final = db
        self._clock: Final = clock
        self._vault: Final = vault

    @property
    def _before_ms(self) -> int:
        return self._clock.now_ms() - GRACE_MS

    def intents(self, report: Report) -> None:
        """Undo puts that began more than an hour ago and never ended."""
        last = Id("")
        column = intent.c
        while True:
            query = (
                sa.select(column.blob, column.location)
                .where(column.created_at < self._before_ms, column.blob > last)
                .where(column.location.in_(self._vault.strays.locations))
                .order_by(column.blob)
                .limit(_PAGE)
            )
            with self._db.read() as tx:
                page = tx.execute(query).all()
            if not page:
                return
            for row in page:
                report.intents += self._vault.strays.abandon(row.location, row.blob)
            last = page[-1].blob

    def audit(self, report: Report, keep_turn: Callable[[], None] = lambda: None) -> None:
        """Search the stores and the keyring for what no row accounts for, and the rows for what no store has."""
        for location in self._vault.strays.locations:
            self._blobs(location, report, keep_turn)
            self._leftovers(location, report)
            self._missing_blobs(location, report, keep_turn)
        for kek_id in self._vault.strays.keks(self._before_ms):
            report.orphan_keys += self._vault.strays.destroy_kek(kek_id)
            emit(Event.ORPHAN_DESTROYED, kek=kek_id)
        self._keys(report, keep_turn)

    def _blobs(self, location: Id, report: Report, keep_turn: Callable[[], None]) -> None:
        found = self._vault.strays.blobs(location, self._before_ms)
        while page := list(islice(found, _PAGE)):
            keep_turn()
            try:
                gone = self._vault.strays.destroy_blobs(location, page)
            except _FAILURES as error:
                report.failures += 1
                failure(Event.SWEEP_FAILED, error, blob=page[0], objects=len(page))
                continue
            report.orphan_blobs += len(gone)
            for blob in gone:
                emit(Event.ORPHAN_DESTROYED, blob=blob)

    def _leftovers(self, location: Id, report: Report) -> None:
        for leftover in self._vault.strays.leftovers(location, self._before_ms):
            self._vault.strays.drop(location, leftover)
            report.leftovers += 1

    def _missing_blobs(self, location: Id, report: Report, keep_turn: Callable[[], None]) -> None:
        """Rows first would be wrong: a row younger than the listing has its blob; so the rows' cut-off comes first."""
        before_ms, seen = self._before_ms, _Seen()
        store = self._vault.places[location].store
        for blob in store.listed(_EVER_MS):
            seen.add(blob)
        last = Id("")
        while True:
            query = (
                sa.select(kept.c.id, kept.c.blob)
                .where(kept.c.id > last, kept.c.location == location, kept.c.created_at < before_ms)
                .order_by(kept.c.id)
                .limit(_PAGE)
            )
            with self._db.read() as tx:
                page = tx.execute(query).all()
            if not page:
                return
            keep_turn()
            for row in page:
                if row.blob not in seen and self._is_missing(location, row.id, row.blob):
                    report.findings.append(Finding(FindingKind.BLOB_MISSING, row.id))
            last = page[-1].id

    def _is_missing(self, location: Id, object_id: Id, blob: Id) -> bool:
        """Ask the store for the blob itself, and whether its row still stands."""
        try:
            self._vault.places[location].store.get(blob)
        except BlobMissingError:
            with self._db.read() as tx:
                return tx.execute(sa.select(kept.c.id).where(kept.c.id == object_id)).first() is not None
        return False

    def _keys(self, report: Report, keep_turn: Callable[[], None]) -> None:
        """Every active KEK: one of an object that is not kept ends, one without its file is reported."""
        last, before_ms = Id(""), self._before_ms
        while True:
            query = sa.select(kek.c.id, kek.c.kind, kek.c.created_at)
            query = query.where(kek.c.state == KekState.ACTIVE, kek.c.id > last)
            with self._db.read() as tx:
                page = tx.execute(query.order_by(kek.c.id).limit(_PAGE)).all()
                own = [row.id for row in page if row.kind is KekKind.OBJECT and row.created_at < before_ms]
                idle = set(own).difference(tx.execute(sa.select(kept.c.kek_id).where(kept.c.kek_id.in_(own))).scalars())
            if not page:
                return
            for row in page:
                keep_turn()
                if row.id in idle:
                    self._end_idle(row.id, report)
                # Retired only if it is active still: one that was destroyed since it was read is none of ours.
                elif not self._vault.keks.has_file(row.id) and self._vault.keks.retire(row.id):
                    report.findings.append(Finding(FindingKind.KEY_MISSING, row.id))
            last = page[-1].id

    def _end_idle(self, kek_id: Id, report: Report) -> None:
        """End a KEK that wraps nothing. A put that is about to use it finds out at its commit, and chooses another."""
        try:
            report.keys_destroyed += self._vault.keks.destroy(kek_id)
        except _FAILURES as error:
            report.failures += 1
            failure(Event.SWEEP_FAILED, error, kek=kek_id)
