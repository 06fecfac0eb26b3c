"""The jobs of batches, done: validate an input, run a shard, finish. What a worker process is for.

Holds: `Driver` (one a worker process), `Limits`, `concurrency_of`. Leaves out: when which job is due (overseer), the
engine that runs them (durable), the parts it is given (app).

A job runs in a thread of the engine and blocks. The lines of its shard run on the event loop meanwhile, together with
those of all others (shard, gate).
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from keepless.accounts.lease import Lease
from keepless.accounts.principal import Principal
from keepless.batches import shards, store, transitions
from keepless.batches.shards import Shard
from keepless.batches.values import Batch, BatchEndpoint, BatchState, CancelReason, LineCode
from keepless.clock import Clock
from keepless.config import Endpoint, Engine, ModelConfig
from keepless.content import Purpose
from keepless.db import Database
from keepless.errors import KeeplessError, Problem
from keepless.gateway.catalogue import endpoints_of
from keepless.gateway.tuned import TunedModels, is_tuned
from keepless.ids import Id
from keepless.inference.router import Router
from keepless.inference.target import eligible
from keepless.jobs.files import ResultFiles
from keepless.jobs.finish import Destroy, Finisher
from keepless.jobs.journal import PolicyNow, ShardJournal
from keepless.jobs.lines import split
from keepless.jobs.overseer import Overseer
from keepless.jobs.port import Handlers, JobKind, Jobs
from keepless.jobs.shard import Outcome, Parts, ShardRun
from keepless.jobs.validate import ModelCheck, Rules, Verdict, validate
from keepless.vault.door import Vault
from keepless.vault.errors import NotKeptError
from keepless.vault.reading import ObjectReader

__all__ = ["ENDPOINT_OF", "Bounds", "Driver", "PolicyUnknownError", "concurrency_of"]

_GRACE_S: Final = 8.0  # for lines under way, when their batch is cancelled or ends
ENDPOINT_OF: Final = {
    BatchEndpoint.CHAT: Endpoint.CHAT,
    BatchEndpoint.RESPONSES: Endpoint.RESPONSES,
    BatchEndpoint.EMBEDDINGS: Endpoint.EMBEDDINGS,
    BatchEndpoint.TRANSCRIPTIONS: Endpoint.TRANSCRIPTIONS,
    BatchEndpoint.TRANSLATIONS: Endpoint.TRANSLATIONS,
}


class PolicyUnknownError(KeeplessError):
    """There is no lease at the moment: try again."""


class _TunedCheck:
    """Whether the tuned models that one batch names are its project's. Blocks."""

    def __init__(self, models: TunedModels, lease: Lease, principal: Principal) -> None:
        self._models: Final = models
        self._lease: Final = lease
        self._principal: Final = principal
        self._read_anew = False

    def __call__(self, model: str, endpoint: BatchEndpoint) -> LineCode | None:
        """What is wrong with a model, if anything. Raises `PolicyUnknownError`."""
        code = self._look(model, endpoint)
        if code is LineCode.MODEL_NOT_FOUND and not self._read_anew:
            # Made a moment before its batch, perhaps. One read is newer than all that the batch can mean.
            if not self._lease.read_anew():
                raise PolicyUnknownError("the policy cannot be read: the input is validated later")
            self._read_anew = True
            code = self._look(model, endpoint)
        return code

    def _look(self, model: str, endpoint: BatchEndpoint) -> LineCode | None:
        try:
            base = self._models.base_of(self._models.offered(self._principal, model))
        except Problem as problem:
            return LineCode.MODEL_NOT_ALLOWED if problem.status == 403 else LineCode.MODEL_NOT_FOUND
        return None if ENDPOINT_OF[endpoint] in endpoints_of(base) else LineCode.MODEL_NOT_FOUND


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an input may be at most."""

    lines: int
    bytes: int
    line_bytes: int
    json_depth: int


def concurrency_of(model: ModelConfig) -> int:
    """How many lines of batches one worker sends to a model at once: beside, not instead of, interactive requests."""
    if model.batch_concurrency is not None:
        return model.batch_concurrency
    return 64 if model.engine is Engine.OPENAI else max(1, model.parallel // 2)


class Driver:
    """See the module."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        clock: Clock,
        *,
        believes: Callable[[], bool],
        destroy: Destroy,
        files: ResultFiles,
        policy_now: PolicyNow,
        router: Router,
        tuned: TunedModels | None = None,
        parts: Parts,
        bounds: Bounds,
        jobs: Callable[[Handlers], Jobs],
    ) -> None:
        self._db: Final = db
        self._vault: Final = vault
        self._clock: Final = clock
        self._files: Final = files
        self._policy_now: Final = policy_now
        self._router: Final = router
        self._tuned: Final = tuned
        self._parts: Final = parts
        self._bounds: Final = bounds
        self._make_jobs: Final = jobs
        self._jobs: Jobs | None = None
        self._runs: Final[set[ShardRun]] = set()  # on the loop's thread only
        self._stopping = False
        self._overseer: Final = Overseer(db, clock, self._the_jobs, self, believes=believes)
        self._finisher: Final = Finisher(
            db,
            vault,
            clock,
            destroy=destroy,
            files=files,
            policy_now=policy_now,
            inputs=self._input,
            line_bytes=bounds.line_bytes,
        )

    # -- the process -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take jobs from now on. Blocks."""
        self._jobs = self._make_jobs(
            {
                JobKind.BATCH_VALIDATE: self._validate,
                JobKind.BATCH_SHARD: self._shard,
                JobKind.BATCH_FINISH: self._finish,
            }
        )
        self._overseer.start()

    def stop(self, grace_s: float) -> None:
        """Take no more jobs; lines under way have `grace_s` seconds; what they answered is recorded. Blocks."""
        self._overseer.stop()
        self._parts.loop.call_soon_threadsafe(self._stop_runs, grace_s)
        self._the_jobs().close()

    def _the_jobs(self) -> Jobs:
        if self._jobs is None:
            raise RuntimeError("the driver was not started")
        return self._jobs

    def _stop_runs(self, grace_s: float) -> None:
        self._stopping = True
        for run in tuple(self._runs):
            run.stop(grace_s)

    def enforce(self) -> None:
        """On the loop, after every change of policy and at the end of the lease."""
        for run in tuple(self._runs):
            run.enforce()

    # -- told by the overseer ----------------------------------------------------------------------------------------

    def tell(self, states: Mapping[Id, BatchState]) -> None:
        """See `Running`."""
        for run in tuple(self._runs):
            state = states.get(run.batch.id)
            if state is None:
                batch = self._batch(run.batch.id)  # it may be younger than what was looked at
                if batch is None or batch.ended_at is not None:
                    self._parts.loop.call_soon_threadsafe(run.drop)
            elif state in (BatchState.FINALIZING, BatchState.CANCELLING):
                self._parts.loop.call_soon_threadsafe(run.stop, _GRACE_S)

    def purge(self, batch_id: Id) -> None:
        """See `Running`."""
        self._finisher.purge(batch_id)

    # -- jobs --------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _trying(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception:
            self._overseer.failed(what)
            raise
        self._overseer.succeeded(what)
        self._overseer.nudge()

    def _validate(self, batch_id: Id) -> None:
        with self._trying(f"{batch_id}.v"):
            batch = self._batch(batch_id)
            if batch is None or batch.state is not BatchState.VALIDATING:
                return
            verdict = self._verdict(batch)
            with self._db.write() as tx:
                now = self._clock.now_ms()
                if verdict.found:
                    transitions.fail(tx, batch_id, verdict.errors, verdict.found, now)
                else:
                    # A tuned model's name is its owner's: only what the operator has called is put into a row.
                    route = None if verdict.model is None else self._router.route(verdict.model)
                    model = None if route is None else route.model.id
                    transitions.start(tx, batch_id, verdict.shards, now, model=model)

    def _verdict(self, batch: Batch) -> Verdict:
        bounds = self._bounds
        rules = Rules(
            endpoint=batch.endpoint,
            model=self._model_check(batch),
            most_lines=bounds.lines,
            most_bytes=bounds.bytes,
            line_bytes=bounds.line_bytes,
            json_depth=bounds.json_depth,
        )
        try:
            reader = self._input(batch)
            return validate(reader.stream(), reader.size, rules)
        except NotKeptError:
            gone = Verdict()
            gone.wrong(None, LineCode.INPUT_GONE)
            return gone

    def _model_check(self, batch: Batch) -> ModelCheck:
        lease = self._parts.lease
        valid = lease.valid
        organization = lease.organization(batch.organization_id)
        project = lease.project(batch.project_id)
        if not valid or organization is None or project is None:
            raise PolicyUnknownError("the policy cannot be read: the input is validated later")
        zero_only, region = project.effective.zero_upstream_only, organization.region
        principal = Principal(batch.key_id, organization, project)
        looked: dict[tuple[str, BatchEndpoint], LineCode | None] = {}  # each once, and what nobody has never
        tuned = None if self._tuned is None else _TunedCheck(self._tuned, lease, principal)

        def check(model: str, endpoint: BatchEndpoint) -> LineCode | None:
            key = (model, endpoint)
            if key not in looked:
                code = look(model, endpoint)
                if code is LineCode.MODEL_NOT_FOUND and not is_tuned(model):
                    return code
                looked[key] = code
            return looked[key]

        def look(model: str, endpoint: BatchEndpoint) -> LineCode | None:
            if tuned is not None and is_tuned(model):
                return tuned(model, endpoint)
            route = self._router.route(model)
            if route is None or ENDPOINT_OF[endpoint] not in endpoints_of(route.model):
                return LineCode.MODEL_NOT_FOUND
            if any(eligible(target, zero_only=zero_only, region=region) is None for target in route.targets):
                return None
            return LineCode.MODEL_NOT_ALLOWED

        return check

    def _shard(self, batch_id: Id, number: int) -> None:
        with self._trying(f"{batch_id}.s{number}"):
            with self._db.write() as tx:
                shard = shards.take(tx, batch_id, number)
                batch = store.get(tx, batch_id)
            if shard is None or batch is None:
                return
            journal = ShardJournal(
                self._db,
                self._vault,
                self._clock,
                policy_now=self._policy_now,
                batch=batch,
                shard=shard,
            )
            try:
                self._run(batch, shard, journal)
            except NotKeptError:  # the input (or the work) is gone
                self._cancel_without_input(batch)

    def _run(self, batch: Batch, shard: Shard, journal: ShardJournal) -> None:
        recorded = journal.recorded()
        plan = shard.plan
        pieces = self._input(batch).stream(plan.start, plan.stop)
        lines = split(pieces, self._bounds.line_bytes, number=plan.first_line, offset=plan.start)
        ended: Future[Outcome] = Future()
        run = ShardRun(
            self._parts,
            batch=batch,
            shard=shard,
            lines=lines,
            recorded=recorded,
            journal=journal,
            ended=ended.set_result,
        )
        self._parts.loop.call_soon_threadsafe(self._admit, run)
        try:
            outcome = ended.result()
        finally:
            self._runs.discard(run)
        if outcome is Outcome.DONE:
            journal.finish()
        elif journal.tell() and not self._stopping and run.failure is not None:
            raise run.failure

    def _admit(self, run: ShardRun) -> None:
        self._runs.add(run)
        run.begin()
        if self._stopping:
            run.stop(0)

    def _cancel_without_input(self, batch: Batch) -> None:
        with self._db.write() as tx:
            if self._files.input_object(tx, batch.input_file_id, batch.project_id) is None:
                transitions.request_cancel(tx, batch.id, CancelReason.INPUT_DELETED, self._clock.now_ms())

    def _finish(self, batch_id: Id) -> None:
        with self._trying(f"{batch_id}.f"):
            self._finisher.finish(batch_id)

    # -- what they read ----------------------------------------------------------------------------------------------

    def _batch(self, batch_id: Id) -> Batch | None:
        with self._db.read() as tx:
            return store.get(tx, batch_id)

    def _input(self, batch: Batch) -> ObjectReader:
        """The input of a batch. Raises `NotKeptError`."""
        with self._db.read() as tx:
            object_id = self._files.input_object(tx, batch.input_file_id, batch.project_id)
        if object_id is None:
            raise NotKeptError("the input was deleted")
        return self._vault.reader(object_id, batch.organization_id, Purpose.INFERENCE)
