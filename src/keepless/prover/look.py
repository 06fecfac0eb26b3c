"""One look at everything that a deployment of ours holds.

Holds: `look`, `open_database`, `database_url_of`, `job_store_of`. Leaves out: the temporary folders, which others write
to as well (places).
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from keepless.db import Database
from keepless.prover import places
from keepless.prover.deployment import Deployment
from keepless.prover.places import Searched
from keepless.prover.search import Search

__all__ = ["JOBS_SCHEMA", "JOB_ROWS", "database_url_of", "job_store_of", "look", "open_database"]

JOB_ROWS: Final = "job store rows"
JOBS_SCHEMA: Final = "keepless_jobs"  # in PostgreSQL


def open_database(url: str) -> Database:
    """A database for searching. Raises `ConfigError` for an address that is none."""
    return Database(url.replace("postgresql://", "postgresql+psycopg://", 1), pool_size=1)


def database_url_of(deployment: Deployment, database_url: str | None) -> str:
    """Where its rows are."""
    return database_url or f"sqlite:///{deployment.data_dir}/keepless.sqlite"


def job_store_of(deployment: Deployment, database_url: str | None) -> str | None:
    """Where the rows of jobs are: a file of their own, or a schema of the database; None: no job was run yet."""
    if database_url is None:
        path = Path(deployment.data_dir) / "jobs.sqlite"
        return f"sqlite:///{path}" if path.exists() else None
    db = open_database(database_url)
    try:
        with db.read() as tx:
            return database_url if JOBS_SCHEMA in sa.inspect(tx).get_schema_names() else None
    except sa.exc.SQLAlchemyError:
        return None
    finally:
        db.close()


def look(search: Search, deployment: Deployment, database_url: str | None, *, since: float) -> list[Searched]:
    """Search its folders (temporary and working ones included), both databases, processes and output.

    `since`: files that a process has open or mapped and that did not change after this instant (Unix seconds) are left
    out: they are programs and weights.
    """
    # The raw files first: whoever opens the database may fold the WAL into it.
    found = [places.folder(search, deployment.folder, "data folder")]
    of_jobs = frozenset({JOBS_SCHEMA})
    with _opened(database_url_of(deployment, database_url)) as db:
        found.append(places.database(search, db, without=of_jobs))
    jobs = job_store_of(deployment, database_url)
    if jobs is not None:
        with _opened(jobs) as db:
            found.append(places.database(search, db, JOB_ROWS, only=None if database_url is None else of_jobs))
    found.append(places.processes(search, deployment.pids, since=since))
    found.append(places.output(search, deployment.written()))
    return found


@contextlib.contextmanager
def _opened(url: str) -> Iterator[Database]:
    db = open_database(url)
    try:
        yield db
    finally:
        db.close()
