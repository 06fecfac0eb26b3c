"""Fine-tunings as jobs: checked, trained, cut, gone on with, paused, refused. A fake stands for what trains."""

import contextlib
import io
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from keepless.accounts.fence import Fence
from keepless.accounts.principal import AdminPrincipal
from keepless.accounts.roles import Role
from keepless.content import Purpose
from keepless.governance.change import Office
from keepless.governance.controls import DataControls
from keepless.governance.organizations import FOREVER_MS
from keepless.governance.patch import Patch
from keepless.ids import Id
from keepless.jobs import tuning_run
from keepless.jobs.port import JobKind, Queue, queue_of
from keepless.log import redirect
from keepless.policy.data_class import DataClass, Feature
from keepless.training.order import Fault, TrainingError
from keepless.tuning import checkpoints, store
from keepless.tuning.faults import FaultCode, FaultFile
from keepless.tuning.values import FailCode, Hyperparameters, TuningState
from keepless.vault.errors import StoreFailedError
from tests.support.batching import Floor
from tests.support.trainer import FakeTrainer
from tests.support.tuning import MODELS, Desk, example, examples
from tests.support.tuning_work import Shop

S = TuningState
WORK, WEIGHTS = DataClass.FINE_TUNING_WORK, DataClass.MODEL_WEIGHTS
KNOBS = Hyperparameters(n_epochs=1, batch_size=2)  # 12 examples: 6 steps


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def floor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Floor]:
    redirect(io.StringIO())
    with contextlib.ExitStack() as stack:
        url = None
        if request.param == "postgres":
            url = stack.enter_context(request.getfixturevalue("postgres").database())
        made = Floor(tmp_path_factory.mktemp("floor"), MODELS, url, real_files=True)
        yield made
        made.close()
    redirect(sys.stderr)


@pytest.fixture
def desk(floor: Floor) -> Iterator[Desk]:
    made = Desk(floor)
    yield made
    with made.db.read() as tx:
        jobs = [one.id for one in store.listing(tx, made.organization_id, None, limit=100)]
    for job_id in jobs:
        made.ending.delete_job(job_id, made.organization_id, None)
    assert (floor.kept(WORK), floor.kept(WEIGHTS)) == (0, 0)


def told(desk: Desk, job_id: Id) -> list[str]:
    with desk.db.read() as tx:
        return [one.code.value for one in reversed(store.events_of(tx, job_id, limit=100))]


def weights(desk: Desk, job_id: Id) -> bytes:
    with desk.db.read() as tx:
        model = store.model_of(tx, job_id)
    assert model is not None
    return desk.deployment.vault.read(model.object_id, model.organization_id, Purpose.CUSTOMER).reveal(Purpose.CUSTOMER)


def test_trainings_have_a_queue_of_their_own() -> None:
    assert {kind for kind in JobKind if queue_of(kind) is Queue.FINE_TUNING} == {JobKind.TUNING_TRAIN}


def test_from_examples_to_a_model(desk: Desk) -> None:
    shop = Shop(desk)
    job = desk.create(asked=KNOBS, seed=7).job
    shop.work(2)
    done = desk.job(job.id)
    assert (done.state, done.step, done.total, done.tokens, done.examples) == (S.SUCCEEDED, 6, 6, 60, 12)
    assert weights(desk, job.id).endswith(b" 7 6")
    with desk.db.read() as tx:
        model = store.tuned_model(tx, job.hexadecimal, desk.organization_id, desk.project_id)
        curve = store.curve_of(tx, job.id)
    assert model is not None
    assert (model.rank, model.base_model) == (16, "tiny")
    assert [step for step, _ in curve] == [1, 2, 3, 4, 5, 6]
    assert told(desk, job.id)[:3] == ["created", "validated", "started"]
    assert told(desk, job.id)[-1] == "succeeded"
    shop.look()
    assert desk.floor.kept(WORK) == 1  # the name; the checkpoints went with the job's end
    assert shop.slate.waiting == {}


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (examples(9), [(None, FaultCode.TOO_FEW_EXAMPLES)]),
        (examples(12) + b"{\n", [(13, FaultCode.INVALID_JSON)]),
        (examples(12) + example(weight=1).encode(), [(13, FaultCode.UNKNOWN_PARAMETER)]),
        (examples(12) + b'{"messages":[{"role":"user","content":"\xff"}]}', [(13, FaultCode.INVALID_ENCODING)]),
        (b"\x1f\x8b" + examples(12), [(None, FaultCode.COMPRESSED)]),
        (b"PK\x03\x04", [(None, FaultCode.COMPRESSED)]),
        (b"\xff\xfe" + examples(12), [(None, FaultCode.INVALID_ENCODING)]),
        (b"\n" * 3, [(None, FaultCode.EMPTY_FILE)]),
        (examples(12) + example("x" * 5000).encode(), [(13, FaultCode.LINE_TOO_LONG)]),
        (examples(40), [(None, FaultCode.TOO_MANY_EXAMPLES)]),
        (examples(12, "y" * 3000), [(None, FaultCode.FILE_TOO_LARGE)]),
    ],
)  # fmt: skip
def test_what_is_no_dataset(desk: Desk, data: bytes, found: list[tuple[int | None, FaultCode]]) -> None:
    shop = Shop(desk, example_bytes=4096, examples=30, bytes=30_000)
    job = desk.create(desk.dataset(data)).job
    shop.work(2)
    failed = desk.job(job.id)
    with desk.db.read() as tx:
        faults = store.faults_of(tx, job.id)
    assert (failed.state, failed.fail_code) == (S.FAILED, FailCode.TRAINING_FILE)
    assert [(one.line, one.code) for one in faults] == found
    assert shop.trainer.runs == []


def test_a_validation_file_is_checked_too_and_may_be_small(desk: Desk) -> None:
    shop = Shop(desk)
    small = desk.create(validation_file_id=desk.dataset(examples(1)), has_validation=True, asked=KNOBS).job
    bad = desk.create(validation_file_id=desk.dataset(b"{}\n"), has_validation=True).job
    shop.work(2)
    assert desk.job(small.id).state is S.SUCCEEDED
    assert desk.job(bad.id).fail_code is FailCode.VALIDATION_FILE
    with desk.db.read() as tx:
        assert [one.file for one in store.faults_of(tx, bad.id)] == [FaultFile.VALIDATION]


def test_a_worker_that_dies_is_followed_from_the_last_checkpoint(desk: Desk) -> None:
    job = desk.create(asked=KNOBS, seed=1).job
    first = Shop(desk)

    def die(step: int) -> None:
        if step == 6:
            raise KeyboardInterrupt  # nothing of ours catches it: as if the process were gone

    first.trainer.before = die
    first.work()
    with pytest.raises(KeyboardInterrupt):
        first.work()
    with desk.db.read() as tx:
        assert [one.step for one in checkpoints.of_job(tx, job.id)] == [4, 2]
    second = Shop(desk)
    second.work()
    done = desk.job(job.id)
    assert (done.state, done.attempt, done.step) == (S.SUCCEEDED, 2, 6)
    assert second.trainer.resumed == [4]
    other = desk.create(job.training_file_id, asked=KNOBS, seed=1).job
    second.work(2)
    assert weights(desk, other.id) == weights(desk, job.id)


def test_a_checkpoint_that_does_not_fit_is_passed_over(desk: Desk) -> None:
    job = desk.create(asked=KNOBS).job
    shop = Shop(desk)

    def stop(step: int) -> None:
        if step == 6:
            raise TrainingError(Fault.TRAINER_DIED)

    shop.trainer.before = stop
    shop.work(2)
    shop.trainer.before = lambda _: None
    shop.trainer.unfit = {4}
    shop.work()
    assert desk.job(job.id).state is S.SUCCEEDED
    assert shop.trainer.resumed == [0, 2]
    assert told(desk, job.id).count("goes_on") == 2  # from 4, which did not fit, and from 2


def test_a_trainer_that_dies_at_the_same_step_again_and_again_has_failed(desk: Desk) -> None:
    job = desk.create(asked=KNOBS).job
    shop = Shop(desk)

    def die(step: int) -> None:
        if step == 4:
            raise TrainingError(Fault.TRAINER_DIED)

    shop.trainer.before = die
    shop.work(6)
    failed = desk.job(job.id)
    assert (failed.state, failed.fail_code) == (S.FAILED, FailCode.TRAINER_DIED)
    assert shop.trainer.resumed == [0, 2, 2]


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault.OUT_OF_MEMORY, FailCode.OUT_OF_MEMORY),
        (Fault.DIVERGED, FailCode.DIVERGED),
        (Fault.BASE_NOT_TUNABLE, FailCode.NOT_TUNABLE),
        (Fault.EXAMPLES_UNUSABLE, FailCode.UNUSABLE),
        (Fault.TRAINER_MISSING, FailCode.TRAINER_MISSING),
    ],
)
def test_what_no_other_attempt_can_mend_is_told(desk: Desk, fault: Fault, code: FailCode) -> None:
    job = desk.create(asked=KNOBS).job
    shop = Shop(desk)

    def fail(_: int) -> None:
        raise TrainingError(fault)

    shop.trainer.before = fail
    shop.work(3)
    assert (desk.job(job.id).state, desk.job(job.id).fail_code) == (S.FAILED, code)
    assert len(shop.trainer.runs) == 1


def test_every_fault_of_the_trainer_leads_somewhere() -> None:
    again = {Fault.CHECKPOINT_UNFIT, Fault.TRAINER_STUCK, Fault.TRAINER_DIED, Fault.STOPPED}
    assert set(tuning_run._CODE_OF) | again == set(Fault)


def test_a_job_that_is_paused_keeps_one_more_checkpoint_and_goes_on_from_it(desk: Desk) -> None:
    job = desk.create(asked=KNOBS).job
    shop = Shop(desk, trainer=FakeTrainer(checkpoint_every=0))
    own = (desk.organization_id, desk.project_id)

    def pause(step: int) -> None:
        if step == 4 and desk.job(job.id).attempt == 1:
            desk.book.pause(job.id, *own)

    shop.trainer.before = pause
    shop.work(2)
    assert (desk.job(job.id).state, desk.floor.kept(WORK)) == (S.PAUSED, 2)
    shop.work()
    assert desk.job(job.id).state is S.PAUSED
    desk.book.resume(job.id, *own)
    shop.work()
    assert (desk.job(job.id).state, shop.trainer.resumed) == (S.SUCCEEDED, [0, 4])


def test_a_job_that_is_cancelled_ends_its_process_and_keeps_nothing(desk: Desk) -> None:
    job = desk.create(asked=KNOBS).job
    shop = Shop(desk)

    def cancel(step: int) -> None:
        if step == 5:
            desk.book.cancel(job.id, desk.organization_id, desk.project_id)
            shop.tunings.look()

    shop.trainer.before = cancel
    shop.work(2)
    assert desk.job(job.id).state is S.CANCELLED
    assert shop.trainer.runs[0].stopped.is_set()
    shop.look()
    assert (desk.floor.kept(WORK), desk.floor.kept(WEIGHTS)) == (1, 0)


def test_even_who_has_not_been_told_can_keep_nothing_more(desk: Desk) -> None:
    job = desk.create(asked=KNOBS).job
    shop = Shop(desk)

    def cancel(step: int) -> None:
        if step == 6:
            desk.book.cancel(job.id, desk.organization_id, desk.project_id)

    shop.trainer.before = cancel
    shop.work(2)
    assert (desk.job(job.id).state, desk.job(job.id).step) == (S.CANCELLED, 5)
    assert desk.floor.kept(WEIGHTS) == 0


@pytest.mark.parametrize("purge", [False, True])
def test_turning_the_feature_off_ends_what_runs_and_what_is_left_comes_back(desk: Desk, purge: bool) -> None:
    before = desk.create(asked=KNOBS).job
    shop = Shop(desk)
    shop.work(2)
    job = desk.create(asked=KNOBS).job
    office = Office(desk.db, desk.deployment.clock, Fence(desk.db, desk.deployment.clock), desk.deployment.log)
    controls = DataControls(office)
    owner = AdminPrincipal(Id("akey_owner"), desk.organization_id, Role.OWNER, FOREVER_MS)

    def turn_off(step: int) -> None:
        if step == 3:
            patch = Patch(off={Feature.FINE_TUNING: True}, purge=purge)
            assert controls.preview(desk.organization_id, patch)["running_jobs"] == 1
            state = controls.change(desk.organization_id, patch, owner)
            assert state["residual"]["objects"] > 0

    shop.trainer.before = turn_off
    shop.work(2)
    ended = desk.job(job.id)
    assert (ended.state, ended.step, len(shop.trainer.runs)) == (S.CANCELLED, 2, 2)
    desk.deployment.sweeper.sweep_once(confirm=True)
    shop.look()
    controls.change(desk.organization_id, Patch(off={Feature.FINE_TUNING: False}), owner)
    with desk.db.read() as tx:
        served = [one.job_id for one in store.tuned_models(tx, desk.organization_id)]
    assert served == ([] if purge else [before.id])
    assert desk.floor.kept(DataClass.FINE_TUNING_DATASET) == 0 or not purge


