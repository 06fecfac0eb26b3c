"""Results of batches that nobody has downloaded: their owners hear of it three days before they end, once a file.

Holds: `Expiring`, `quiet_after`. Leaves out: telling (webhooks), ending (expiry), when to look
(housekeeping). Everything blocks.

1. Files of results that were neither downloaded nor warned of, with their ends in force.
2. One transaction a file: the row says that it was warned of, if nobody was faster, and the outbox has the event.
   COMMIT POINT. Who dies before it has told nothing, who dies after it has told everything.
"""

from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Row

from keepless import log
from keepless.clock import DAY_MS, Clock
from keepless.content import Purpose
from keepless.db import Database
from keepless.errors import KeeplessError
from keepless.files.tables import file
from keepless.ids import Id
from keepless.policy.data_class import DataClass
from keepless.vault.door import Vault
from keepless.webhooks.events import EventType
from keepless.webhooks.outbox import announce

__all__ = ["Expiring", "quiet_after"]

_BEFORE_MS: Final = 3 * DAY_MS
_RESULTS: Final = (DataClass.BATCH_OUTPUT, DataClass.BATCH_ERROR)
_AT_ONCE: Final = 500
_QUIET: Final = (
    file.c.data_class.in_(_RESULTS),
    file.c.downloaded_at.is_(None),
    file.c.warned_at.is_(None),
)


def quiet_after(file_id: str) -> sa.Select[Any]:
    """The next files of which their owners may have to hear; the index `file_quiet` has them in their order."""
    some = [sa.select(file).where(file.c.data_class == each, *_QUIET[1:], file.c.id > file_id) for each in _RESULTS]
    first = [one.order_by(file.c.id).limit(_AT_ONCE).subquery() for one in some]
    both = sa.union_all(*(sa.select(one) for one in first)).subquery()
    return sa.select(both).order_by(both.c.id).limit(_AT_ONCE)


class Expiring:
    """Process-safe: several may look at once."""

    def __init__(self, db: Database, clock: Clock, vault: Vault) -> None:
        self._db: Final = db
        self._clock: Final = clock
        self._vault: Final = vault

    def downloaded(self, file_id: Id) -> None:
        """The last byte of a file was handed out; of anything but results nothing is noted.

        A note that cannot be written does not spoil a download that is complete: at worst an event comes too much.
        """
        noted = file.update().where(file.c.id == file_id, file.c.downloaded_at.is_(None))
        try:
            with self._db.write() as tx:
                tx.execute(noted.where(file.c.data_class.in_(_RESULTS)).values(downloaded_at=self._clock.now_ms()))
        except sa.exc.SQLAlchemyError as error:
            log.failure(log.Event.WEBHOOK_FAILED, error, file=file_id)

    def announce_due(self) -> int:
        """Announce what is due; of how many files."""
        announced, after = 0, ""
        while True:
            with self._db.read() as tx:
                rows = tx.execute(quiet_after(after)).all()
            if not rows:
                return announced
            after = rows[-1].id
            for organization_id in sorted({row.organization_id for row in rows}):
                theirs = [row for row in rows if row.organization_id == organization_id]
                try:
                    due = self._due(theirs)
                except KeeplessError as error:  # a row that was changed by hand holds up its own organization alone
                    log.failure(log.Event.WEBHOOK_FAILED, error, organization=organization_id)
                    continue
                announced += sum(self._announce(row) for row in theirs if row.object_id in due)

    def _due(self, rows: Sequence[Row[Any]]) -> set[Id]:
        """The objects that end within three days."""
        until = self._clock.now_ms() + _BEFORE_MS
        ends = self._vault.labels([row.object_id for row in rows], rows[0].organization_id, Purpose.CUSTOMER)
        return {object_id for object_id, it in ends.items() if it.ends_at is not None and it.ends_at <= until}

    def _announce(self, row: Row[Any]) -> bool:
        now_ms = self._clock.now_ms()
        with self._db.write() as tx:
            mine = tx.execute(file.update().where(file.c.id == row.id, *_QUIET).values(warned_at=now_ms))
            if mine.rowcount != 1:
                return False
            announce(
                tx,
                EventType.FILE_EXPIRING,
                row.id,
                organization_id=row.organization_id,
                project_id=row.project_id,
                now_ms=now_ms,
            )
        return True
