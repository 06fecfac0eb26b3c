"""One process that runs jobs, batches and fine-tunings: a child of `serve`, or `keepless worker` on another machine.

1. Open the deployment, take a lease, connect to the engines (those of `serve` by the sockets in the plan).
2. Take jobs. Lines of batches run on the event loop, everything that blocks in threads.
3. On SIGTERM or SIGINT: begin no line any more, let lines under way end for some seconds, record what they answered,
   write the ledger, give the lease up. What is left is taken up by another process, or by this one's successor.

Leaves out: what a job does (jobs), starting and watching this process (job_child), answering requests (worker). As a
program (`python -m keepless.app.job_worker`) it reads its plan from its standard input.
"""

import asyncio
import gc
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import uvloop

from keepless import log
from keepless.accounts.lease import Lease
from keepless.accounts.principal import PolicyInForce
from keepless.accounts.store import policy_in_force
from keepless.app.audio_urls import fetcher_of
from keepless.app.compose import Deployment, open_deployment
from keepless.app.harden import silence_loop
from keepless.app.housekeeping import Housekeeping
from keepless.app.life import born
from keepless.app.plan import Plan, decode
from keepless.app.tuned import tuned_models
from keepless.app.tunings import ending_of, trainable_of
from keepless.app.webhooks import deliverer_of
from keepless.batches.values import BatchEndpoint
from keepless.config import EMBEDDED
from keepless.gateway.audio_files import StoredAudio
from keepless.gateway.endpoints import handlers
from keepless.gateway.tuned import TunedModels
from keepless.governance.refusals import Refusals
from keepless.http.limits import RateLimits
from keepless.ids import Id
from keepless.incidents.afterwards import Afterwards
from keepless.incidents.reliability import Reliability
from keepless.inference.embedded.fleet import backend_of
from keepless.inference.router import Route, Router
from keepless.inference.upstream import upstream_backends
from keepless.jobs.driver import ENDPOINT_OF, Bounds, Driver, concurrency_of
from keepless.jobs.durable import DurableJobs, prepare_store
from keepless.jobs.files import KeptFiles, ResultFiles
from keepless.jobs.gate import Gate
from keepless.jobs.journal import write_together
from keepless.jobs.port import Handlers, Queue
from keepless.jobs.recorder import Recorder
from keepless.jobs.shard import Parts
from keepless.jobs.tuning import Tunings
from keepless.jobs.tuning_run import Trainer
from keepless.jobs.validate import urls_of
from keepless.log import Event
from keepless.pipeline import Way
from keepless.training.port import training
from keepless.tuning.served import read_served
from keepless.usage.ledger import Ledger

__all__ = ["run"]

_GRACE_S: Final = 8.0
_THREADS: Final = 8
_JOBS_AT_ONCE: Final = {Queue.BATCH: 16, Queue.FINE_TUNING: 1}
_LEDGER_S: Final = 0.2  # nobody waits for the usage of a batch line, and its transactions stand in the way of journals
_SWITCH_S: Final = 0.0005  # how long another thread may keep the interpreter from the event loop


def run(plan: Plan, files: ResultFiles | None = None, trainer: Trainer = training) -> int:
    """Run jobs until a signal comes; 0 when everything ended in order."""
    deployment = open_deployment(plan.settings)
    try:
        return uvloop.run(_JobWorker(plan, deployment, files or KeptFiles(), trainer).work())
    finally:
        deployment.close()


