"""A real PostgreSQL 15 for the tests: one throw-away cluster a test process, one fresh database a test.

The cluster is made with initdb in a temporary folder, listens on a unix socket only, and is stopped at exit. Postgres
refuses to run as root, so root hands it to the `postgres` user that Debian's package creates.
"""

import contextlib
import getpass
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from uuid import uuid4

import psycopg

BIN = Path("/usr/lib/postgresql/15/bin")
PREFIX = "keepless-pg-"
SETTINGS = (
    "listen_addresses=",
    "fsync=off",
    "max_connections=200",
    "log_min_error_statement=panic",
    "log_error_verbosity=terse",
)


def temporary_root() -> Path:
    """Where clusters are made."""
    # Where pytest puts its own folders: in memory a database is made in a quarter of the time.
    return Path(os.environ.get("PYTEST_DEBUG_TEMPROOT") or tempfile.gettempdir())


class Cluster:
    """One running PostgreSQL server. `url` is its SQLAlchemy address for a database."""

    def __init__(self) -> None:
        self._templates: set[str] = set()
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=temporary_root()))
        self.user = "postgres" if os.geteuid() == 0 else getpass.getuser()
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        self._run("initdb", "-D", str(self.folder / "data"), "-A", "trust", "-U", self.user, "--no-sync")
        options = " ".join(f"-c {setting}" for setting in SETTINGS)
        self._run(
            "pg_ctl", "-D", str(self.folder / "data"), "-w", "-l", str(self.folder / "server.log"),
            "-o", f"{options} -k {self.folder}", "start",
        )  # fmt: skip

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(BIN / program), *arguments]
        if os.geteuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd="/")

    @cached_property
    def _admin(self) -> psycopg.Connection:
        return psycopg.connect(host=str(self.folder), user=self.user, dbname="postgres", autocommit=True)

    def url(self, name: str) -> str:
        """The address of a database."""
        return f"postgresql://{self.user}@/{name}?host={self.folder}"

    @contextlib.contextmanager
    def database(self, template: str = "template0") -> Iterator[str]:
        """The address of a new database, a copy of a template; dropped afterwards."""
        name = f"t{uuid4().hex[:16]}"
        self._admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self.url(name)
        finally:
            self._admin.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def template(self, tables: int, make: Callable[[str], None]) -> str:
        """A template with that many tables, made once by `make(address)`: a copy is what a test can afford."""
        name = f"with{tables}"
        if name not in self._templates:
            self._admin.execute(f"CREATE DATABASE {name} TEMPLATE template0")
            make(self.url(name))
            self._templates.add(name)
        return name

    def stop(self) -> None:
        """Stop the server and remove its folder."""
        self._admin.close()
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)
