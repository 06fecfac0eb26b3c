"""`keepless worker`: look whether jobs can be run here, start the program that runs them, hand signals on to it.

Holds: `QUEUES`, `run_jobs`. Leaves out: that program (jobs_alone). The command line does not import it: a server,
which is started by the same command line, would otherwise hold the library of durable jobs in memory for nothing.
"""

import signal
import subprocess
import sys
from collections.abc import Collection
from typing import Final

from keepless.app.compose import check_keys, is_empty, open_deployment
from keepless.app.life import tell
from keepless.app.plan import Plan, encode
from keepless.config import Settings
from keepless.errors import ConfigError
from keepless.jobs.port import Queue
from keepless.training.port import is_missing

__all__ = ["QUEUES", "run_jobs"]

QUEUES: Final = frozenset(Queue)


def run_jobs(settings: Settings, queues: Collection[Queue]) -> int:
    """Run jobs until a signal comes; the exit code.

    Raises `ConfigError` when the folder, the keyring or the database cannot be used, nothing was made there yet, or
    this machine cannot train although it is to.
    """
    if Queue.FINE_TUNING in queues and is_missing():
        raise ConfigError("this machine cannot train: install the extra, keepless[finetune], or leave that queue out")
    if is_empty(settings):
        raise ConfigError("there is no deployment here: run `keepless init` or `keepless serve` first")
    deployment = open_deployment(settings)
    try:
        check_keys(deployment)
    finally:
        deployment.close()
    child = subprocess.Popen([sys.executable, "-m", "keepless.app.jobs_alone"], stdin=subprocess.PIPE)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda told, _: child.send_signal(told))
    tell(child, encode(Plan(settings=settings, listening=-1, engines=[], queues=tuple(sorted(queues)))))
    return abs(child.wait())
