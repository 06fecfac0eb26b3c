"""Journals: intermediate results of a long job, made durable record by record, that live and die as one object.

Holds: `Journal`, the one writer of a journal, and `records_of`. Leaves out: the bytes (journal_format).

Open: as every other object: intent, KEK, the journal's first byte, row. From then on it is kept, expires and is purged
like anything else.
Append a group:
1. the records are sealed, each on its own;
2. the group is durable behind what the row says is there;
3. transaction: epoch compared, the row's length moved and sealed again. COMMIT POINT: bytes beyond it are noise.
Whatever fails, this journal takes no more: the caller opens another one (after `StaleEpochError`, under a new permit)
and appends the same records there; a job that is resumed does the same and reads all journals that there are.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import Final

import sqlalchemy as sa

from keepless.content import Content, Purpose
from keepless.errors import KeeplessError
from keepless.ids import Id, Prefix, mint
from keepless.policy.decision import Retain
from keepless.vault import catalogue
from keepless.vault.blobs import BlobStore
from keepless.vault.envelope import facts_of, facts_under, new_dek, seal_label, unseal_label
from keepless.vault.errors import LocationRedError, NotKeptError, NotOpenedError, StoreFailedError, store_failures
from keepless.vault.journal_format import BEGINNING, opened_records, seal_group
from keepless.vault.keeping import Keeping, Sealed, demand
from keepless.vault.reading import Opened
from keepless.vault.states import Step

__all__ = ["Journal", "records_of"]


def _length(length: int) -> bytes:
    return struct.pack(">Q", length)


class Journal:
    """The one writer of one journal. One thread at a time; every method blocks."""

    def __init__(self, keeping: Keeping, permit: Retain) -> None:
        demand(permit, Retain)
        self._keeping: Final = keeping
        self._dek: Final = new_dek()
        self._parts = 1
        self._open = False
        blob, object_id = mint(Prefix.JOURNAL), mint(Prefix.OBJECT)
        facts = facts_under(permit, object_id)
        with store_failures():
            self._region = keeping.begin(blob, Id(permit.organization_id), permit)
            try:
                kek = keeping.kek(permit)
                self._store.append(blob, 0, 0, BEGINNING)
                keeping.at(Step.BLOB)
                size = len(BEGINNING)
                label = seal_label(self._dek, facts, _length(size))
                self.row = keeping.commit(Sealed(object_id, blob, self._dek, size, label), permit, kek)
            except (KeeplessError, sa.exc.SQLAlchemyError):
                keeping.abandon(blob)
                raise
        self._size = size
        self._open = True

    @property
    def object_id(self) -> Id:
        """What it is called in the catalogue."""
        return self.row.id

    @property
    def _store(self) -> BlobStore:
        return self._keeping.place.store

    def append(self, records: Sequence[Content]) -> None:
        """Make records durable, all or none of them.

        Raises `StaleEpochError`, `LocationRedError`, `NotKeptError` (it was destroyed), `StoreFailedError`.
        """
        for record in records:
            demand(record, Content)
        if not self._open:
            raise StoreFailedError("this journal takes no more")
        self._open = False
        if not self._keeping.place.guard.writable(self._region):
            raise LocationRedError("the location does not hold what was promised of it")
        sealed = [record.reveal(Purpose.SEAL) for record in records]
        group = seal_group(self._dek, self.row.blob, self._size, sealed)
        with store_failures():
            self._store.append(self.row.blob, self._size, self._parts, group)
            self._keeping.at(Step.GROUP)
            self._commit(self._size + len(group))
        self._size += len(group)
        self._parts += 1
        self._open = True
        self._keeping.at(Step.COMMIT)

    def _commit(self, size: int) -> None:
        label = seal_label(self._dek, facts_of(self.row), _length(size))
        try:
            with self._keeping.db.write() as tx:
                self._keeping.agree(tx, self.row.organization_id, self.row.epoch)
                if not catalogue.grow_kept(tx, self.row, self._size, size, label):
                    raise NotKeptError("the journal is gone")
        except sa.exc.DBAPIError:
            # A connection that dies during COMMIT does not say on which side of it: what is answered must be true.
            if not self._keeping.stands(self.row.id, size):
                raise


def records_of(it: Opened) -> Iterator[Content]:
    """The records that are committed, in order. Raises `NotOpenedError`, `StoreFailedError`."""
    row = it.row
    if unseal_label(it.dek, facts_of(row), row.label or b"") != _length(row.size):
        raise NotOpenedError("the length of the journal was changed")
    for record in opened_records(it.dek, row.blob, row.size, it.store.journal(row.blob, row.size)):
        yield Content(record)
