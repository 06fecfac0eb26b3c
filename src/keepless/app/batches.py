"""How batches are composed: what the book that the gateway writes into needs of files.

Holds: `book_of`, `input_deleted`. Leaves out: what jobs need of files (jobs.files).
"""

from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.app.compose import Deployment
from keepless.batches import store, transitions
from keepless.batches.book import Book, InputFile
from keepless.batches.values import CancelReason
from keepless.clock import Clock
from keepless.db import Database
from keepless.files.tables import file
from keepless.files.values import FilePurpose
from keepless.ids import Id
from keepless.policy.period import end_in_force_ms
from keepless.vault.in_force import in_force
from keepless.vault.tables import kept

__all__ = ["book_of", "input_deleted"]


def book_of(deployment: Deployment) -> Book:
    """The book of a deployment; workers find a new batch by themselves, within half a second."""
    clock: Final = deployment.clock

    def inputs(tx: Connection, file_id: Id, project_id: Id) -> InputFile | None:
        query = sa.select(file.c.purpose, kept).join(kept, kept.c.id == file.c.object_id)
        row = tx.execute(query.where(file.c.id == file_id, file.c.project_id == project_id)).one_or_none()
        policy = None if row is None else in_force(tx, row.organization_id, row.project_id, row.data_class)
        if row is None or policy is None:
            return None
        end_ms = end_in_force_ms(
            created_at_ms=row.created_at, expires_at_ms=row.expires_at, days=policy.days, ratchets=policy.ratchets
        )
        if end_ms is not None and end_ms <= clock.now_ms():
            return None
        return InputFile(row.purpose is FilePurpose.BATCH, end_ms)

    return Book(deployment.db, clock, deployment.vault, inputs)


def input_deleted(db: Database, clock: Clock, file_id: Id) -> None:
    """A file was deleted: batches that read it end with what is done. Who is not told here finds it gone."""
    with db.write() as tx:
        for batch in store.with_input(tx, file_id):
            transitions.request_cancel(tx, batch.id, CancelReason.INPUT_DELETED, clock.now_ms())
