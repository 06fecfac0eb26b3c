"""One look at everything that a deployment of ours holds.

Holds: `look`, `open_database`, `job_store`. Leaves out: the temporary folders, which others write to as well (places).
"""

from pathlib import Path
from typing import Final

from keepless.db import Database
from keepless.prover import places
from keepless.prover.deployment import Deployment
from keepless.prover.places import Searched
from keepless.prover.search import Search

__all__ = ["JOB_ROWS", "job_store", "look", "open_database"]

JOB_ROWS: Final = "job store rows"


def open_database(url: str) -> Database:
    """A database for searching. Raises `ConfigError` for an address that is none."""
    return Database(url.replace("postgresql://", "postgresql+psycopg://", 1), pool_size=1)


def job_store(deployment: Deployment) -> Path:
    """Where durable jobs have a database of their own."""
    return Path(deployment.data_dir) / "jobs.sqlite"


def _rows(search: Search, url: str, place: str) -> Searched:
    db = open_database(url)
    try:
        return places.database(search, db, place)
    finally:
        db.close()


def look(search: Search, deployment: Deployment, database_url: str | None, *, since: float) -> list[Searched]:
    """Search its folders (temporary and working ones included), both databases, processes and output.

    `since`: files that a process has open or mapped and that did not change after this instant (Unix seconds) are left
    out: they are programs and weights.
    """
    # The raw files first: whoever opens the database may fold the WAL into it.
    found = [places.folder(search, deployment.folder, "data folder")]
    found.append(_rows(search, database_url or f"sqlite:///{deployment.data_dir}/keepless.sqlite", "database rows"))
    if job_store(deployment).exists():  # with PostgreSQL it is a schema of the same database
        found.append(_rows(search, f"sqlite:///{job_store(deployment)}", JOB_ROWS))
    found.append(places.processes(search, deployment.pids, since=since))
    found.append(places.output(search, deployment.written()))
    return found
