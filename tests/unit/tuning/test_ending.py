"""The end of a fine-tuning: nothing is left, whoever dies in between; a hold keeps all of it."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import sqlalchemy as sa

from keepless.accounts.fence import Fence
from keepless.app.tunings import policy_reader
from keepless.content import Content
from keepless.errors import Code, Problem
from keepless.expiry.purge import Deletion, Outcome
from keepless.ids import Id, Prefix, mint
from keepless.jobs.tuning_run import NotTheirsError, Permits, Result, TuningRun, keep_model
from keepless.policy.data_class import DataClass
from keepless.policy.hold import HoldAuthority, HoldReason
from keepless.receipts.statement import EntryKind
from keepless.training.order import Checkpoint as Saved
from keepless.tuning import checkpoints, store, transitions
from keepless.tuning.ending import Ending
from keepless.tuning.names import name_of, parse_name
from keepless.tuning.tables import tuned_model, tuning_checkpoint, tuning_event, tuning_job
from keepless.tuning.values import AUTO, CancelReason, Checkpoint, Job, TuningState
from keepless.vault.rows import Kept
from keepless.vault.tables import legal_hold
from tests.support.tuning import BASE, Desk
from tests.support.vault import CrashError

WORK, WEIGHTS = DataClass.FINE_TUNING_WORK, DataClass.MODEL_WEIGHTS


def checkpointed(desk: Desk, job: Job, step: int = 1) -> None:
    def within(tx: sa.Connection, kept: Kept) -> None:
        checkpoints.add(tx, Checkpoint(mint(Prefix.CHECKPOINT), job.id, kept.id, step, kept.created_at))

    desk.deployment.vault.put(Content(b"checkpoint"), desk.floor.permit(WORK), within=within)


def running(desk: Desk, name: bytes = b"mine") -> Job:
    job = desk.create(name=name).job
    with desk.db.write() as tx:
        transitions.queue(tx, job.id, 12, AUTO.chosen(12), 1)
        taken = transitions.take(tx, job.id, 1, None)
    assert taken is not None
    return taken


def trained(desk: Desk, name: bytes = b"mine") -> Job:
    taken = running(desk, name)

    def within(tx: sa.Connection, kept: Kept) -> None:
        assert transitions.succeed(tx, taken, kept.id, 2, rank=16, tokens=9)

    with desk.deployment.vault.writing(desk.organization_id) as writer:
        writer.write(Content(b"weights"))
        writer.commit(desk.floor.permit(WEIGHTS), label=Content(name), within=within)
    checkpointed(desk, taken)
    return desk.job(taken.id)


def left(desk: Desk) -> list[int]:
    with desk.db.read() as tx:
        tables = (tuning_job, tuning_event, tuning_checkpoint, tuned_model)
        rows = [tx.execute(sa.select(sa.func.count()).select_from(one)).scalar_one() for one in tables]
    return [*rows, desk.floor.kept(WORK), desk.floor.kept(WEIGHTS)]


def test_a_model_is_found_by_its_name_and_deleted_with_its_job(desk: Desk) -> None:
    job, other = trained(desk), trained(desk, b"other")
    own = (desk.organization_id, desk.project_id)
    for wrong in (
        name_of(BASE, desk.organization_id, "other", job.hexadecimal),
        name_of("else", desk.organization_id, "mine", job.hexadecimal),
        name_of(BASE, mint(Prefix.ORGANIZATION), "mine", job.hexadecimal),
        "nonsense",
    ):
        with pytest.raises(Problem) as problem:
            desk.ending.delete_model(parse_name(wrong), *own)
        assert (problem.value.status, problem.value.code) == (404, Code.MODEL_NOT_FOUND)
    named = parse_name(name_of(BASE, desk.organization_id, "mine", job.hexadecimal))
    with pytest.raises(Problem):
        desk.ending.delete_model(named, desk.organization_id, mint(Prefix.PROJECT))
    with desk.db.read() as tx:
        before = desk.deployment.log.entries(tx, kinds=[EntryKind.DELETED], limit=100)
    desk.ending.delete_model(named, *own)
    with desk.db.read() as tx:
        after = desk.deployment.log.entries(tx, kinds=[EntryKind.DELETED], limit=100)
        assert [one.job_id for one in store.tuned_models(tx)] == [other.id]
        assert store.any_job(tx, job.id, *own) is None
    assert len(after) - len(before) == 3  # weights, checkpoint, name: one receipt each


def test_nothing_is_left_of_a_job_that_was_running(desk: Desk) -> None:
    taken = job = running(desk)
    checkpointed(desk, taken)
    assert desk.ending.delete_job(job.id, desk.organization_id, desk.project_id) == job.id
    assert left(desk) == [0] * 6
    with desk.db.write() as tx:
        assert not transitions.own(tx, taken)  # its worker can keep nothing any more
    with pytest.raises(Problem) as problem:
        desk.ending.delete_job(job.id, desk.organization_id, desk.project_id)
    assert problem.value.status == 404


class Beside(threading.Thread):
    """Somebody else at the same time, and what he is told."""

    def __init__(self, act: Callable[[], Any]) -> None:
        super().__init__(daemon=True)
        self._act = act
        self.error: BaseException | None = None
        self.answer: Any = None

    def run(self) -> None:
        try:
            self.answer = self._act()
        except (NotTheirsError, Problem, sa.exc.DBAPIError) as error:
            self.error = error

    def for_a_moment(self) -> None:
        """Begin, and go on until it is done or waits for a lock."""
        self.start()
        self.join(1)

    def ended(self) -> "Beside":
        self.join(30)
        assert not self.is_alive()
        return self


def keeps_weights(desk: Desk, job: Job) -> None:
    permits = Permits(policy_reader(desk.deployment), desk.clock, job)
    keep_model(desk.deployment.vault, permits, Content(b"mine"), Result(Content(b"weights"), 16, 9))


def keeps_checkpoint(desk: Desk, job: Job) -> None:
    run = TuningRun(
        desk.db, desk.deployment.vault, desk.clock, policy_now=policy_reader(desk.deployment), trainer=never,
        drop_work=lambda *_: None, job=job, name=Content(b"mine"),
    )  # fmt: skip
    run._save(Saved(step=1, content=Content(b"checkpoint")))


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError


KEEPS = [keeps_weights, keeps_checkpoint]


@pytest.mark.parametrize("keeps", KEEPS)
def test_what_a_worker_keeps_while_its_job_is_being_deleted_is_refused(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, keeps: Callable[[Desk, Job], None]
) -> None:
    job, model_of = running(desk), store.model_of
    worker = Beside(lambda: keeps(desk, job))

    def meanwhile(tx: sa.Connection, job_id: Id) -> Any:
        found = model_of(tx, job_id)
        if worker.ident is None:
            worker.for_a_moment()
        return found

    monkeypatch.setattr(store, "model_of", meanwhile)
    desk.ending.delete_job(job.id, desk.organization_id, desk.project_id)
    assert isinstance(worker.ended().error, NotTheirsError)
    assert left(desk) == [0] * 6


@pytest.mark.parametrize(("keeps", "by"), [(keeps_weights, "succeed"), (keeps_checkpoint, "own")])
def test_what_a_worker_keeps_just_before_its_job_is_deleted_goes_with_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, keeps: Callable[[Desk, Job], None], by: str
) -> None:
    job, locked = running(desk), getattr(transitions, by)
    deleter = Beside(lambda: desk.ending.delete_job(job.id, desk.organization_id, desk.project_id))

    def meanwhile(*given: Any, **more: Any) -> Any:
        found = locked(*given, **more)
        deleter.for_a_moment()
        return found

    monkeypatch.setattr(transitions, by, meanwhile)
    keeps(desk, job)
    assert deleter.ended().answer == job.id
    assert left(desk) == [0] * 6


def test_two_deletions_at_once_do_not_stand_in_each_others_way(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    job, forget = trained(desk), store.forget
    own = (desk.organization_id, desk.project_id)
    second = Beside(lambda: desk.ending.delete_job(job.id, *own))

    def meanwhile(*given: Any, **more: Any) -> list[Id]:
        if second.ident is None:
            second.for_a_moment()
        return forget(*given, **more)

    monkeypatch.setattr(store, "forget", meanwhile)
    assert desk.ending.delete_job(job.id, *own) == job.id
    told = second.ended().error
    assert isinstance(told, Problem)
    assert told.status == 404
    assert left(desk) == [0] * 6


class Dying:
    """Deletes objects until it dies."""

    def __init__(self, desk: Desk, after: int) -> None:
        self._sweeper, self._left = desk.deployment.sweeper, after

    def delete_object(self, organization_id: Id, object_id: Id) -> Deletion:
        if self._left == 0:
            raise CrashError
        self._left -= 1
        return self._sweeper.delete_object(organization_id, object_id)

    def end_job(self, object_ids: Sequence[Id]) -> bool:
        return self._sweeper.end_job(object_ids)


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("how", ["again", "round"])
def test_a_deletion_that_was_begun_is_finished(desk: Desk, after: int, how: str) -> None:
    job = trained(desk)
    own = (desk.organization_id, desk.project_id)
    db, clock, vault = desk.db, desk.clock, desk.deployment.vault
    with pytest.raises(CrashError):
        Ending(db, clock, vault, Dying(desk, after), Fence(db, clock)).delete_job(job.id, *own)
    with desk.db.read() as tx:  # gone for everybody, as soon as it was begun
        assert store.tuned_models(tx) == []
    with pytest.raises(Problem):
        desk.book.get(job.id, *own)
    if how == "again":
        desk.ending.delete_job(job.id, *own)
    else:
        assert desk.ending.finish() == 1
    assert left(desk) == [0] * 6


def test_a_store_that_does_not_answer_is_told_and_the_same_call_finishes(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = trained(desk)
    own = (desk.organization_id, desk.project_id)
    with monkeypatch.context() as patch:
        sweeper = desk.deployment.sweeper
        patch.setattr(type(sweeper), "delete_object", lambda *_: Deletion(Outcome.PENDING))
        with pytest.raises(Problem) as problem:
            desk.ending.delete_job(job.id, *own)
    assert (problem.value.status, problem.value.code) == (503, Code.DELETION_PENDING)
    desk.ending.delete_job(job.id, *own)
    assert left(desk) == [0] * 6


def test_a_hold_on_any_part_keeps_the_whole(desk: Desk) -> None:
    job = trained(desk)
    before = left(desk)
    hold_id = _hold(desk, job.order_object_id)
    with pytest.raises(Problem) as problem:
        desk.ending.delete_job(job.id, desk.organization_id, desk.project_id)
    assert (problem.value.status, problem.value.code) == (423, Code.HELD)
    assert str(hold_id) in problem.value.message
    assert left(desk) == before
    assert desk.job(job.id).deleting_at is None


def _hold(desk: Desk, object_id: Id) -> Id:
    hold_id = mint(Prefix.HOLD)
    with desk.db.write() as tx:
        tx.execute(
            legal_hold.insert().values(
                id=hold_id, organization_id=desk.organization_id, object_id=object_id, reason=HoldReason.LITIGATION,
                authority=HoldAuthority.COUNSEL, reference="1/26", placed_by=mint(Prefix.OPERATOR_KEY), placed_at=1,
                review_at=2,
            )
        )  # fmt: skip
    return hold_id


def test_the_rounds_remove_what_the_end_of_objects_has_left(desk: Desk) -> None:
    job, running = trained(desk), desk.create().job
    desk.deployment.sweeper.delete_object(desk.organization_id, job.order_object_id)
    desk.ending.forget_dead()  # the job's history is over, and with it its checkpoints; the model stays
    assert left(desk)[0] == 1
    assert left(desk)[2:] == [0, 1, 1, 1]
    with desk.db.read() as tx:
        (model,) = store.tuned_models(tx)
    desk.deployment.sweeper.delete_object(desk.organization_id, model.object_id)
    desk.deployment.sweeper.delete_object(desk.organization_id, desk.create().job.order_object_id)
    assert desk.ending.forget_dead() == 2
    assert left(desk) == [1, 1, 0, 0, 1, 0]
    assert desk.job(running.id).state is TuningState.VALIDATING


def test_the_work_of_a_job_that_has_ended_is_destroyed(desk: Desk) -> None:
    job = trained(desk)
    desk.ending.drop_work(job.id)
    assert (desk.floor.kept(WORK), desk.floor.kept(WEIGHTS)) == (1, 1)
    other = desk.create().job
    checkpointed(desk, other)
    desk.ending.forget_dead()
    assert desk.floor.kept(WORK) == 3  # that one has not ended
    with desk.db.write() as tx:
        transitions.cancel(tx, other.id, CancelReason.CUSTOMER, 5)
    desk.ending.forget_dead()
    assert desk.floor.kept(WORK) == 2
