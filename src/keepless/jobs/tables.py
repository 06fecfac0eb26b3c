"""The one table of this room: which processes run jobs, so that the work of a dead one is taken over.

`beats` counts; nobody compares clocks of machines: a process is dead when its count has not moved while the observer
itself watched it for long enough.
"""

import sqlalchemy as sa

from keepless.db import Holds, IdText, Instant, table

__all__ = ["job_worker"]

job_worker = table(
    "job_worker",
    sa.Column("id", IdText, primary_key=True),  # proc_…, the engine's executor
    sa.Column("host", sa.String(32), nullable=False),  # as in `process`
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("born", sa.BigInteger, nullable=False),
    sa.Column("beats", sa.BigInteger, nullable=False),
    sa.Column("seen_at", Instant, nullable=False),  # for people
    holds=Holds.CONTROL,
)
