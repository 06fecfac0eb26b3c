"""The one table of this room: which process sweeps now, when the rarer work was done, what a person has confirmed.

The lease spares processes that share a folder from doing the same work twice. It is not what keeps them correct: every
step of a sweep is a transaction that finds its work undone or done.
"""

import sqlalchemy as sa

from keepless.db import Holds, IdText, Instant, table

__all__ = ["sweep_lease"]

sweep_lease = table(
    "sweep_lease",
    sa.Column("id", sa.Integer, primary_key=True),  # one row, id 1
    sa.Column("holder", IdText),  # null: nobody
    sa.Column("until", Instant, nullable=False),
    sa.Column("confirmations", sa.BigInteger, nullable=False),  # sweeps that a person asked for (DECISIONS 15)
    sa.Column("rolled_at", Instant, nullable=False),  # the daily roll of KEKs
    sa.Column("audited_at", Instant, nullable=False),  # the search of the stores for what no row accounts for
    holds=Holds.CONTROL,
)
