"""Journals: intermediate results of a long job, made durable record by record, that live and die as one object.

Holds: `Journal`, the one writer of a journal, `append_together` and `records_of`. Leaves out: the bytes
(journal_format).

Open: as every other object: intent, KEK, the journal's first byte, row, and with the row what the caller keeps with it.
From then on it is kept, expires and is purged like anything else.
Append a group:
1. the records are sealed, each on its own;
2. the group is durable behind what the row says is there;
3. transaction: epoch compared, the row's length moved and sealed again. COMMIT POINT: bytes beyond it are noise.
Groups of several journals share the transaction; one that is refused in it (policy, location, gone) does not hold up
the others.
Whatever fails, this journal takes no more: the caller opens another one (after `StaleEpochError`, under a new permit)
and appends the same records there; a job that is resumed does the same and reads all journals that there are.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.content import Content, Purpose
from keepless.db import Database
from keepless.errors import KeeplessError
from keepless.ids import Id, Prefix, mint
from keepless.policy.decision import Retain
from keepless.vault import catalogue
from keepless.vault.blobs import BlobStore
from keepless.vault.envelope import facts_of, facts_under, new_dek, seal_label, unseal_label
from keepless.vault.errors import (
    LocationRedError,
    NotKeptError,
    NotOpenedError,
    StaleEpochError,
    StoreFailedError,
    store_failures,
)
from keepless.vault.journal_format import BEGINNING, opened_records, seal_group
from keepless.vault.keeping import Keeping, Sealed, Within, demand, nothing_more
from keepless.vault.reading import Opened
from keepless.vault.states import Step

__all__ = ["Journal", "append_together", "records_of"]


Groups = Sequence[tuple["Journal", Sequence[Content]]]
Also = Callable[[Connection, int], None]


def _length(length: int) -> bytes:
    return struct.pack(">Q", length)


def _nothing_more(tx: Connection, at: int) -> None:
    """Nothing but the groups themselves is committed."""


class Journal:
    """The one writer of one journal. One thread at a time; every method blocks."""

    def __init__(self, keeping: Keeping, permit: Retain, within: Within = nothing_more) -> None:
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
                self.row = keeping.commit(Sealed(object_id, blob, self._dek, size, label), permit, kek, within)
            except (KeeplessError, sa.exc.SQLAlchemyError):
                keeping.abandon(blob)
                raise
        self._size = self._next = size
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
        (error,) = append_together([(self, records)])
        if error is not None:
            raise error

    def stage(self, records: Sequence[Content]) -> None:
        """Steps 1 and 2 of a group; `settle` follows. Raises `LocationRedError`, `StoreFailedError`."""
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
        self._next = self._size + len(group)

    def settle(self, tx: Connection) -> None:
        """Step 3, in a transaction that may settle others too; `settled` follows when it is committed.

        Raises `StaleEpochError`, `LocationRedError`, `NotKeptError`; then it has changed nothing.
        """
        self._keeping.agree(tx, self.row.organization_id, self.row.epoch)
        label = seal_label(self._dek, facts_of(self.row), _length(self._next))
        if not catalogue.grow_kept(tx, self.row, self._size, self._next, label):
            raise NotKeptError("the journal is gone")

    def stands(self) -> bool:
        """Whether the group that was settled last is committed."""
        return self._keeping.stands(self.row.id, self._next)

    def settled(self) -> None:
        """The group is durable; the next may be staged."""
        self._size = self._next
        self._parts += 1
        self._open = True
        self._keeping.at(Step.COMMIT)

    @property
    def db(self) -> Database:
        """Where it is settled."""
        return self._keeping.db


def append_together(groups: Groups, also: Also = _nothing_more) -> list[KeeplessError | None]:
    """Make groups of different journals durable with one transaction; what became of each (None: it is durable).

    `also(tx, at)` is called in that transaction for each group that it commits.
    """
    ended: list[KeeplessError | None] = [_staged(journal, records) for journal, records in groups]
    staged = [at for at, error in enumerate(ended) if error is None]
    # In one order, so that two processes that do the same do not wait crosswise.
    staged.sort(key=lambda at: (groups[at][0].row.organization_id, groups[at][0].row.project_id))
    try:
        if staged:
            _settle(groups, staged, ended, also)
    except KeeplessError as error:
        for at in staged:
            ended[at] = ended[at] or error
    for at in staged:
        if ended[at] is None:
            groups[at][0].settled()
    return ended


def _staged(journal: Journal, records: Sequence[Content]) -> KeeplessError | None:
    try:
        journal.stage(records)
    except KeeplessError as error:
        return error
    return None


def _settle(groups: Groups, staged: list[int], ended: list[KeeplessError | None], also: Also) -> None:
    with store_failures():
        try:
            with groups[0][0].db.write() as tx:
                for at in staged:
                    try:
                        groups[at][0].settle(tx)
                    except (StaleEpochError, LocationRedError, NotKeptError) as error:
                        ended[at] = error
                    else:
                        also(tx, at)
        except sa.exc.DBAPIError:
            # A connection that dies during COMMIT does not say on which side of it: what is answered must be true.
            for at in staged:
                if ended[at] is None and not groups[at][0].stands():
                    ended[at] = StoreFailedError("the database did not take the group")


def records_of(it: Opened) -> Iterator[Content]:
    """The records that are committed, in order. Raises `NotOpenedError`, `StoreFailedError`."""
    row = it.row
    if unseal_label(it.dek, facts_of(row), row.label or b"") != _length(row.size):
        raise NotOpenedError("the length of the journal was changed")
    for record in opened_records(it.dek, row.blob, row.size, it.store.journal(row.blob, row.size)):
        yield Content(record)
