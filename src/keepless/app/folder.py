"""The data folder: made for this user alone, served by one server at a time, never by an older Keepless than wrote it.

Holds: `prepare` (the folder), `make_private` (its database), `FolderLock`, `bring_up_to_date` (the schema). Leaves
out: what is inside (database, vault and keyring look after theirs), how the schema changes (migrations, and `migrate`,
a program that runs them: a server that needs none does not load what they need).
"""

import contextlib
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from keepless.db import Database
from keepless.errors import ConfigError

__all__ = ["FolderLock", "bring_up_to_date", "make_private", "prepare", "revisions"]

_VERSIONS: Final = Path(__file__).parent / "migrations" / "versions"


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


def make_private(database: str) -> None:
    """Make a SQLite file that is not there yet, for this user only: SQLite itself asks the umask."""
    if database.startswith("sqlite"):
        path = sa.make_url(database).database
        if path and not Path(path).exists():
            with contextlib.suppress(OSError):  # whoever opens it says why not
                Path(path).touch(mode=0o600)


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


def revisions() -> list[str]:
    """The versions of the schema that this Keepless knows, the newest last: `0001` is that of `v0001_accounts.py`."""
    return sorted(path.name[1:5] for path in _VERSIONS.glob("v[0-9][0-9][0-9][0-9]_*.py"))


def bring_up_to_date(db: Database) -> None:
    """Bring the schema to this version's, in a process of its own when there is something to do.

    Raises `ConfigError` for a database that a newer Keepless has written, and when it cannot be done.
    """
    known = revisions()
    with db.read() as tx:
        has = sa.inspect(tx).has_table("alembic_version")
        present = tx.scalar(sa.text("SELECT version_num FROM alembic_version")) if has else None
    if present == known[-1]:
        return
    if present is not None and present not in known:
        raise ConfigError("this data was written by a newer Keepless; install that version (nothing was changed)")
    # The address through a pipe: it may hold a password, and arguments can be read by others of the user.
    address = db.engine.url.render_as_string(hide_password=False)
    done = subprocess.run([sys.executable, "-m", "keepless.app.migrate"], input=address.encode(), check=False)
    if done.returncode != 0:
        raise ConfigError("the database could not be brought up to date; the line above says where it failed")