class _JobWorker:
    """The parts of one process. Made before its event loop runs."""

    def __init__(self, plan: Plan, deployment: Deployment, files: ResultFiles, trainer: Trainer) -> None:
        settings, db, clock = plan.settings, deployment.db, deployment.clock
        self._plan: Final = plan
        self._deployment: Final = deployment
        self._files: Final = files
        self._lease: Final = Lease(db, clock, read_tuned=read_served)
        self._tuned: TunedModels | None = None
        refusals = Refusals(db, clock, deployment.log)
        self._ledger: Final = Ledger(
            db,
            max_rows=settings.limits.ledger_rows,
            flush_seconds=_LEDGER_S,
            rests=False,
            refused=refusals.note_requests,
        )
        self._executor: Final = ThreadPoolExecutor(_THREADS, thread_name_prefix="work")
        self._housekeeping: Final = Housekeeping(deployment, sweeps=plan.sweeps)
        models = {model.id: model for model in settings.models}
        self._tunings: Final = Tunings(
            db,
            deployment.vault,
            clock,
            policy_now=self._policy_now,
            ending=ending_of(deployment),
            trainer=trainer,
            models={name: models[name] for name in trainable_of(settings)},
            rules=settings.fine_tuning,
            json_depth=settings.limits.json_depth,
        )

    async def work(self) -> int:
        """See `run`."""
        loop = asyncio.get_running_loop()
        silence_loop(loop)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        router = Router(self._routes())
        way = self._way()
        if self._plan.tuned is not None:
            self._tuned = tuned_models(
                self._deployment, self._plan.tuned, lease=self._lease, router=router, executor=self._executor
            )
        driver = self._driver(loop, router, way)

        def swapped() -> None:
            way.enforce()
            driver.enforce()
            if self._tuned is not None:
                self._tuned.enforce()

        self._lease.on_swap = swapped
        await asyncio.to_thread(self._lease.start, loop)
        self._ledger.start()
        await asyncio.to_thread(self._housekeeping.start)
        await asyncio.to_thread(driver.start)
        telling = loop.create_task(deliverer_of(self._deployment).run(stop))
        gc.collect()
        gc.freeze()
        sys.setswitchinterval(_SWITCH_S)
        log.emit(Event.JOBS_STARTED, trains=Queue.FINE_TUNING in self._plan.queues)
        await stop.wait()
        log.emit(Event.JOBS_STOPPING)
        await asyncio.to_thread(self._tunings.stop)
        await asyncio.to_thread(driver.stop, _GRACE_S)
        await telling
        await router.close()
        if self._tuned is not None:
            await self._tuned.close()
        await asyncio.to_thread(self._stop)
        log.emit(Event.JOBS_STOPPED)
        return 0

    def _stop(self) -> None:
        self._executor.shutdown()
        self._ledger.close()
        self._housekeeping.stop()
        self._lease.stop()

    def _routes(self) -> list[Route]:
        engines = {engine.model: engine for engine in self._plan.engines}
        routes = []
        for model in self._plan.settings.models:
            if model.engine not in EMBEDDED:
                routes.append(Route(model, *upstream_backends(model)))
            elif model.id in engines:
                at = engines[model.id]
                routes.append(Route(model, backend_of(model, Path(at.socket), at.key)))
        return routes

    def _way(self) -> Way:
        deployment, most = self._deployment, self._plan.settings.limits.capture_bytes
        # Nothing of a batch is ever captured; the way asks for the part all the same.
        reliability = Reliability(deployment.db, deployment.vault, self._policy_now, max_bytes=most)
        afterwards = Afterwards(deployment.clock, self._executor, reliability)
        return Way(self._lease, self._ledger, deployment.clock, afterwards, capture_bytes=most)

    def _policy_now(self, organization_id: Id, project_id: Id) -> PolicyInForce | None:
        with self._deployment.db.read() as tx:
            return policy_in_force(tx, organization_id, project_id)

    def _driver(self, loop: asyncio.AbstractEventLoop, router: Router, way: Way) -> Driver:
        deployment, settings = self._deployment, self._plan.settings
        db, clock, limits = deployment.db, deployment.clock, settings.limits
        answering = handlers(
            limits,
            lease=self._lease,
            router=router,
            way=way,
            ledger=self._ledger,
            clock=clock,
            rates=RateLimits(clock, None, alone=True),
            fetcher=fetcher_of(settings),
            stored=StoredAudio(deployment.files, self._executor, most_bytes=limits.audio_bytes),
            tuned=self._tuned,
        )
        parts = Parts(
            loop=loop,
            executor=self._executor,
            recorder=Recorder(loop, self._executor, write_together),
            gate=Gate(loop, {model.id: concurrency_of(model) for model in router.models()}, self._lane_of),
            lease=self._lease,
            handlers={each: answering[at] for each, at in ENDPOINT_OF.items() if at in answering},
            urls={url: each for endpoint in BatchEndpoint for url, each in urls_of(endpoint).items()},
        )

        def jobs(found: Handlers) -> DurableJobs:
            store = prepare_store(settings.data_dir, settings.database)
            at_once = {queue: _JOBS_AT_ONCE[queue] for queue in self._plan.queues}
            made = DurableJobs(store, db, clock, {**found, **self._tunings.handlers}, at_once=at_once)
            self._tunings.start(made)
            return made

        return Driver(
            db,
            deployment.vault,
            clock,
            believes=deployment.sweeper.believes,
            destroy=deployment.sweeper.end_job,
            files=self._files,
            policy_now=self._policy_now,
            router=router,
            tuned=self._tuned,
            parts=parts,
            bounds=Bounds(limits.batch_lines, limits.batch_bytes, limits.batch_line_bytes, limits.json_depth),
            jobs=jobs,
        )

    def _lane_of(self, name: str) -> tuple[str, int] | None:
        """Where lines of a tuned model wait for their turn, and how many go at once."""
        found = self._tuned.lane(name) if self._tuned is not None else None
        return None if found is None else (found[0], concurrency_of(found[1]))


def _main() -> int:
    try:
        return run(decode(born()))
    except Exception as error:  # the interpreter would print its text
        log.failure(Event.JOB_FAILED, error)
        return 2


if __name__ == "__main__":
    sys.exit(_main())
