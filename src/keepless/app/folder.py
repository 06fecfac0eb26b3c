"""The data folder: made for this user alone, served by one server at a time, never by an older Keepless than wrote it.

Holds: `prepare` (folder and schema), `FolderLock`. Leaves out: what is inside (database, vault and
keyring look after theirs).
"""

import fcntl
import os
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError

from keepless.db import Database
from keepless.errors import ConfigError

__all__ = ["FolderLock", "migrate", "prepare"]

_MIGRATIONS: Final = Path(__file__).parent / "migrations"


def prepare(data_dir: str) -> Path:
    """Make the folder (0700) when it is missing. Raises `ConfigError` when others may read it or it is not ours."""
    folder = Path(data_dir)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        stat = folder.stat()
    except OSError:
        raise ConfigError("the data folder cannot be made or read; check data_dir and its parent's rights") from None
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ConfigError("the data folder is not writable by this user")
    if stat.st_mode & 0o077:
        folder.chmod(0o700)
    return folder


class FolderLock:
    """Held by the one server of a folder for as long as the process lives (the kernel releases it on any death)."""

    def __init__(self, folder: Path) -> None:
        path = folder / "server.lock"
        path.touch(mode=0o600)
        self._file = path.open()
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise ConfigError(
                "another server is running on this data folder; stop it, or use --workers for more processes"
            ) from None

    def release(self) -> None:
        """Let the next server have the folder."""
        self._file.close()


def migrate(db: Database) -> None:
    """Bring the schema to this version's. Raises `ConfigError` for a folder that a newer Keepless has written."""
    script = ScriptDirectory(str(_MIGRATIONS))
    with db.engine.connect() as connection:
        present = MigrationContext.configure(connection).get_current_revision()
    if present == script.get_current_head():
        return
    try:
        if present is not None:
            script.get_revision(present)
    except CommandError:
        raise ConfigError(
            "this data was written by a newer Keepless; install that version (nothing was changed)"
        ) from None
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["engine"] = db.engine
    command.upgrade(config, "head")
