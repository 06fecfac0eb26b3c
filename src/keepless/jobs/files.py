"""What a batch needs of files: where its input lies, and rows for its results.

Holds: `ResultFiles` (the Protocol), `ResultKind`, `KeptFiles`. Leaves out: what a file is (the room of files).
"""

from enum import Enum
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.files import store
from keepless.files.tables import file
from keepless.files.values import File, FilePurpose
from keepless.ids import Id
from keepless.policy.data_class import DataClass
from keepless.vault.rows import Kept

__all__ = ["KeptFiles", "ResultFiles", "ResultKind"]


class ResultKind(Enum):
    """A result file of a batch."""

    OUTPUT = DataClass.BATCH_OUTPUT
    ERROR = DataClass.BATCH_ERROR


class ResultFiles(Protocol):
    """Rows of files. In the caller's transactions."""

    def input_object(self, tx: Connection, file_id: Id, project_id: Id) -> Id | None:
        """The vault's object of an input; None: the file was deleted."""

    def add(self, tx: Connection, file_id: Id, kept: Kept, size: int, kind: ResultKind) -> None:
        """A row for a result whose object is kept by this very transaction; `size` in bytes of plaintext."""

    def remove(self, tx: Connection, file_id: Id) -> Id | None:
        """Take the row of a result away; its object, None when there was no such row."""


class KeptFiles:
    """Files as customers see them. See `ResultFiles`."""

    def input_object(self, tx: Connection, file_id: Id, project_id: Id) -> Id | None:
        """See `ResultFiles`."""
        return tx.scalar(sa.select(file.c.object_id).where(file.c.id == file_id, file.c.project_id == project_id))

    def add(self, tx: Connection, file_id: Id, kept: Kept, size: int, kind: ResultKind) -> None:
        """See `ResultFiles`."""
        store.add(
            tx,
            File(
                id=file_id,
                object_id=kept.id,
                organization_id=kept.organization_id,
                project_id=kept.project_id,
                purpose=FilePurpose.BATCH_OUTPUT,
                data_class=kind.value,
                size=size,
                created_at=kept.created_at,
            ),
        )

    def remove(self, tx: Connection, file_id: Id) -> Id | None:
        """See `ResultFiles`."""
        object_id = tx.scalar(sa.select(file.c.object_id).where(file.c.id == file_id))
        if object_id is not None:
            tx.execute(file.delete().where(file.c.id == file_id))  # made again at once: it has no place to leave
        return object_id
