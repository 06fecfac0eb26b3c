"""When a model was first in this deployment's catalogue: the same for every process, and after every restart.

Holds: `appeared`. Leaves out: the catalogue itself (configuration).
"""

from collections.abc import Iterable, Mapping

import sqlalchemy as sa

from keepless.accounts.tables import model_appeared
from keepless.db import Database, insert_or_ignore

__all__ = ["appeared"]


def appeared(db: Database, models: Iterable[str], now_ms: int) -> Mapping[str, int]:
    """Unix ms of each; a model that nobody has offered before appears now. Of several processes one says when."""
    wanted = frozenset(models)
    column = model_appeared.c
    query = sa.select(column.model, column.at).where(column.model.in_(wanted))
    with db.read() as tx:
        known = {row.model: row.at for row in tx.execute(query)}
    if wanted <= known.keys():
        return known
    with db.write() as tx:
        for model in sorted(wanted - known.keys()):
            insert_or_ignore(tx, model_appeared, model=model, at=now_ms)
    with db.read() as tx:
        return {row.model: row.at for row in tx.execute(query)}
