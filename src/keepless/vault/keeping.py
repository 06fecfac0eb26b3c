"""How anything comes to be kept: the intent before it, the fence and the one transaction that makes it true.

Holds: `Keeping`, the steps that whole objects (door), streamed objects (writer) and journals (journal) share. Leaves
out: sealing and storing the bytes, which each does in its own way between `begin` and `commit`.

begin: a transaction: epoch compared, location green, intent row.
commit: a transaction: epoch compared, KEK still active, intent taken, row with the wrapped DEK, totals, what the caller
keeps with it (`within`), log. COMMIT POINT. A KEK may end between its choice and the commit: then another is chosen.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.clock import Clock
from keepless.db import Database
from keepless.ids import Id, trusted
from keepless.policy.decision import Retain
from keepless.receipts.log import Log
from keepless.receipts.statement import captured
from keepless.vault import catalogue, in_force
from keepless.vault.blobs import BlobStore
from keepless.vault.envelope import facts_under, wrap
from keepless.vault.errors import LocationRedError, StaleEpochError, StoreFailedError
from keepless.vault.keks import KekEndedError, Keks
from keepless.vault.locations import LocationGuard
from keepless.vault.rows import Kept
from keepless.vault.states import Step
from keepless.vault.strays import Strays

__all__ = ["Keeping", "Place", "Sealed", "Within", "demand", "nothing_more"]

_TRIES: Final = 4  # a KEK may end between its choice and the commit; more than once in a row is a failure
Within = Callable[[Connection, Kept], None]


@dataclass(frozen=True, slots=True)
class Place:
    """One location: its driver and the verdict about it."""

    store: BlobStore
    guard: LocationGuard


@dataclass(frozen=True, slots=True)
class Sealed:
    """What lies in the store and waits for its row: `size` is the ciphertext's."""

    object_id: Id
    blob: Id
    dek: bytes
    size: int
    label: bytes | None = None


def demand(value: object, kind: type) -> None:
    """Raises `TypeError` for anything but exactly that type."""
    if type(value) is not kind:
        raise TypeError("the door takes Content and a Retain")


def nothing_more(tx: Connection, row: Kept) -> None:
    """Nothing but the object itself is kept by the transaction."""


class Keeping:
    """The steps of one vault. Thread-safe; every method blocks."""

    def __init__(
        self,
        db: Database,
        place: Place,
        *,
        keks: Keks,
        strays: Strays,
        log: Log,
        clock: Clock,
        at_step: Callable[[Step], None],
    ) -> None:
        self.db: Final = db
        self.place: Final = place
        self._keks: Final = keks
        self._strays: Final = strays
        self._log: Final = log
        self._clock: Final = clock
        self.at: Final = at_step

    def begin(self, blob: Id, organization_id: Id, permit: Retain | None = None) -> str | None:
        """The intent; the organization's pinned region.

        A stale permit is refused here already, before a byte of ciphertext is written. Raises `StaleEpochError`,
        `LocationRedError`.
        """
        with self.db.write() as tx:
            region = self.agree(tx, organization_id, None if permit is None else permit.epoch)
            catalogue.add_intent(tx, blob, self.place.store.name, self._clock.now_ms())
        self.at(Step.INTENT)
        return region

    def abandon(self, blob: Id) -> None:
        """Undo what began and was not committed; what fails of it is left to the sweep."""
        self._strays.abandon(self.place.store.name, blob)

    def kek(self, permit: Retain) -> tuple[Id, bytes]:
        """The KEK of a permit's expiry day."""
        return self._keks.active(Keks.of_end(self.place.store.name, permit.expires_at_ms))

    def commit(self, sealed: Sealed, permit: Retain, kek: tuple[Id, bytes], within: Within = nothing_more) -> Kept:
        """The one transaction. Raises `StaleEpochError`, `LocationRedError`, `StoreFailedError`; then nothing is kept.

        `within` may be called again when the transaction has to be repeated.
        """
        facts = facts_under(permit, sealed.object_id)
        for _ in range(_TRIES):
            row = self._row(sealed, permit, kek[0], wrap(kek[1], sealed.dek, facts))
            try:
                self._commit(row, permit, within)
            except KekEndedError:
                kek = self.kek(permit)
                continue
            except sa.exc.DBAPIError:
                # A connection that dies during COMMIT does not say on which side of it: what is answered must be true.
                if not self.stands(row.id, row.size):
                    raise
            self.at(Step.COMMIT)
            return row
        raise StoreFailedError("the keys of the day change too often")

    def _row(self, sealed: Sealed, permit: Retain, kek_id: Id, wrapped_dek: bytes) -> Kept:
        return Kept(
            id=sealed.object_id,
            organization_id=trusted(permit.organization_id),
            project_id=trusted(permit.project_id),
            data_class=permit.data_class,
            reason=permit.reason,
            request_id=None if permit.request_id is None else trusted(permit.request_id),
            epoch=permit.epoch,
            created_at=permit.created_at_ms,
            expires_at=permit.expires_at_ms,
            size=sealed.size,
            location=self.place.store.name,
            blob=sealed.blob,
            kek_id=kek_id,
            wrapped_dek=wrapped_dek,
            label=sealed.label,
        )

    def _commit(self, row: Kept, permit: Retain, within: Within) -> None:
        with self.db.write() as tx:
            self.agree(tx, row.organization_id, permit.epoch)
            if not catalogue.lock_active_kek(tx, row.kek_id):
                raise KekEndedError("the KEK is not active any more")
            if not catalogue.take_intent(tx, row.blob):
                raise StoreFailedError("the intent was taken: the blob is being destroyed as an orphan")
            catalogue.add_kept(tx, row)
            within(tx, row)
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

    def stands(self, object_id: Id, size: int) -> bool:
        """Whether an object is kept, with this very size."""
        with self.db.read() as tx:
            found = catalogue.one_kept(tx, object_id)
        return found is not None and found.size == size

    def agree(self, tx: Connection, organization_id: Id, epoch: int | None) -> str | None:
        """The fence: the epoch decided under is the organization's epoch at this very transaction.

        Without one nothing has been decided yet; asked is only that the organization is there and the location may be
        written to. Returns the organization's pinned region.
        """
        organization = in_force.epoch_of(tx, organization_id)
        if organization is None or epoch not in (None, organization[0]):
            raise StaleEpochError("the policy changed; decide again")
        if not self.place.guard.writable(organization[1]):
            raise LocationRedError("the location does not hold what was promised of it")
        return organization[1]
