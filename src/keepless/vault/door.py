"""The one door to stored customer data: put with a permit, read for a purpose, shred, erase, settle.

Holds: `Vault`. Leaves out: whether something may be kept (policy.decide mints the permit), what is due and in which
batches (expiry), what stands in the tables (catalogue), the lives of KEKs (keks), what lies astray (strays).

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.clock import Clock, day_of
from keepless.content import Content, Purpose
from keepless.db import Database
from keepless.errors import KeeplessError
from keepless.ids import Id, Prefix, mint, trusted
from keepless.policy.data_class import Feature
from keepless.policy.decision import Retain
from keepless.policy.period import end_in_force_ms
from keepless.policy.schedule import row_of
from keepless.receipts.log import Log
from keepless.receipts.statement import captured, deleted
from keepless.vault import catalogue, in_force
from keepless.vault.blobs import BlobStore
from keepless.vault.envelope import Facts, new_dek, seal, unseal, unwrap, wrap
from keepless.vault.errors import (
    BlobMissingError,
    KeyMissingError,
    LocationRedError,
    NotKeptError,
    NotOpenedError,
    StaleEpochError,
    StoreFailedError,
    store_failures,
)
from keepless.vault.keks import KekEndedError, Keks
from keepless.vault.keyring import FileKeyring
from keepless.vault.locations import LocationGuard
from keepless.vault.rows import Kept, Shredded
from keepless.vault.states import Cause, Step
from keepless.vault.strays import Strays

__all__ = ["Place", "Rewrapped", "Shredding", "Vault"]

_TRIES: Final = 4  # a KEK may end between its choice and the commit; more than once in a row is a failure
_READERS: Final = frozenset({Purpose.CUSTOMER, Purpose.BREAK_GLASS, Purpose.INFERENCE, Purpose.PROVE})


@dataclass(frozen=True, slots=True)
class Place:
    """One location: its driver and the verdict about it."""

    store: BlobStore
    guard: LocationGuard


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
        self._db: Final = db
        self._keyring: Final = keyring
        self.keks: Final = Keks(db, keyring, log, clock, at_step)
        self.strays: Final = Strays(db, {place.store.name: place.store for place in places}, keyring)
        self.places: Final = {place.store.name: place for place in places}
        self._home: Final = places[0]
        self._log: Final = log
        self._clock: Final = clock
        self._at = at_step

    # --- put ---------------------------------------------------------------------------------------------------------

    def put(self, content: Content, permit: Retain) -> Kept:
        """Keep one object under its permit.

        Raises `StaleEpochError` (decide again), `LocationRedError`, `StoreFailedError`; then nothing is kept.
        """
        _demand(content, Content)
        _demand(permit, Retain)
        blob, location = mint(Prefix.BLOB), self._home.store.name
        with store_failures():
            # 1. Intent. A stale permit is refused here already, before a byte of ciphertext is written.
            with self._db.write() as tx:
                self._agree(tx, permit)
                catalogue.add_intent(tx, blob, location, self._clock.now_ms())
            self._at(Step.INTENT)
            try:
                return self._put(content, permit, blob)
            except (KeeplessError, sa.exc.SQLAlchemyError):
                self.strays.abandon(location, blob)  # what fails of it is left to the sweep
                raise

    def _put(self, content: Content, permit: Retain, blob: Id) -> Kept:
        location = self._home.store.name
        # 2. The KEK.
        wanted = Keks.of_end(location, permit.expires_at_ms)
        kek_id, kek = self.keks.active(wanted)
        # 3. The blob.
        object_id, dek = mint(Prefix.OBJECT), new_dek()
        facts = Facts(
            organization_id=permit.organization_id,
            project_id=permit.project_id,
            data_class=permit.data_class.value,
            object_id=object_id,
            created_at=permit.created_at_ms,
            expires_at=permit.expires_at_ms,
        )
        pieces = seal(dek, facts, content.reveal(Purpose.SEAL))
        self._home.store.put(blob, pieces)
        self._at(Step.BLOB)
        # 4. The commit.
        for _ in range(_TRIES):
            row = Kept(
                id=object_id,
                organization_id=trusted(permit.organization_id),
                project_id=trusted(permit.project_id),
                data_class=permit.data_class,
                reason=permit.reason,
                request_id=None if permit.request_id is None else trusted(permit.request_id),
                epoch=permit.epoch,
                created_at=permit.created_at_ms,
                expires_at=permit.expires_at_ms,
                size=sum(len(piece) for piece in pieces),
                location=location,
                blob=blob,
                kek_id=kek_id,
                wrapped_dek=wrap(kek, dek, facts),
            )
            try:
                self._commit(row, permit)
            except KekEndedError:
                kek_id, kek = self.keks.active(wanted)
                continue
            except sa.exc.DBAPIError:
                # A connection that dies during COMMIT does not say on which side of it: what is answered must be true.
                if not self._stands(object_id):
                    raise
            self._at(Step.COMMIT)
            return row
        raise StoreFailedError("the keys of the day change too often")

    def _commit(self, row: Kept, permit: Retain) -> None:
        with self._db.write() as tx:
            self._agree(tx, permit)
            if not catalogue.lock_active_kek(tx, row.kek_id):
                raise KekEndedError("the KEK is not active any more")
            if not catalogue.take_intent(tx, row.blob):
                raise StoreFailedError("the intent was taken: the blob is being destroyed as an orphan")
            catalogue.add_kept(tx, row)
            entry = captured(
                at_ms=self._clock.now_ms(),
                organization_id=row.organization_id,
                project_id=row.project_id,
                object_id=row.id,
                data_class=row.data_class,
                reason=row.reason,
                epoch=row.epoch,
                expires_at_ms=row.expires_at,
                location=row.location,
                request_id=row.request_id,
            )
            self._log.append(tx, [entry])

    def _stands(self, object_id: Id) -> bool:
        with self._db.read() as tx:
            return catalogue.one_kept(tx, object_id) is not None

    def _agree(self, tx: Connection, permit: Retain) -> None:
        """The fence: the epoch of the permit is the organization's epoch at this very transaction."""
        organization = in_force.epoch_of(tx, trusted(permit.organization_id))
        if organization is None or organization[0] != permit.epoch:
            raise StaleEpochError("the policy changed; decide again")
        if not self._home.guard.writable(organization[1]):
            raise LocationRedError("the location does not hold what was promised of it")

    # --- read --------------------------------------------------------------------------------------------------------

    def read(self, object_id: Id, organization_id: Id, purpose: Purpose) -> Content:
        """The content of one object, for one purpose.

        Raises `NotKeptError` for what is not (or not any more) to be read, `NotOpenedError` for what was tampered with,
        `StoreFailedError`.
        """
        with store_failures():
            for _ in range(_TRIES):
                row = self._readable(object_id, organization_id, purpose)
                try:
                    kek = self._keyring.load(row.kek_id)
                    ciphertext = self.places[row.location].store.get(row.blob)
                except (KeyMissingError, BlobMissingError):
                    continue  # moved to another KEK, or deleted, since the row was read: look again
                except KeyError:
                    raise StoreFailedError("the object lies in a location that is not configured") from None
                facts = _facts(row)
                return unseal(unwrap(kek, row.wrapped_dek, facts), facts, ciphertext)
            raise NotKeptError("the key or the blob is gone")

    def _readable(self, object_id: Id, organization_id: Id, purpose: Purpose) -> Kept:
        with self._db.read() as tx:
            row = catalogue.one_kept(tx, object_id)
            if row is None or row.organization_id != organization_id or purpose not in _READERS:
                raise NotKeptError("no such object")
            policy = in_force.in_force(tx, row.organization_id, row.project_id, row.data_class)
            held = in_force.is_held(row, in_force.holds_of(tx, [row.organization_id]))
        if policy is None:
            raise NotKeptError("its policy cannot be read")
        end = end_in_force_ms(
            created_at_ms=row.created_at, expires_at_ms=row.expires_at, days=policy.days, ratchets=policy.ratchets
        )
        # What a feature that is off has left stays readable until it ends (DECISIONS 6), but inference logs have lost
        # their reason with the switch, and nothing is fed to a model any more.
        needs_feature = purpose is Purpose.INFERENCE or row_of(row.data_class).feature is Feature.INFERENCE_LOGGING
        served = (
            policy.alive
            and (end is None or self._clock.now_ms() < end)
            and (not needs_feature or policy.effective.allows(row.data_class))
        )
        if not served and not (held and purpose is Purpose.BREAK_GLASS):
            raise NotKeptError("ended")
        return row

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
        rows = catalogue.destroying(tx, limit=len(erased), object_ids=[one.object_id for one in erased])
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
                facts = _facts(row)
                moved.append((row, wrap(new, unwrap(old[row.kek_id], row.wrapped_dek, facts), facts)))
            except (KeyMissingError, NotOpenedError):
                lost.append(row.id)
        catalogue.rewrapped(tx, moved, kek_id, hold_id)
        catalogue.note_moved(tx, [row for row, _ in moved if row.kek_id != kek_id], day_of(self._clock.now_ms()))
        return Rewrapped(len(moved), lost)


def _demand(value: object, kind: type) -> None:
    if type(value) is not kind:
        raise TypeError("the door takes Content and a Retain")


def _facts(row: Kept) -> Facts:
    return Facts(
        organization_id=row.organization_id,
        project_id=row.project_id,
        data_class=row.data_class.value,
        object_id=row.id,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )
