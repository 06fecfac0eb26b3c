"""A fine-tuning's life against a model: workers die between any two steps, customers and owners do what they may.

Real: tables, transitions, checks, runs, vault, deletions, purges. Fakes stand at the edges: the process that trains
(`FakeTrainer`: the same steps, whoever goes on with them) and the store of durable jobs (`Slate`).
"""

import contextlib
import io
import sys
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from keepless.accounts.fence import Fence
from keepless.accounts.principal import AdminPrincipal
from keepless.accounts.roles import Role
from keepless.app import compose
from keepless.content import Purpose
from keepless.errors import Problem
from keepless.governance.change import Office
from keepless.governance.controls import DataControls
from keepless.governance.organizations import FOREVER_MS
from keepless.governance.patch import Patch
from keepless.ids import Id
from keepless.log import redirect
from keepless.policy.data_class import DataClass
from keepless.training.order import Fault, TrainingError
from keepless.tuning import store
from keepless.tuning.tables import tuned_model, tuning_checkpoint, tuning_event, tuning_job
from keepless.tuning.values import NEXT, TERMINAL, FailCode, Hyperparameters, Job, TuningState
from tests.property.test_batch_states import MortalDatabase
from tests.support.batching import Floor
from tests.support.tuning import MODELS, Desk, examples
from tests.support.tuning_work import Shop, Slate
from tests.support.vault import CrashError

S = TuningState
KNOBS = Hyperparameters(n_epochs=1, batch_size=2)  # 12 examples: 6 steps
WORK, WEIGHTS, DATASET = DataClass.FINE_TUNING_WORK, DataClass.MODEL_WEIGHTS, DataClass.FINE_TUNING_DATASET
AFTER = {state: {state, *NEXT[state]} for state in S}  # everything that may come, at once or later
for _ in S:
    for _following in AFTER.values():
        _following |= {later for one in tuple(_following) for later in AFTER[one]}


class World:
    """What all examples share."""

    def __init__(self, floor: Floor) -> None:
        self.desk = Desk(floor)
        clock = floor.deployment.clock
        office = Office(floor.deployment.db, clock, Fence(floor.deployment.db, clock), floor.deployment.log)
        self.controls = DataControls(office)
        self.owner = AdminPrincipal(Id("akey_owner"), floor.organization_id, Role.OWNER, FOREVER_MS)
        self.own = (floor.organization_id, floor.project_id)


