"""`python -m keepless.app.migrations.new FILE`: print what a new migration must do, to read, mend and save.

FILE is a SQLite database that is made for the comparison; the caller throws it away.

Compares the declared tables with a database that has run every migration so far. Column types are printed as what they
are in the database, so that a migration does not change when our own types do.
"""

import sys
from typing import Final, Literal

import sqlalchemy as sa
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import UpgradeOps
from alembic.runtime.migration import MigrationContext

from keepless.accounts import people_tables as people
from keepless.accounts import tables as accounts
from keepless.app.migrate import migrate
from keepless.batches import tables as batches
from keepless.db import Database, metadata
from keepless.expiry import tables as expiry
from keepless.files import tables as files
from keepless.incidents import tables as incidents
from keepless.jobs import tables as jobs
from keepless.receipts import tables as receipts
from keepless.tuning import tables as tuning
from keepless.usage import tables as usage
from keepless.vault import tables as vault
from keepless.webhooks import tables as webhooks

__all__ = ["TABLES", "difference"]

_ROOMS: Final = (
    accounts,
    batches,
    expiry,
    files,
    incidents,
    jobs,
    people,
    receipts,
    tuning,
    usage,
    vault,
    webhooks,
)  # whose tables there are
TABLES: Final = {item.name for room in _ROOMS for item in vars(room).values() if isinstance(item, sa.Table)}


def difference(db: Database) -> UpgradeOps:
    """What the declared tables have that a migrated database has not (nothing, unless a migration is missing)."""
    with db.engine.connect() as connection:
        opts = {"compare_type": True, "include_name": lambda name, kind, _: kind != "table" or name in TABLES}
        opts["include_object"] = lambda _, name, kind, *__: kind != "table" or name in TABLES
        context = MigrationContext.configure(connection, opts=opts)
        found = produce_migrations(context, metadata).upgrade_ops
    if found is None:
        raise TypeError("alembic compared nothing")
    return found


def _plain(kind: str, item: object, _: AutogenContext) -> str | Literal[False]:
    if kind == "type" and isinstance(item, sa.types.TypeDecorator):
        return f"sa.{item.impl_instance!r}"
    return False


if __name__ == "__main__":
    database = Database(f"sqlite:///{sys.argv[1]}", pool_size=1)
    migrate(database)
    sys.stdout.write(render_python_code(difference(database), render_as_batch=False, render_item=_plain) + "\n")
