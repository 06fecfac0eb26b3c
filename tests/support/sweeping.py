"""A vault with everything that makes it forget, and a store that can be made to fail."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from keepless.content import Purpose
from keepless.db import Database
from keepless.errors import KeeplessError
from keepless.expiry.sweep import Sweeper
from keepless.governance.holds import HoldOrder, Holds
from keepless.ids import Id, Prefix, mint
from keepless.policy.hold import HoldAuthority, HoldReason
from keepless.receipts.statement import EntryKind
from keepless.vault.blobs import BlobStore, FileBlobs
from keepless.vault.rows import Leftover
from keepless.vault.tables import kek, kept, tombstone
from tests.support.vault import Rig, make_rig

HOUR_MS = 3_600_000
OPERATOR = mint(Prefix.OPERATOR_KEY)


class FlakyStore:
    """A store that acknowledges no deletion of the blobs in `refused` (all, when `down`)."""

    def __init__(self, inner: BlobStore) -> None:
        self.inner = inner
        self.down = False
        self.refused: set[Id] = set()

    @property
    def name(self) -> Id:
        return self.inner.name

    def put(self, blob: Id, pieces: Sequence[bytes]) -> None:
        self.inner.put(blob, pieces)

    def get(self, blob: Id) -> bytes:
        return self.inner.get(blob)

    def delete(self, blobs: Sequence[Id]) -> list[Id]:
        return self.inner.delete([blob for blob in blobs if not self.down and blob not in self.refused])

    def listed(self, older_than_ms: int) -> Iterator[Id]:
        return self.inner.listed(older_than_ms)

    def leftovers(self, older_than_ms: int) -> list[Leftover]:
        return self.inner.leftovers(older_than_ms)

    def drop(self, leftover: Leftover) -> None:
        self.inner.drop(leftover)


@dataclass
class Stage:
    """A rig, a sweeper on it, the holds, and the store underneath."""

    rig: Rig
    store: FlakyStore
    sweeper: Sweeper
    holds: Holds

    def restart(self) -> None:
        """The same folder in a new process."""
        self.rig.restart()
        rig = self.rig
        self.sweeper = Sweeper(rig.database, rig.clock, rig.clock, rig.vault, rig.log)
        self.holds = Holds(rig.database, rig.clock, rig.log, self.sweeper)

    def hold(self, organization_id: Id, **scope: Any) -> Id:
        order = HoldOrder(
            organization_id=organization_id,
            reason=HoldReason.LITIGATION,
            authority=HoldAuthority.COURT_ORDER,
            reference="12 C 345",
            review_at_ms=self.rig.clock.now_ms() + 90 * 24 * HOUR_MS,
            **scope,
        )
        return self.holds.place(order, OPERATOR).id

    def release(self, organization_id: Id, hold_id: Id) -> None:
        self.holds.release(organization_id, hold_id, OPERATOR)

    def readable(self, organization_id: Id, object_id: Id, purpose: Purpose = Purpose.CUSTOMER) -> bytes | None:
        """The bytes, or None when the door does not give them."""
        try:
            return self.rig.vault.read(object_id, organization_id, purpose).reveal(purpose)
        except KeeplessError:
            return None

    def rows(self, table: sa.Table, **values: object) -> list[Any]:
        query = sa.select(table).where(*(table.c[name] == value for name, value in values.items()))
        with self.rig.database.read() as tx:
            return list(tx.execute(query))

    def kept(self) -> set[Id]:
        return {row.id for row in self.rows(kept)}

    def tombstone(self, object_id: Id) -> Any:
        (row,) = self.rows(tombstone, object_id=object_id)
        return row

    def kek(self, kek_id: Id) -> Any:
        (row,) = self.rows(kek, id=kek_id)
        return row

    def blobs(self) -> set[Id]:
        return set(self.store.listed(2**53))

    def entries(self, kind: EntryKind) -> list[dict[str, Any]]:
        """What the log says of one kind, oldest first."""
        with self.rig.database.read() as tx:
            found = self.rig.log.entries(tx, kinds=[kind], limit=100_000)
        return [msgspec.json.decode(entry.body or b"{}") for entry in reversed(found)]


def make_stage(database: Database, folder: Path) -> Stage:
    store = FlakyStore(FileBlobs(folder / "blobs"))
    rig = make_rig(database, folder, store=store)
    sweeper = Sweeper(database, rig.clock, rig.clock, rig.vault, rig.log)
    return Stage(rig, store, sweeper, Holds(database, rig.clock, rig.log, sweeper))
