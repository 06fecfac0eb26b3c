"""A batch's life against a model: workers die between any two steps, customers and owners do what they may meanwhile.

Real: tables, transitions, validation, shards as they run, journals, vault, purges. Fakes stand at the edges: the engine
that answers lines, the store of durable jobs (it knows what was submitted and runs it when it is told to), the lease.
"""

import asyncio
import contextlib
import io
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from sqlalchemy.engine import Connection

from keepless.accounts import snapshot
from keepless.accounts.fence import Fence
from keepless.accounts.lease import Lease
from keepless.accounts.principal import AdminPrincipal, Principal
from keepless.accounts.roles import Role
from keepless.accounts.store import policy_in_force
from keepless.app import compose
from keepless.app.batches import input_deleted
from keepless.batches import transitions
from keepless.batches.tables import batch as batch_table
from keepless.batches.tables import batch_journal, batch_shard
from keepless.batches.values import NEXT, TERMINAL, Batch, BatchEndpoint, BatchState, CancelReason
from keepless.clock import DAY_MS
from keepless.config import ModelConfig
from keepless.db import Database
from keepless.files.tables import file
from keepless.gateway.reply import Outlet
from keepless.governance.change import Office
from keepless.governance.controls import DataControls
from keepless.governance.organizations import FOREVER_MS
from keepless.governance.patch import Patch
from keepless.ids import Id, Prefix, mint
from keepless.inference.router import Route, Router
from keepless.jobs import driver as driver_module
from keepless.jobs import recorder, validate
from keepless.jobs.driver import Bounds, Driver
from keepless.jobs.files import KeptFiles
from keepless.jobs.gate import Gate
from keepless.jobs.journal import Outcome, ShardJournal, write_together
from keepless.jobs.overseer import Overseer
from keepless.jobs.port import Handlers, JobKind
from keepless.jobs.results import Record
from keepless.jobs.shard import Parts
from keepless.jobs.validate import urls_of
from keepless.log import redirect
from keepless.policy.data_class import DataClass
from keepless.vault.tables import kept
from tests.property.test_lifecycle import Fuse
from tests.support.batching import Floor, line
from tests.support.vault import CrashError

CHAT = BatchEndpoint.CHAT
ENDLESS = 10_000.0  # seconds, in which every pause is over
OF_THE_FEATURE = (DataClass.BATCH_INPUT, DataClass.BATCH_OUTPUT, DataClass.BATCH_ERROR, DataClass.BATCH_WORK)
AFTER = {state: {*NEXT[state]} for state in BatchState}  # everything that may come, at once or later
for _ in BatchState:
    for _following in AFTER.values():
        _following |= {later for one in tuple(_following) for later in AFTER[one]}


class MortalDatabase(Database):
    """Dies before a transaction, before its commit, or after it, while a worker uses it."""

    fuse: ClassVar[Fuse] = Fuse()

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        self.fuse.step()
        with super().write() as tx:
            yield tx
            self.fuse.step()
        self.fuse.step()


class ByHand(Overseer):
    """An overseer without a thread: it looks when the test says so."""

    made: ClassVar[list["ByHand"]] = []

    def start(self) -> None:
        self.made.append(self)

    def stop(self) -> None:
        pass


class FakeJobs:
    """What was submitted; every worker sees it. A job that was begun and not ended runs again."""

    def __init__(self) -> None:
        self.waiting: dict[str, tuple[JobKind, tuple[Any, ...]]] = {}

    def submit(self, kind: JobKind, job_id: str, *arguments: Id | int, priority: int = 1) -> None:
        self.waiting.setdefault(job_id, (kind, arguments))

    def active(self) -> set[str]:
        return set(self.waiting)

    def cancel(self, job_ids: set[str]) -> None:
        for job_id in job_ids:
            self.waiting.pop(job_id, None)

    def rescue(self) -> int:
        return 0

    def forget(self) -> int:
        return 0

    def close(self) -> None:
        pass


