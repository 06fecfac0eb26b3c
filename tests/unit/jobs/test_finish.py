"""The end of a batch: each line once in one of two files, the work destroyed, and the same after a crash half way."""

from pathlib import Path

import pytest

from keepless.batches import transitions
from keepless.batches.tables import batch as batch_table
from keepless.batches.values import BatchState, CancelReason, Counts, Usage
from keepless.clock import DAY_MS
from keepless.db import Database
from keepless.ids import Prefix, mint
from tests.support.batch_work import LINES, BatchWork, record


@pytest.fixture
def work(database: Database, tmp_path: Path) -> BatchWork:
    return BatchWork(database, tmp_path)


def finalize(work: BatchWork) -> None:
    with work.database.write() as tx:
        assert transitions.finalize(tx, work.id, work.rig.clock.now_ms())


def test_every_line_once_whatever_was_recorded_twice(work: BatchWork) -> None:
    assert work.attempt(0).write([record(1), record(2, well=False)])
    assert work.attempt(0).write([record(1, words="twice"), record(2, words="twice")])
    assert work.attempt(1).write([record(4), record(3)])
    finalize(work)
    work.finisher.finish(work.id)
    batch = work.batch
    assert (batch.state, batch.counts) == (BatchState.COMPLETED, Counts(LINES, 3, 1))
    output, errors = work.result(batch.output_file_id), work.result(batch.error_file_id)
    assert [one["custom_id"] for one in output] == ["id-1", "id-4", "id-3"]
    assert [one["custom_id"] for one in errors] == ["id-2"]
    assert {one["response"]["body"]["answer"] for one in output + errors} == {"ok"}
    assert batch.usage == Usage(6, 0, 9, 0)
    assert work.work() == 0
    work.finisher.finish(work.id)  # a job may run twice
    assert (work.batch, work.files()) == (batch, 3)


@pytest.mark.parametrize(
    ("reason", "state", "code"),
    [
        (None, BatchState.EXPIRED, "batch_expired"),
        (CancelReason.CUSTOMER, BatchState.CANCELLED, "batch_cancelled"),
    ],
    ids=["window", "cancelled"],
)
def test_what_was_not_run_says_why(work: BatchWork, reason: CancelReason | None, state: BatchState, code: str) -> None:
    assert work.attempt(0).write([record(1)])
    if reason is None:
        work.rig.clock.advance_ms(DAY_MS)
        work.rig.guard.check()  # as housekeeping does every hour
        finalize(work)
    else:
        with work.database.write() as tx:
            assert transitions.request_cancel(tx, work.id, reason, work.rig.clock.now_ms())
    work.finisher.finish(work.id)
    batch = work.batch
    assert batch.state is state
    assert [one["custom_id"] for one in work.result(batch.output_file_id)] == ["id-1"]
    told = [(one["custom_id"], one["error"]["code"]) for one in work.result(batch.error_file_id)]
    assert told == [(f"id-{at}", code) for at in (2, 3, 4)]


def test_without_its_input_a_batch_keeps_what_is_done(work: BatchWork) -> None:
    assert work.attempt(0).write([record(1)])
    work.shelf.files.delete(work.input.id, *work.owner)
    with work.database.write() as tx:
        assert transitions.request_cancel(tx, work.id, CancelReason.INPUT_DELETED, work.rig.clock.now_ms())
    work.finisher.finish(work.id)
    batch = work.batch
    assert [one["custom_id"] for one in work.result(batch.output_file_id)] == ["id-1"]
    assert batch.error_file_id is None


def test_what_a_crash_has_left_of_an_output_is_destroyed_first(work: BatchWork) -> None:
    assert work.attempt(0).write([record(1)])
    left = work.shelf.keep(work.owner, b"half of the results\n")
    with work.database.write() as tx:
        tx.execute(batch_table.update().values(output_file_id=left.id))
    finalize(work)
    work.finisher.finish(work.id)
    assert work.batch.output_file_id != left.id
    assert work.files() == 3  # input, output, errors


def test_a_running_batch_is_not_ended_nor_its_work_destroyed(work: BatchWork) -> None:
    assert work.attempt(0).write([record(1)])
    work.finisher.finish(work.id)
    work.finisher.finish(mint(Prefix.BATCH))
    assert (work.batch.state, work.work()) == (BatchState.IN_PROGRESS, 1)
