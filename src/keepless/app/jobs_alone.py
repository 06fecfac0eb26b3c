"""`keepless worker`: jobs without a server beside them, on this machine or on another one.

Holds: `run_jobs`, `QUEUES`. Leaves out: what a job worker does (job_worker). It runs the embedded engines of its own
configuration; on the machine of a server that runs them too, give it a configuration without them, or none at all to
do (the server's own child is there already).
"""

import os
from typing import Final

from keepless.app import job_worker
from keepless.app.compose import check_keys, is_empty, open_deployment
from keepless.app.engines import Engines
from keepless.app.folder import prepare
from keepless.app.harden import harden, raise_file_limit, silence
from keepless.app.plan import Plan
from keepless.config import Settings
from keepless.errors import ConfigError

__all__ = ["QUEUES", "run_jobs"]

QUEUES: Final = frozenset({"batch"})


def run_jobs(settings: Settings) -> int:
    """Run jobs until a signal comes; the exit code.

    Raises `ConfigError` when the folder, the keyring or the database cannot be used, or nothing was made there yet.
    """
    if is_empty(settings):
        raise ConfigError("there is no deployment here: run `keepless init` or `keepless serve` first")
    folder = prepare(settings.data_dir)
    deployment = open_deployment(settings)
    try:
        check_keys(deployment)
    finally:
        deployment.close()
    harden()
    silence()
    raise_file_limit()
    engines = Engines(settings, folder / "run", f"worker-{os.getpid()}")
    try:
        return job_worker.run(Plan(settings=settings, listening=-1, engines=engines.start(), sweeps=True))
    finally:
        engines.stop()