class FakeLease:
    """What the database says now."""

    valid = True

    def __init__(self, db: Database) -> None:
        self._db = db
        self._known = snapshot.EMPTY

    def _now(self) -> snapshot.Snapshot:
        with self._db.read() as tx:
            self._known = snapshot.read(tx, self._known)
        return self._known

    @property
    def generation(self) -> int:
        return self._now().generation

    def organization(self, organization_id: Id) -> Any:
        return self._now().organizations.get(organization_id)

    def project(self, project_id: Id) -> Any:
        found = self._now().projects.get(project_id)
        return None if found is None else found[1]


class HandClock:
    """The deployment's clock, but pauses are over whenever somebody looks."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.ahead = 0.0

    def now_ms(self) -> int:
        return int(self._inner.now_ms())

    def monotonic(self) -> float:
        return float(self._inner.monotonic()) + self.ahead


class FakeEngine:
    """Answers lines at once. `silent_after`: so many, then none any more; `at`: what happens before that line."""

    def __init__(self) -> None:
        self.answered = 0
        self.silent_after: int | None = None
        self.at: tuple[int, Callable[[], None]] | None = None
        self.on_silence: Callable[[], None] = lambda: None

    def line(self, principal: Principal, body: bytes, outlet: Outlet) -> Id:
        if self.at is not None and self.answered >= self.at[0]:
            (_, act), self.at = self.at, None
            act()
        if self.silent_after is not None and self.answered >= self.silent_after:
            self.on_silence()
            return mint(Prefix.REQUEST)
        self.answered += 1
        well = json.loads(body)["model"] == "ok"
        outlet.full(200 if well else 400, b"", b'{"object":"chat.completion"}')
        return mint(Prefix.REQUEST)


class World:
    """What all examples share: a deployment, an event loop in a thread, and the parts of workers."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(compose, "Database", MortalDatabase)
        patch.setattr(driver_module, "Overseer", ByHand)
        patch.setattr(validate, "_SHORTEST", 2)  # lines of a shard
        patch.setattr(recorder, "GROUP_S", 0.0)
        patch.setattr(recorder, "_AGAIN_S", 0.0)
        self.floor = Floor(folder, [{"id": "ok", "engine": "llama"}, {"id": "bad", "engine": "llama"}], real_files=True)
        deployment = self.floor.deployment
        self.db, self.clock = deployment.db, HandClock(deployment.clock)
        self.fence = Fence(self.db, deployment.clock)
        self.controls = DataControls(Office(self.db, deployment.clock, self.fence, deployment.log))
        self.owner = AdminPrincipal(Id("akey_owner"), self.floor.organization_id, Role.OWNER, FOREVER_MS)
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.executor = ThreadPoolExecutor(2)

    def close(self) -> None:
        self.executor.shutdown()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
        self.floor.close()


class Worker:
    """One life of a worker process."""

    def __init__(self, world: World, jobs: FakeJobs) -> None:
        self.world = world
        self.engine = FakeEngine()
        self.handlers: Handlers = {}
        db = world.db

        def make(handlers: Handlers) -> FakeJobs:
            self.handlers = handlers
            return jobs

        def policy_now(organization_id: Id, project_id: Id) -> Any:
            with db.read() as tx:
                return policy_in_force(tx, organization_id, project_id)

        routes = [Route(ModelConfig(id=name), cast("Any", SimpleNamespace())) for name in ("ok", "bad")]
        ByHand.made.clear()
        self.driver = Driver(
            db,
            world.floor.deployment.vault,
            world.clock,
            believes=lambda: True,
            destroy=world.floor.deployment.sweeper.end_job,
            files=KeptFiles(),
            policy_now=policy_now,
            router=Router(routes),
            parts=Parts(
                loop=world.loop,
                executor=world.executor,
                gate=Gate(world.loop, {"ok": 1, "bad": 1}),
                recorder=recorder.Recorder(world.loop, world.executor, self._write),
                lease=cast("Lease", FakeLease(db)),
                handlers={CHAT: self.engine},
                urls=urls_of(CHAT),
            ),
            bounds=Bounds(100, 1_000_000, 10_000, 20),
            jobs=make,
        )
        self.driver.start()
        (self.overseer,) = ByHand.made

    def _write(self, groups: Sequence[tuple[ShardJournal, Sequence[Record]]]) -> list[Outcome]:
        """A death in a thread is the whole worker's: nothing waits for a group any more."""
        try:
            return write_together(groups)
        except CrashError:
            self.world.loop.call_soon_threadsafe(self.die)
            raise

    def die(self) -> None:
        """Nothing of it goes on: as after SIGKILL, what it had in memory is gone."""
        MortalDatabase.fuse.left = 0
        for run in tuple(self.driver._runs):
            run.drop()