def test_a_store_that_fails_costs_a_checkpoint_not_the_training(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    job = desk.create(asked=KNOBS).job
    shop = Shop(desk)
    shop.work()
    vault, put, failures = desk.deployment.vault, type(desk.deployment.vault).put, [StoreFailedError("full")]

    def flaky(*args: Any, **named: Any) -> Any:
        if failures:
            raise failures.pop()
        return put(*args, **named)

    monkeypatch.setattr(type(vault), "put", flaky)
    shop.work()
    assert desk.job(job.id).state is S.SUCCEEDED
    assert told(desk, job.id).count("checkpoint") == 2  # of three


@pytest.mark.parametrize("error", [StoreFailedError("full"), sa.exc.OperationalError("", {}, Exception("away"))])
def test_a_store_that_is_away_for_long_costs_no_training(
    desk: Desk, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = desk.create(asked=KNOBS).job
    shop = Shop(desk)
    shop.work()

    def away(*_: Any, **__: Any) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(tuning_run, "keep_model", away)  # at the very end, again and again
        for _ in range(5):
            with contextlib.suppress(type(error)):
                shop.work()
    assert desk.job(job.id).state is S.RUNNING
    shop.work()
    assert desk.job(job.id).state is S.SUCCEEDED
    assert shop.trainer.resumed == [0, 6, 6, 6, 6, 6]


def test_a_dataset_that_goes_meanwhile(desk: Desk) -> None:
    job = desk.create(asked=KNOBS).job
    shop = Shop(desk)
    shop.work()
    desk.deployment.files.delete(job.training_file_id, desk.organization_id, desk.project_id)
    shop.work()
    assert desk.job(job.id).fail_code is FailCode.FILE_GONE


def test_a_process_that_stops_leaves_its_training_to_the_next(desk: Desk) -> None:
    job = desk.create(asked=KNOBS).job
    first = Shop(desk, trainer=FakeTrainer(checkpoint_every=0))
    first.trainer.before = lambda step: first.tunings.stop() if step == 3 else None
    first.work(2)
    stopped = desk.job(job.id)
    assert (stopped.state, desk.floor.kept(WORK)) == (S.RUNNING, 2)
    second = Shop(desk)
    second.work()
    assert (desk.job(job.id).state, second.trainer.resumed) == (S.SUCCEEDED, [3])


def test_whoever_lost_a_job_to_another_stops(desk: Desk) -> None:
    job = desk.create(asked=KNOBS).job
    slow, quick = Shop(desk), Shop(desk)
    began = threading.Event()

    def overtaken(step: int) -> None:
        if step == 3 and not began.is_set():
            began.set()
            quick.work()

    slow.trainer.before = overtaken
    slow.work(2)
    done = desk.job(job.id)
    assert (done.state, done.attempt) == (S.SUCCEEDED, 2)
    assert slow.trainer.runs[0].step == 3
    with desk.db.read() as tx:
        assert len(store.tuned_models(tx, desk.organization_id)) == 1


def test_a_base_model_that_is_gone(desk: Desk) -> None:
    job = desk.create(asked=KNOBS).job
    shop = Shop(desk, models={})
    shop.work()
    assert desk.job(job.id).fail_code is FailCode.MODEL_GONE


def test_how_far_it_is_can_be_seen_meanwhile(desk: Desk) -> None:
    job = desk.create(asked=KNOBS).job
    shop = Shop(desk)
    seen: list[tuple[float, bool]] = []

    def look(step: int) -> None:
        now = desk.job(job.id)
        seen.append((now.percent, now.seconds_left(desk.clock.now_ms()) is not None))

    shop.trainer.before = look
    shop.work(2)
    assert seen == [(0.0, False), (16.7, True), (33.3, True), (50.0, True), (66.7, True), (83.3, True)]
