"""The state machine in rows, on both databases: every pair of states, what each change leaves behind."""

import pytest

from keepless.db import Database
from keepless.ids import Id, Prefix, mint
from keepless.tuning import checkpoints, store, transitions
from keepless.tuning.faults import MOST_FAULTS, Fault, FaultCode, FaultFile, FaultParam
from keepless.tuning.tables import tuning_job
from keepless.tuning.values import (
    AUTO,
    NEXT,
    TERMINAL,
    CancelReason,
    Checkpoint,
    EventCode,
    FailCode,
    Job,
    Metrics,
    TuningState,
)
from keepless.webhooks.events import EventType, mask_of
from keepless.webhooks.tables import webhook_delivery, webhook_endpoint
from tests.unit.tuning.rig import NOW, made, new, weights

LATER = NOW + 1000
S = TuningState


def at(database: Database, job_id: Id) -> Job:
    with database.read() as tx:
        found = store.get(tx, job_id)
    assert found is not None
    return found


def running(database: Database) -> Job:
    job = made(database, new(database))
    with database.write() as tx:
        assert transitions.queue(tx, job.id, 20, AUTO.chosen(20), NOW)
        taken = transitions.take(tx, job.id, NOW, None)
    assert taken is not None
    return taken


def change(database: Database, job: Job, to: TuningState) -> bool:
    object_id = weights(database, job)
    with database.write() as tx:
        match to:
            case S.QUEUED if job.state is S.PAUSED:
                return transitions.resume(tx, job.id, LATER)
            case S.QUEUED:
                return transitions.queue(tx, job.id, 20, AUTO.chosen(20), LATER)
            case S.RUNNING:
                return job.state is not S.RUNNING and transitions.take(tx, job.id, LATER, None) is not None
            case S.PAUSED:
                return transitions.pause(tx, job.id, LATER)
            case S.SUCCEEDED:
                return transitions.succeed(tx, job, object_id, LATER, rank=8, tokens=9)
            case S.FAILED:
                return transitions.fail(tx, job.id, FailCode.INTERNAL, LATER)
            case S.CANCELLED:
                return transitions.cancel(tx, job.id, CancelReason.CUSTOMER, LATER)
            case _:
                return False


@pytest.mark.parametrize("before", TuningState)
def test_a_state_is_followed_only_by_what_may_follow(database: Database, before: TuningState) -> None:
    for to in TuningState:
        job = made(database, new(database))
        with database.write() as tx:
            tx.execute(tuning_job.update().where(tuning_job.c.id == job.id).values(state=before))
        may = to in NEXT[before]
        assert change(database, at(database, job.id), to) is may, to
        found = at(database, job.id)
        assert found.state is (to if may else before)
        assert (found.finished_at == LATER) is (may and to in TERMINAL)


def test_whoever_takes_a_job_shuts_out_whoever_had_it(database: Database) -> None:
    first = running(database)
    with database.write() as tx:
        assert transitions.advance(tx, first, NOW, step=1, total=30, tokens=50, metrics=Metrics(2.0, 0.1))
        assert transitions.own(tx, first)
        second = transitions.take(tx, first.id, LATER, 1)
    assert second is not None
    with database.write() as tx:
        assert not transitions.own(tx, first)
        assert not transitions.advance(tx, first, LATER, step=2, total=30, tokens=99)
        assert not transitions.succeed(tx, first, mint(Prefix.OBJECT), LATER, rank=8, tokens=1)
        assert not transitions.fail(tx, first.id, FailCode.INTERNAL, LATER, attempt=first.attempt)
        assert transitions.advance(tx, second, LATER, step=3, total=30, tokens=80)
    found = at(database, first.id)
    assert (found.step, found.total, found.tokens, found.attempt) == (3, 30, 80, 2)
    assert (found.begun_at, found.begun_step, found.running_at) == (LATER, 3, NOW)
    with database.read() as tx:
        told = [one.code for one in reversed(store.events_of(tx, first.id, limit=10))]
    assert told == [EventCode.VALIDATED, EventCode.STARTED, EventCode.METRICS, EventCode.GOES_ON]


