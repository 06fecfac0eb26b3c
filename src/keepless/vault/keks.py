"""The lives of KEKs: made before they are named, chosen, retired, destroyed (DECISIONS 12).

Holds: `Keks`. Leaves out: the key files themselves (keyring), what a KEK wraps (door), which are due (expiry.roll).

Make: 1. key file + fsync; 2. row. Of two processes that make one for the same day the database lets one row stand; the
loser destroys its own file. A file without a row is a stray.
Destroy: 1. transaction: nothing is wrapped by it, state retiring (nothing can be from here on); 2. key file destroyed.
COMMIT POINT; 3. transaction: state destroyed, log entry. Asked again after a crash, it goes on where it stopped.
"""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Protocol

import sqlalchemy as sa

from keepless.clock import Clock, day_of
from keepless.db import Database
from keepless.errors import KeeplessError
from keepless.ids import Id, Prefix, mint
from keepless.log import Event, emit
from keepless.receipts.log import Log
from keepless.receipts.statement import key_destroyed
from keepless.vault import catalogue
from keepless.vault.errors import KeyMissingError, StoreFailedError, store_failures
from keepless.vault.rows import KekRow
from keepless.vault.states import KekKind, KekState, Step

__all__ = ["KekEndedError", "Keks", "KeyFiles"]

_UNNAMED: Final = Id("")  # of a KEK that is described but not made
_TRIES: Final = 4  # to lose a race more often than this in a row is a failure


class KekEndedError(KeeplessError):
    """The KEK chosen for an object is not active any more: choose again."""


class KeyFiles(Protocol):
    """The part of a keyring that holds KEKs."""

    def create(self, kek_id: Id) -> bytes:
        """A new key, durable when this returns. Raises `StoreFailedError`."""

    def load(self, kek_id: Id) -> bytes:
        """A key. Raises `KeyMissingError`, `StoreFailedError`."""

    def destroy(self, kek_id: Id) -> bool:
        """Destroy a key for good; False when it was gone. Raises `StoreFailedError`."""


class Keks:
    """The KEKs of one deployment. Thread-safe; every method blocks and may raise `StoreFailedError`."""

    def __init__(self, db: Database, files: KeyFiles, log: Log, clock: Clock, at_step: Callable[[Step], None]) -> None:
        self._db: Final = db
        self._files: Final = files
        self._log: Final = log
        self._clock: Final = clock
        self._at = at_step

    @staticmethod
    def of_end(location: Id, expires_at: int | None) -> KekRow:
        """What to wrap an object with that ends at an instant: its day's KEK, or one of its own ("until deleted")."""
        if expires_at is None:
            return _wanted(KekKind.OBJECT, location)
        return _wanted(KekKind.DAY, location, expiry_day=day_of(expires_at))

    @staticmethod
    def of_hold(location: Id, hold_id: Id) -> KekRow:
        """What to wrap an object with that a hold keeps."""
        return _wanted(KekKind.HOLD, location, hold_id=hold_id)

    def active(self, wanted: KekRow) -> tuple[Id, bytes]:
        """Id and key of the active KEK of that kind; made if there is none."""
        with store_failures():
            for _ in range(_TRIES):
                with self._db.read() as tx:
                    kek_id = catalogue.active_kek(tx, wanted)
                if kek_id is None:
                    kek_id = self._make(wanted)
                if kek_id is None:
                    continue  # another process made one at the same time
                with contextlib.suppress(KeyMissingError):  # destroyed since the row was read
                    return kek_id, self._files.load(kek_id)
        raise StoreFailedError("there is no key to wrap with")

    def _make(self, wanted: KekRow) -> Id | None:
        new = replace(wanted, id=mint(Prefix.KEK))
        self._files.create(new.id)
        self._at(Step.KEK_FILE)
        try:
            with self._db.write() as tx:
                catalogue.add_kek(tx, new, self._clock.now_ms())
        except sa.exc.IntegrityError:
            self._files.destroy(new.id)
            return None
        self._at(Step.KEK_ROW)
        return new.id

    def has_file(self, kek_id: Id) -> bool:
        """Whether the keyring has the key of a KEK."""
        try:
            self._files.load(kek_id)
        except KeyMissingError:
            return False
        return True

    def retire(self, kek_id: Id) -> bool:
        """Let nothing be wrapped by a KEK any more; False when it was retired or destroyed before."""
        with store_failures(), self._db.write() as tx:
            row = catalogue.lock_kek(tx, kek_id)
            if row is None or row.state is not KekState.ACTIVE:
                return False
            catalogue.set_kek_state(tx, kek_id, KekState.RETIRING)
            return True

    def destroy(self, kek_id: Id) -> bool:
        """Destroy a KEK for good; False while it wraps something, or when it was destroyed before."""
        with store_failures():
            with self._db.write() as tx:
                row = catalogue.lock_kek(tx, kek_id)
                if row is None or row.state is KekState.DESTROYED or catalogue.is_wrapping(tx, kek_id):
                    return False
                catalogue.set_kek_state(tx, kek_id, KekState.RETIRING)
            self._at(Step.KEK_RETIRING)
            self._files.destroy(kek_id)
            self._at(Step.KEK_GONE)
            with self._db.write() as tx:
                row = catalogue.lock_kek(tx, kek_id)
                if row is None or row.state is KekState.DESTROYED:
                    return False
                now = self._clock.now_ms()
                entry = key_destroyed(
                    at_ms=now, kek_id=row.id, kek_kind=row.kind, location=row.location, expiry_day=row.expiry_day
                )
                # Of those whose objects it sealed too, each in its own audit log: the first is what receipts prove.
                concerned = [replace(entry, organization_id=own) for own in catalogue.sealed_of(tx, kek_id)]
                at, *_ = self._log.append(tx, [entry, *concerned])
                catalogue.kek_destroyed(tx, kek_id, now, at.index)
        emit(Event.KEK_DESTROYED, kek=kek_id)
        return True


def _wanted(kind: KekKind, location: Id, *, expiry_day: int | None = None, hold_id: Id | None = None) -> KekRow:
    return KekRow(_UNNAMED, kind, location, expiry_day, hold_id, KekState.ACTIVE)
