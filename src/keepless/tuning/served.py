"""What every process reads of tuned models, together with keys and policy: those whose weights are kept.

Holds: `read_served`. Leaves out: acting on it (the lease, gateway, the host of engines). Weights end without anybody
telling this room (a period is over, a purge), so they are looked at with every read; that is one count while nothing
changes.
"""

from collections.abc import Mapping
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.accounts.tuned import Tuned
from keepless.tuning.tables import tuned_model as model
from keepless.vault.tables import kept

__all__ = ["read_served"]

# Not one that is being deleted, nor one whose weights are not kept any more.
_SERVED: Final = sa.and_(model.c.deleting_at.is_(None), sa.exists().where(kept.c.id == model.c.object_id))

_NEWEST: Final = sa.select(sa.func.count(), sa.func.max(model.c.created_at)).where(_SERVED)  # made once


def read_served(tx: Connection, present: Mapping[str, Tuned]) -> Mapping[str, Tuned]:
    """See `ReadTuned`."""
    c = model.c
    count, newest = tx.execute(_NEWEST).one()
    if count == len(present) and newest == max((one.created_at for one in present.values()), default=None):
        return present
    columns = (c.hexadecimal, c.organization_id, c.project_id, c.base_model, c.object_id, c.created_at)
    rows = tx.execute(sa.select(*columns).where(_SERVED))
    return {row.hexadecimal: Tuned(*row) for row in rows}