class Life(RuleBasedStateMachine):
    """One project's fine-tunings, and workers that come and go. A rule that has nothing to act on does nothing."""

    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        self.desk = self.world.desk
        self.slate = Slate()
        self.shop = Shop(self.desk, self.slate)
        self.seen: dict[Id, Job] = {}
        self.gone: set[Id] = set()  # deleted, or purged
        self.data: dict[Id, bytes] = {}
        self.cut: set[Id] = set()  # their files were deleted while they needed them
        self.on = True

    # -- customers and owners ----------------------------------------------------------------------------------------

    @rule(good=st.sampled_from([True, True, True, False]), seed=st.integers(0, 3))
    def create(self, good: bool, seed: int) -> None:
        if not self.on or len(self.seen) == 3:
            return
        data = examples(12 if good else 3, f"answer {len(self.seen)}")
        job = self.desk.create(self.desk.dataset(data), asked=KNOBS, seed=seed).job
        self.seen[job.id], self.data[job.id] = job, data

    @rule(pick=st.integers(0, 5), what=st.sampled_from(["cancel", "pause", "resume", "delete", "delete_dataset"]))
    def outside(self, pick: int, what: str) -> None:
        if self.on and self.alive:
            self._outside(self.alive[pick % len(self.alive)], what)

    def _outside(self, job_id: Id, what: str) -> None:
        with contextlib.suppress(Problem):  # in that state it cannot be done
            if what == "delete":
                self.desk.ending.delete_job(job_id, *self.world.own)
                self.gone.add(job_id)
            elif what == "delete_dataset":
                job = self.desk.job(job_id)
                self.desk.deployment.files.delete(job.training_file_id, *self.world.own)
                self.desk.book.input_deleted(job.training_file_id)
                self.cut.add(job_id)
            else:
                getattr(self.desk.book, what)(job_id, *self.world.own)

    @rule(purge=st.booleans())
    def turn_off(self, purge: bool) -> None:
        if not self.on:
            return
        self.world.controls.change(self.world.own[0], Patch(zero_data_retention=True, purge=purge), self.world.owner)
        self.on = False
        with self.desk.db.read() as tx:
            assert store.active_of(tx) == []
        if purge:
            self.desk.deployment.sweeper.sweep_once(confirm=True)
            self.gone |= self.seen.keys()

    @rule()
    def turn_on(self) -> None:
        if not self.on:
            self.world.controls.change(self.world.own[0], Patch(zero_data_retention=False), self.world.owner)
            self.on = True

    # -- workers -----------------------------------------------------------------------------------------------------

    @rule(jobs=st.integers(1, 3))
    def go_on(self, jobs: int) -> None:
        for _ in range(jobs):
            self._one(0, None, None, None)

    @rule(
        pick=st.integers(0, 5),
        dies_after=st.one_of(st.none(), st.integers(0, 20)),
        trainer_dies_at=st.one_of(st.none(), st.none(), st.integers(1, 6)),
        meanwhile=st.one_of(
            st.none(),
            st.tuples(st.sampled_from(["cancel", "pause", "delete", "delete_dataset", "off"]), st.integers(1, 6)),
        ),
    )
    def struggle(
        self, pick: int, dies_after: int | None, trainer_dies_at: int | None, meanwhile: tuple[str, int] | None
    ) -> None:
        self._one(pick, dies_after, trainer_dies_at, meanwhile)

    def _one(
        self, pick: int, dies_after: int | None, trainer_dies_at: int | None, meanwhile: tuple[str, int] | None
    ) -> None:
        self.shop.look()
        if not self.slate.waiting:
            return
        job_id = sorted(self.slate.waiting)[pick % len(self.slate.waiting)]
        subject = self.slate.waiting[job_id][1][0]
        done = False

        def before(step: int) -> None:
            nonlocal done
            if step == trainer_dies_at:
                raise TrainingError(Fault.TRAINER_DIED)
            if meanwhile is not None and step == meanwhile[1] and not done:
                done = True
                self._meanwhile(meanwhile[0], subject)

        self.shop.trainer.before = before
        self._mortal(dies_after, lambda: self.shop.one(job_id))
        self.shop.trainer.before = lambda _: None

    def _meanwhile(self, what: str, job_id: Id) -> None:
        """Somebody else's doing, of another process: this one's death does not touch it."""
        left, MortalDatabase.fuse.left = MortalDatabase.fuse.left, None
        try:
            if what == "off":
                self.turn_off(False)
            elif self.on:
                self._outside(job_id, what)
        finally:
            MortalDatabase.fuse.left = left

    def _mortal(self, dies_after: int | None, act: Callable[[], Any]) -> None:
        """Do something as a worker that dies after so many steps; then another one comes."""
        fuse = MortalDatabase.fuse
        fuse.left = dies_after
        died = False
        waiting = dict(self.slate.waiting)
        try:
            act()
        except CrashError:
            died = True
        finally:
            fuse.left = None
        if died:  # the job was begun and not ended: it is the next one's
            self.slate.waiting = waiting
            self.shop = Shop(self.desk, self.slate)

    # -- what must be true -------------------------------------------------------------------------------------------

    @property
    def alive(self) -> list[Id]:
        return [job_id for job_id in self.seen if job_id not in self.gone]

    @invariant()
    def only_forward(self) -> None:
        for job_id in self.alive:
            with self.desk.db.read() as tx:
                now = store.any_job(tx, job_id, *self.world.own)
                model = None if now is None else store.model_of(tx, job_id)
            if now is None:
                self.gone.add(job_id)
                continue
            before = self.seen[job_id]
            assert now.state in AFTER[before.state]
            if before.state in TERMINAL:
                assert (now.state, now.step, now.finished_at) == (before.state, before.step, before.finished_at)
            assert now.attempt >= before.attempt
            assert (model is not None) is (now.state is S.SUCCEEDED)
            self.seen[job_id] = now

    def teardown(self) -> None:
        """Somebody comes who lives: everything ends, and is right; then all of it is deleted and nothing is left."""
        MortalDatabase.fuse.left = None
        if not self.on:
            self.turn_on()
        self.shop = Shop(self.desk, self.slate)
        for job_id in self.alive:
            if self.desk.job(job_id).state is S.PAUSED:
                self._outside(job_id, "resume")
        self.shop.work(6)
        self.desk.ending.forget_dead()
        self.only_forward()
        for job_id in self.alive:
            self._ended(job_id)
        with self.desk.db.read() as tx:
            assert tx.scalar(sa.select(sa.func.count()).select_from(tuning_checkpoint)) == 0
        assert self.desk.floor.kept(WORK) == len(self.alive)
        assert self.desk.floor.kept(WEIGHTS) == sum(self.seen[one].state is S.SUCCEEDED for one in self.alive)
        for job_id in self.alive:
            self._outside(job_id, "delete")
        with self.desk.db.read() as tx:
            for one in (tuning_job, tuning_event, tuned_model):
                assert tx.scalar(sa.select(sa.func.count()).select_from(one)) == 0
        assert (self.desk.floor.kept(WORK), self.desk.floor.kept(WEIGHTS)) == (0, 0)

    def _ended(self, job_id: Id) -> None:
        job = self.seen[job_id]
        assert job.state in TERMINAL
        if job.state is S.FAILED:
            allowed = {FailCode.TRAINER_DIED} if len(self.data[job_id].splitlines()) > 3 else {FailCode.TRAINING_FILE}
            assert job.fail_code in allowed | ({FailCode.FILE_GONE} if job_id in self.cut else set())
        if job.state is S.SUCCEEDED:
            with self.desk.db.read() as tx:
                model = store.tuned_model(tx, job.hexadecimal, *self.world.own)
            assert model is not None
            vault = self.desk.deployment.vault
            made = vault.read(model.object_id, model.organization_id, Purpose.CUSTOMER).reveal(Purpose.CUSTOMER)
            assert made == f"adapter {sum(self.data[job_id])} {job.seed} 6".encode()  # as if nothing had ever died


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    redirect(io.StringIO())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compose, "Database", MortalDatabase)
        floor = Floor(tmp_path_factory.mktemp("tunings"), MODELS, real_files=True)
        yield World(floor)
        floor.close()
    redirect(sys.stderr)


def live(world: World, number: int, steps: int) -> None:
    Life.world = world
    how = settings(
        max_examples=number,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    run_state_machine_as_test(Life, settings=how)


def test_a_fine_tuning_goes_forward_and_nothing_is_left_of_it(world: World) -> None:
    live(world, number=15, steps=14)


@pytest.mark.long
def test_a_fine_tuning_goes_forward_for_long(world: World) -> None:
    live(world, number=150, steps=40)