class Life(RuleBasedStateMachine):
    """One organization's batches, and workers that come and go.

    What is drawn never depends on what has happened: threads are at work, so the same acts do not always end alike. A
    rule that has nothing to act on does nothing.
    """

    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        self.jobs = FakeJobs()
        self.seen: dict[Id, Batch] = {}
        self.sent: dict[Id, set[str]] = {}
        self.worker = Worker(self.world, self.jobs)
        self.on = True
        self.purged: set[Id] = set()  # batches of before the feature was turned off

    # -- customers and owners ----------------------------------------------------------------------------------------

    @rule(
        kinds=st.lists(st.sampled_from(["ok", "ok", "bad"]), min_size=1, max_size=5), wrong=st.sampled_from([0, 0, 1])
    )
    def create(self, kinds: list[str], wrong: int) -> None:
        if not self.on or len(self.seen) == 3:
            return
        made = [line(f"id-{at}", model) for at, model in enumerate(kinds)] + ["{"] * wrong
        batch_id = self.world.floor.batch("\n".join(made).encode(), window_ms=DAY_MS)
        self.sent[batch_id] = {f"id-{at}" for at in range(len(kinds))}
        self.seen[batch_id] = self.world.floor.see(batch_id)

    @rule(pick=st.integers(0, 11), what=st.sampled_from(["_cancel", "_expire", "_delete_input"]))
    def outside(self, pick: int, what: str) -> None:
        if self.active:
            getattr(self, what)(self.active[pick % len(self.active)])

    def _cancel(self, batch_id: Id) -> None:
        with self.world.db.write() as tx:
            transitions.request_cancel(tx, batch_id, CancelReason.CUSTOMER, self.world.clock.now_ms())

    def _expire(self, batch_id: Id) -> None:
        with self.world.db.write() as tx:
            tx.execute(batch_table.update().where(batch_table.c.id == batch_id).values(expires_at=1))

    def _delete_input(self, batch_id: Id) -> None:
        world, file_id = self.world, self.world.floor.see(batch_id).input_file_id
        with world.db.read() as tx:
            there = KeptFiles().input_object(tx, file_id, world.floor.project_id)
        if there is not None:
            world.floor.deployment.files.delete(file_id, world.floor.organization_id, world.floor.project_id)
            input_deleted(world.db, world.floor.deployment.clock, file_id)

    @rule()
    def turn_off(self) -> None:
        if self.on:
            self._turn_off(Id(""))

    def _turn_off(self, _: Id) -> None:
        self.on = False
        self.purged |= self.seen.keys()
        self.world.controls.change(
            self.world.floor.organization_id, Patch(zero_data_retention=True, purge=True), self.world.owner
        )

    @rule()
    def turn_on(self) -> None:
        if self.on:
            return
        self.world.controls.change(self.world.floor.organization_id, Patch(zero_data_retention=False), self.world.owner)
        self.on = True

    # -- workers -----------------------------------------------------------------------------------------------------

    @rule(dies_after=st.integers(0, 8))
    def die_looking(self, dies_after: int) -> None:
        if self.active:
            self._mortal(dies_after, self._look)

    def _look(self) -> None:
        self.world.clock.ahead += ENDLESS
        self.worker.overseer.look()

    @rule(jobs=st.integers(1, 4))
    def go_on(self, jobs: int) -> None:
        """Nothing is in the way."""
        for _ in range(jobs):
            self._one(0, None, None, None)

    @rule(
        pick=st.integers(0, 11),
        dies_after=st.one_of(st.none(), st.integers(0, 12)),
        silent_after=st.one_of(st.none(), st.none(), st.integers(0, 3)),
        meanwhile=st.sampled_from([None, "_cancel", "_expire", "_delete_input", "_turn_off"]),
    )
    def struggle(self, pick: int, dies_after: int | None, silent_after: int | None, meanwhile: str | None) -> None:
        self._one(pick, dies_after, silent_after, meanwhile)

    def _one(self, pick: int, dies_after: int | None, silent_after: int | None, meanwhile: str | None) -> None:
        if not self.active:
            return
        self._look()
        if not self.jobs.waiting:
            return
        job_id = sorted(self.jobs.waiting)[pick % len(self.jobs.waiting)]
        kind, arguments = self.jobs.waiting[job_id]
        engine = self.worker.engine
        engine.answered, engine.silent_after, engine.on_silence = 0, silent_after, self.worker.die
        if meanwhile is not None and kind is JobKind.BATCH_SHARD:
            engine.at = (1, lambda: self._meanwhile(meanwhile, arguments[0]))
        self._mortal(dies_after, lambda: self._run(job_id, kind, arguments))
        engine.at = None

    def _run(self, job_id: str, kind: JobKind, arguments: tuple[Any, ...]) -> None:
        fuse = MortalDatabase.fuse
        try:
            self.worker.handlers[kind](*arguments)
        except Exception:
            if fuse.left is not None and fuse.left < 0:
                raise  # the process died: the job is begun again
        if fuse.left is None or fuse.left >= 0:
            del self.jobs.waiting[job_id]
        else:
            raise CrashError

    def _meanwhile(self, name: str, batch_id: Id) -> None:
        """Somebody else's doing, of another process: this one's death does not touch it."""
        left, MortalDatabase.fuse.left = MortalDatabase.fuse.left, None
        try:
            if name != "_turn_off" or self.on:
                getattr(self, name)(batch_id)
            if left is None or left >= 0:
                self.worker.driver.enforce()
        finally:
            MortalDatabase.fuse.left = left

    def _mortal(self, dies_after: int | None, act: Callable[[], None]) -> None:
        """Do something as a worker that dies after so many steps; then another one comes."""
        fuse = MortalDatabase.fuse
        fuse.left = dies_after
        try:
            act()
        except CrashError:
            fuse.left = -1
        died = fuse.left is not None and fuse.left < 0
        if died:
            self.world.loop.call_soon_threadsafe(self.worker.die)
            self._settled()
        fuse.left = None
        if died:
            self.worker = Worker(self.world, self.jobs)

    def _settled(self) -> None:
        """What the dead worker had handed to threads and to its loop is over."""

        async def turn() -> None:
            await asyncio.sleep(0)

        for _ in range(3):
            asyncio.run_coroutine_threadsafe(turn(), self.world.loop).result(60)
            for _ in range(2):
                self.world.executor.submit(lambda: None).result(60)

    # -- what must be true -------------------------------------------------------------------------------------------

    @property
    def active(self) -> list[Id]:
        return [batch_id for batch_id, batch in self.seen.items() if batch.state not in TERMINAL]

    @invariant()
    def only_forward(self) -> None:
        for batch_id, before in self.seen.items():
            now = self.world.floor.see(batch_id)
            assert now.state is before.state or now.state in AFTER[before.state]
            if before.state in TERMINAL:
                assert now == before or now.state is before.state
                assert now.counts == before.counts
            assert now.counts.completed >= before.counts.completed or now.state in TERMINAL
            assert now.counts.completed + now.counts.failed <= now.counts.total
            self.seen[batch_id] = now

    def teardown(self) -> None:
        """Somebody comes who lives: everything ends, and is right; then the feature is turned off and all is gone."""
        MortalDatabase.fuse.left = None
        try:
            self._finish()
            self.only_forward()
            for batch_id in self.seen:
                self._delivered(batch_id)
            self._nothing(DataClass.BATCH_WORK)
            self._no_other_results()
            if self.on:
                self._turn_off(Id(""))
            self.world.floor.deployment.sweeper.sweep_once(confirm=True)
            self._nothing(*OF_THE_FEATURE)
            with self.world.db.read() as tx:
                assert tx.scalar(sa.select(sa.func.count()).select_from(batch_journal)) == 0
                assert tx.scalar(sa.select(sa.func.count()).select_from(batch_shard)) == 0
        finally:
            if not self.on:
                self.turn_on()

    def _finish(self) -> None:
        for _ in range(40):
            self._look()
            if not self.jobs.waiting and not any(self.world.floor.see(one).state not in TERMINAL for one in self.seen):
                break
            engine = self.worker.engine
            engine.silent_after = engine.at = None
            for job_id, (kind, arguments) in sorted(self.jobs.waiting.items()):
                self.worker.handlers[kind](*arguments)
                del self.jobs.waiting[job_id]
        assert not self.active or all(self.world.floor.see(one).state in TERMINAL for one in self.seen)
        self.world.floor.deployment.sweeper.sweep_once(confirm=True)

    def _delivered(self, batch_id: Id) -> None:
        batch, sent = self.world.floor.see(batch_id), self.sent[batch_id]
        if batch_id in self.purged or batch.state is BatchState.FAILED or batch.in_progress_at is None:
            assert batch_id in self.purged or (batch.output_file_id, batch.error_file_id) == (None, None)
            return
        output, errors = self.world.floor.results(batch_id)
        ids = Counter(one["custom_id"] for one in output + errors)
        assert set(ids.values()) <= {1}
        assert set(ids) <= sent
        assert (batch.counts.completed, batch.counts.failed) == (len(output), len(errors))
        if batch.cancel_reason is not CancelReason.INPUT_DELETED and batch.counts.total:
            assert set(ids) == sent
        assert all((one["response"]["status_code"] == 200) for one in output)

    def _no_other_results(self) -> None:
        """Every result that is kept is a batch's."""
        batches = [self.world.floor.see(batch_id) for batch_id in self.seen if batch_id not in self.purged]
        named = {one for batch in batches for one in (batch.output_file_id, batch.error_file_id)} - {None}
        with self.world.db.read() as tx:
            classes = (DataClass.BATCH_OUTPUT, DataClass.BATCH_ERROR)
            query = sa.select(file.c.id).join(kept, kept.c.id == file.c.object_id, full=True)
            assert set(tx.scalars(query.where(kept.c.data_class.in_(classes)))) == named

    def _nothing(self, *classes: DataClass) -> None:
        with self.world.db.read() as tx:
            left = list(tx.scalars(sa.select(kept.c.id).where(kept.c.data_class.in_(classes))))
        assert left == []


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    redirect(io.StringIO())
    with pytest.MonkeyPatch.context() as patch:
        made = World(tmp_path_factory.mktemp("batches"), patch)
        yield made
        made.close()
    redirect(sys.stderr)


def live(world: World, examples: int, steps: int) -> None:
    Life.world = world
    how = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    run_state_machine_as_test(Life, settings=how)


def test_a_batch_goes_forward_and_every_line_is_delivered_once(world: World) -> None:
    live(world, examples=20, steps=16)


@pytest.mark.long
def test_a_batch_goes_forward_for_long(world: World) -> None:
    live(world, examples=150, steps=40)
