"""What a batch needs of files, as a Protocol: where its input lies, and rows for its results.

Holds: `ResultFiles`, `ResultKind`. Leaves out: what a file is (the room of files).
"""

from enum import Enum
from typing import Protocol

from sqlalchemy.engine import Connection

from keepless.ids import Id
from keepless.policy.data_class import DataClass
from keepless.vault.rows import Kept

__all__ = ["ResultFiles", "ResultKind"]


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
