"""`python -m keepless.app.migrate`: bring a database to the newest schema; its address comes through standard input.

Holds: `migrate`. Leaves out: whether there is anything to do (folder), the steps (migrations). A program of its own,
because alembic takes ten megabytes that a server would keep for nothing.
"""

import sys
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config

from keepless import log
from keepless.db import Database

__all__ = ["migrate"]

_MIGRATIONS: Final = Path(__file__).parent / "migrations"


def migrate(db: Database) -> None:
    """Run what has not been run yet, in one transaction."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["engine"] = db.engine
    command.upgrade(config, "head")


def _main() -> int:
    db = Database(sys.stdin.buffer.read().decode(), pool_size=1)
    try:
        migrate(db)
    except Exception as error:  # the interpreter would print its text
        log.failure(log.Event.COMMAND_FAILED, error)
        return 1
    finally:
        db.close()
    return 0


if __name__ == "__main__":
    sys.exit(_main())
