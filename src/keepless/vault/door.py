"""The one door to stored customer data: put with a permit, read for a purpose, shred, erase, settle.

Holds: `Vault`. Leaves out: whether something may be kept (policy.decide mints the permit), what is due and in which
batches (expiry), what stands in the tables (catalogue), the lives of KEKs (keks), what lies astray (strays), and the
steps of keeping (keeping), of what is written piece by piece (writer), of journals (journal) and of reading (reading).

Put, in this order (DECISIONS 13):
1. transaction: epoch compared, intent row;
2. the KEK of its expiry day: if new, key file + fsync, then its row;
3. blob + fsync;
4. transaction: epoch compared, KEK still active, intent taken, row with the wrapped DEK, totals, log. COMMIT POINT
Destroy:
1. `shred` in a transaction of the caller: holds checked, rows (the DEKs) deleted, tombstones, totals. COMMIT POINT
2. `erase`: blobs deleted and acknowledged;
3. `settle` in a transaction of the caller: tombstones destroyed, receipts in the log.
After a crash between any two steps the first half is undone or the second half done by the next sweep, never replayed.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.clock import Clock, day_of
from keepless.content import Content, Purpose
from keepless.db import Database
from keepless.errors import KeeplessError
from keepless.ids import Id, Prefix, mint, trusted
from keepless.policy.decision import Retain
from keepless.receipts.log import Log
from keepless.receipts.statement import deleted
from keepless.vault import catalogue, in_force
from keepless.vault.envelope import facts_of, facts_under, new_dek, seal, unwrap, wrap
from keepless.vault.errors import KeyMissingError, NotOpenedError, StoreFailedError, store_failures
from keepless.vault.journal import Journal, records_of
from keepless.vault.keeping import Keeping, Place, Sealed, Within, demand, nothing_more
from keepless.vault.keks import Keks
from keepless.vault.keyring import FileKeyring
from keepless.vault.reading import Labelled, ObjectReader, Reading
from keepless.vault.rows import Kept, Shredded
from keepless.vault.states import Cause, Step
from keepless.vault.strays import Strays
from keepless.vault.writer import ObjectWriter

__all__ = ["Place", "Rewrapped", "Shredding", "Vault"]


@dataclass(frozen=True, slots=True)
class Shredding:
    """What a call of `shred` did: objects whose DEK is deleted, and objects that a hold kept."""

    shredded: list[Shredded]
    held: list[Id]


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """What a call of `rewrap` did: how many moved, and objects whose DEK does not open (their KEK is lost)."""

    moved: int
    lost: list[Id]


class Vault:
    """The door. Thread-safe; every method blocks: call it from a worker thread. The first place is written to."""

    def __init__(
        self,
        db: Database,
        keyring: FileKeyring,
        places: Sequence[Place],
        log: Log,
        clock: Clock,
        *,
        at_step: Callable[[Step], None] = lambda _: None,
    ) -> None:
        self._keyring: Final = keyring
        self.keks: Final = Keks(db, keyring, log, clock, at_step)
        self.strays: Final = Strays(db, {place.store.name: place.store for place in places}, keyring)
        self.places: Final = {place.store.name: place for place in places}
        self._keeping: Final = Keeping(
            db, places[0], keks=self.keks, strays=self.strays, log=log, clock=clock, at_step=at_step
        )
        self._reading: Final = Reading(db, keyring, self.places, clock)
        self._log: Final = log
        self._clock: Final = clock

    # --- put ---------------------------------------------------------------------------------------------------------

    def put(self, content: Content, permit: Retain, *, within: Within = nothing_more) -> Kept:
        """Keep one object under its permit, and with it what `within` writes in the same transaction.

        Raises `StaleEpochError` (decide again), `LocationRedError`, `StoreFailedError`; then nothing is kept.
        """
        demand(content, Content)
        demand(permit, Retain)
        blob = mint(Prefix.BLOB)
        with store_failures():
            self._keeping.begin(blob, trusted(permit.organization_id), permit)
            try:
                return self._put(content, permit, blob, within)
            except (KeeplessError, sa.exc.SQLAlchemyError):
                self._keeping.abandon(blob)
                raise

    def _put(self, content: Content, permit: Retain, blob: Id, within: Within) -> Kept:
        kek = self._keeping.kek(permit)
        object_id, dek = mint(Prefix.OBJECT), new_dek()
        pieces = seal(dek, facts_under(permit, object_id), content.reveal(Purpose.SEAL))
        self._keeping.place.store.put(blob, pieces)
        self._keeping.at(Step.BLOB)
        sealed = Sealed(object_id, blob, dek, sum(len(piece) for piece in pieces))
        return self._keeping.commit(sealed, permit, kek, within)

    def writing(self, organization_id: Id) -> ObjectWriter:
        """Begin an object that comes piece by piece (writer): `with vault.writing(...) as writer`, then `commit`.

        Raises `StaleEpochError` when the organization is gone, `LocationRedError`, `StoreFailedError`.
        """
        return ObjectWriter(self._keeping, organization_id)

    def journal(self, permit: Retain, *, within: Within = nothing_more) -> Journal:
        """Open a journal, to which records are appended as they come (journal), and with it what `within` writes.

        Raises as `put`; a `KeeplessError` of `within` leaves nothing.
        """
        return Journal(self._keeping, permit, within)

    # --- read --------------------------------------------------------------------------------------------------------

    def read(self, object_id: Id, organization_id: Id, purpose: Purpose) -> Content:
        """The content of one object, for one purpose.

        Raises `NotKeptError` for what is not (or not any more) to be read, `NotOpenedError` for what was tampered with,
        `StoreFailedError`.
        """
        return self._reading.read(object_id, organization_id, purpose)

    def reader(self, object_id: Id, organization_id: Id, purpose: Purpose) -> ObjectReader:
        """One object to be read in parts, and its label. Raises as `read`."""
        return self._reading.reader(object_id, organization_id, purpose)

    def labels(self, object_ids: Sequence[Id], organization_id: Id, purpose: Purpose) -> dict[Id, Labelled]:
        """The labels and ends of those of some objects that may be read now.

        Raises `NotOpenedError`, `StoreFailedError`.
        """
        return self._reading.labels(object_ids, organization_id, purpose)

    def journal_records(self, object_id: Id, organization_id: Id) -> Iterator[Content]:
        """The committed records of a journal, in order. Raises as `read`, some of it while they are read."""
        return records_of(self._reading.opened(object_id, organization_id, Purpose.CUSTOMER, lambda it: it))

    # --- destroy -----------------------------------------------------------------------------------------------------

    def shred(self, tx: Connection, object_ids: Sequence[Id], cause: Cause, *, purge_id: Id | None = None) -> Shredding:
        """Delete the DEKs of objects within the caller's transaction, whose commit is the commit point.

        Objects that are not kept are passed over; objects under a hold are returned as held and stay.
        """
        rows = catalogue.lock_kept(tx, object_ids)
        holds = in_force.holds_of(tx, {row.organization_id for row in rows})
        held = {row.id for row in rows if in_force.is_held(row, holds)} if holds else set()
        going = [row for row in rows if row.id not in held]
        now = self._clock.now_ms()
        shredded = [
            Shredded(
                object_id=row.id,
                organization_id=row.organization_id,
                project_id=row.project_id,
                data_class=row.data_class,
                reason=row.reason,
                created_at=row.created_at,
                deleted_at=now,
                cause=cause,
                location=row.location,
                blob=row.blob,
                size=row.size,
                kek_id=row.kek_id,
                purge_id=purge_id,
            )
            for row in going
        ]
        catalogue.remove_kept(tx, going, day_of(now))
        catalogue.bury(tx, shredded)
        return Shredding(shredded, sorted(held))

    def erase(self, shredded: Sequence[Shredded]) -> list[Shredded]:
        """Delete blobs; returns those whose deletion the store acknowledged. The others stay for the next sweep."""
        gone: set[Id] = set()
        for location in {one.location for one in shredded}:
            if location in self.places:
                with contextlib.suppress(StoreFailedError):
                    blobs = [one.blob for one in shredded if one.location == location]
                    gone.update(self.places[location].store.delete(blobs))
        return [one for one in shredded if one.blob in gone]

    def settle(self, tx: Connection, erased: Sequence[Shredded]) -> int:
        """Mark erased objects destroyed, each with its receipt; last step of the caller's transaction.

        Returns how many: what another process has settled already is passed over, so there is one receipt each.
        """
        waiting = catalogue.still_destroying(tx, [one.object_id for one in erased])
        rows = [one for one in erased if one.object_id in waiting]
        now = self._clock.now_ms()
        appended = self._log.append(
            tx,
            [
                deleted(
                    at_ms=now,
                    organization_id=row.organization_id,
                    project_id=row.project_id,
                    object_id=row.object_id,
                    data_class=row.data_class,
                    reason=row.reason,
                    cause=row.cause,
                    created_at_ms=row.created_at,
                    deleted_at_ms=row.deleted_at,
                    kek_id=row.kek_id,
                    location=row.location,
                    purge_id=row.purge_id,
                )
                for row in rows
            ],
        )
        places = zip(rows, appended, strict=True)
        catalogue.settled(tx, [(row.object_id, at.receipt_id, at.index) for row, at in places if at.receipt_id])
        return len(rows)

    def rewrap(self, tx: Connection, object_ids: Sequence[Id], kek_id: Id, *, hold_id: Id | None = None) -> Rewrapped:
        """Move objects to another KEK within the caller's transaction; the KEKs they leave become due for a roll.

        `hold_id` is what the rows say from then on. Raises `KeyMissingError` when the new KEK is not active.
        """
        rows = catalogue.lock_kept(tx, object_ids)
        if not catalogue.lock_active_kek(tx, kek_id):
            raise KeyMissingError("the new KEK is not active")
        new = self._keyring.load(kek_id)
        old: dict[Id, bytes] = {}
        moved: list[tuple[Kept, bytes]] = []
        lost: list[Id] = []
        for row in rows:
            try:
                if row.kek_id not in old:
                    old[row.kek_id] = self._keyring.load(row.kek_id)
                facts = facts_of(row)
                moved.append((row, wrap(new, unwrap(old[row.kek_id], row.wrapped_dek, facts), facts)))
            except (KeyMissingError, NotOpenedError):
                lost.append(row.id)
        catalogue.rewrapped(tx, moved, kek_id, hold_id)
        catalogue.note_moved(tx, [row for row, _ in moved if row.kek_id != kek_id], day_of(self._clock.now_ms()))
        return Rewrapped(len(moved), lost)
