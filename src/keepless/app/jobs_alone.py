"""`python -m keepless.app.jobs_alone`: jobs without a server beside them, on this machine or on another one.

Leaves out: who starts this program (jobs_start), what a job worker does (job_worker). It reads its plan from its
standard input, and runs the embedded engines of its own configuration; on the machine of a server that runs them too,
give it a configuration without them, or none at all to do (the server's own child is there already).
"""

import os
import sys

from keepless import log
from keepless.app import job_worker
from keepless.app.engines import Engines
from keepless.app.folder import prepare
from keepless.app.life import born
from keepless.app.plan import Plan, decode
from keepless.app.tuned_child import TunedChild
from keepless.errors import ConfigError

__all__: list[str] = []


def _run(plan: Plan) -> int:
    settings = plan.settings
    folder = prepare(settings.data_dir)
    name = f"worker-{os.getpid()}"
    engines, tuned = Engines(settings, folder / "run", name), TunedChild(settings, folder / "run", name)
    try:
        plan = Plan(
            settings=settings,
            listening=-1,
            engines=engines.start(),
            sweeps=True,
            tuned=tuned.start(),
            queues=plan.queues,
        )
        return job_worker.run(plan)
    finally:
        tuned.stop()
        engines.stop()


def _main() -> int:
    try:
        return _run(decode(born()))
    except ConfigError as wrong:
        sys.stderr.write(f"keepless: {wrong}\n")
    except Exception as error:  # the interpreter would print its text
        log.failure(log.Event.JOB_FAILED, error)
    return 2


if __name__ == "__main__":
    sys.exit(_main())
