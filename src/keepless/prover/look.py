"""One look at everything that a deployment of ours holds.

Holds: `look`, `open_database`. Leaves out: the machine's temporary folders, which others write to as well (places).
"""

from keepless.db import Database
from keepless.prover import places
from keepless.prover.deployment import Deployment
from keepless.prover.places import Searched
from keepless.prover.search import Search

__all__ = ["look", "open_database"]


def open_database(url: str) -> Database:
    """A database for searching. Raises `ConfigError` for an address that is none."""
    return Database(url.replace("postgresql://", "postgresql+psycopg://", 1), pool_size=1)


def look(search: Search, deployment: Deployment, database_url: str | None, *, since: float) -> list[Searched]:
    """Search its folders (temporary and working ones included), database, processes and output.

    `since`: files that a process has open or mapped and that did not change after this instant (Unix seconds) are left
    out: they are programs and weights.
    """
    # The raw files first: whoever opens the database may fold the WAL into it.
    found = [places.folder(search, deployment.folder, "data folder")]
    db = open_database(database_url or f"sqlite:///{deployment.data_dir}/keepless.sqlite")
    try:
        found.append(places.database(search, db))
    finally:
        db.close()
    found.append(places.processes(search, deployment.pids, since=since))
    found.append(places.output(search, deployment.written()))
    return found
