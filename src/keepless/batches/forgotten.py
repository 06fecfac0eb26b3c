"""What is left of batches when their feature was purged: rows, which say when and how many, and go as well.

Holds: `forget_purged`. Leaves out: the objects (the purge destroys them), rows of batches nobody purged, which stay a
month (store). Blocks; several processes may do it at once.

1. Journals that were destroyed are named no more.
2. Batches that had ended when their owner asked for a purge of all that batches keep are removed, as soon as nothing of
   their work is left. The change that asks for it ends those that run in its own transaction.
"""

from typing import Final

import sqlalchemy as sa

from keepless.accounts import places
from keepless.batches.tables import batch, batch_journal, batch_line_error, batch_shard
from keepless.batches.values import TERMINAL
from keepless.db import Database
from keepless.expiry.due import mask_of
from keepless.policy.data_class import DataClass
from keepless.vault.tables import kept, purge

__all__ = ["forget_purged"]

_AT_ONCE: Final = 200
_WORK: Final = mask_of([DataClass.BATCH_WORK])
_PURGED: Final = (
    sa.select(purge.c.id)
    .where(
        purge.c.organization_id == batch.c.organization_id,
        sa.or_(purge.c.project_id.is_(None), purge.c.project_id == batch.c.project_id),
        purge.c.classes.op("&")(_WORK) != 0,
        batch.c.ended_at <= purge.c.created_at,
    )
    .exists()
)
_NAMED: Final = sa.select(batch_journal.c.batch_id).where(batch_journal.c.batch_id == batch.c.id).exists()
_KEPT: Final = sa.select(kept.c.id).where(kept.c.id == batch_journal.c.object_id).exists()
_FOUND: Final = sa.select(batch.c.id).where(batch.c.state.in_(TERMINAL), ~_NAMED, _PURGED).order_by(batch.c.id)


def forget_purged(db: Database, now_ms: int) -> int:
    """Remove what purges have left; how many batches."""
    with db.write() as tx:
        tx.execute(batch_journal.delete().where(~_KEPT))
    gone = 0
    while True:
        with db.write() as tx:
            ids = list(tx.execute(_FOUND.limit(_AT_ONCE)).scalars())
            places.leave(tx, batch, ids, now_ms)
            for one, key in (
                (batch_line_error, batch_line_error.c.batch_id),
                (batch_shard, batch_shard.c.batch_id),
                (batch, batch.c.id),
            ):
                tx.execute(one.delete().where(key.in_(ids)))
        if not ids:
            return gone
        gone += len(ids)