def test_a_job_that_was_paused_is_not_taken_until_it_is_resumed(database: Database) -> None:
    job = running(database)
    with database.write() as tx:
        assert transitions.pause(tx, job.id, NOW)
        assert not transitions.pause(tx, job.id, NOW)
        assert transitions.take(tx, job.id, NOW, None) is None
        assert not transitions.advance(tx, job, NOW, step=1, total=2, tokens=1)
        assert transitions.resume(tx, job.id, LATER)
        assert transitions.take(tx, job.id, LATER, 5) is not None
    found = at(database, job.id)
    assert (found.state, found.step, found.paused_at) == (S.RUNNING, 5, NOW)


def test_the_first_faults_are_kept_in_order_and_all_are_counted(database: Database) -> None:
    job = made(database, new(database))
    faults = [Fault(FaultFile.TRAINING, None, FaultCode.TOO_FEW_EXAMPLES)]
    faults += [Fault(FaultFile.VALIDATION, line, FaultCode.MISSING, FaultParam.ROLE) for line in range(1, 200)]
    with database.write() as tx:
        assert transitions.fail(tx, job.id, FailCode.TRAINING_FILE, LATER, faults=faults, found=5000)
    with database.read() as tx:
        assert store.faults_of(tx, job.id) == faults[:MOST_FAULTS]
    assert (at(database, job.id).fail_code, at(database, job.id).faults) == (FailCode.TRAINING_FILE, 5000)


def test_a_policy_ends_every_active_job_at_once_and_leaves_the_others(database: Database) -> None:
    first, second, over = running(database), made(database, new(database)), made(database, new(database))
    with database.write() as tx:
        transitions.fail(tx, over.id, FailCode.INTERNAL, NOW)
        changed = transitions.cancel_at_once(tx, [first.id, second.id, over.id], LATER)
        assert not transitions.own(tx, first)
    assert set(changed) == {first.id, second.id}
    assert at(database, first.id).cancel_reason is CancelReason.POLICY
    assert at(database, over.id).state is S.FAILED


def test_ends_are_announced_once(database: Database) -> None:
    job = running(database)
    kinds = [EventType.TUNING_SUCCEEDED, EventType.TUNING_FAILED, EventType.TUNING_CANCELLED]
    with database.write() as tx:
        tx.execute(
            webhook_endpoint.insert().values(
                id=mint(Prefix.WEBHOOK), organization_id=job.organization_id, url="https://example.com/", name="n",
                events=mask_of(kinds), created_at=0, updated_at=0, salt=b"s" * 32, hint="abcd",
            )
        )  # fmt: skip
    object_id = weights(database, job)
    with database.write() as tx:
        assert transitions.succeed(tx, job, object_id, LATER, rank=16, tokens=500)
        assert not transitions.cancel(tx, job.id, CancelReason.CUSTOMER, LATER)
        rows = tx.execute(webhook_delivery.select()).all()
    assert [(row.event_type, row.subject_id) for row in rows] == [(EventType.TUNING_SUCCEEDED, job.id)]
    assert at(database, job.id).tokens == 500


def test_the_newest_checkpoints_stay_while_a_job_runs(database: Database) -> None:
    job = running(database)
    objects = [weights(database, job) for _ in range(4)]
    with database.write() as tx:
        for step, object_id in enumerate(objects):
            checkpoints.add(tx, Checkpoint(mint(Prefix.CHECKPOINT), job.id, object_id, step, NOW, Metrics(1.5)))
        assert [one.step for one in checkpoints.of_job(tx, job.id)] == [3, 2, 1, 0]
        assert set(checkpoints.older(tx, job.id)) == set(objects[:2])
        checkpoints.drop(tx, objects[:2])
        assert checkpoints.ended_with_work(tx) == []
        assert store.forget(tx, NOW, job_ids=[job.id]) == []  # never one whose work is kept
        transitions.cancel(tx, job.id, CancelReason.CUSTOMER, LATER)
        assert checkpoints.ended_with_work(tx) == [job.id]
        assert set(checkpoints.older(tx, job.id, 0)) == set(objects[2:])
