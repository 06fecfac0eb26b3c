"""The end of a batch: each line once in one of two files, the work destroyed, and the same after a crash half way."""

import contextlib
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.batches import transitions
from keepless.batches.tables import batch as batch_table
from keepless.batches.values import Batch, BatchState, CancelReason, Counts, Usage
from keepless.clock import DAY_MS
from keepless.db import Database
from keepless.files.tables import file
from keepless.ids import Id, Prefix, mint
from keepless.jobs.finish import Finisher
from keepless.policy.data_class import DataClass
from keepless.vault.errors import NotKeptError
from keepless.vault.states import TombstoneState
from keepless.vault.tables import kept, tombstone
from tests.support.batch_work import LINES, BatchWork, record

WRITES = 9  # transactions that write, of one try that finds what another one has left


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


class DiedError(Exception):
    """The process ends here."""


@pytest.fixture
def before(work: BatchWork, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], None]:
    """Have something happen before a transaction that writes, counted from now on, of all on this database."""

    def at(which: int, what: Callable[[], None]) -> None:
        write, turns = Database.write, itertools.count()

        def counted(database: Database) -> AbstractContextManager[Connection]:
            if next(turns) == which:
                what()
            return write(database)

        monkeypatch.setattr(Database, "write", counted)

    return at


def die(*_: object, **__: object) -> None:
    raise DiedError


def outputs(work: BatchWork) -> set[Id | None]:
    """The files of every output that is kept: None for one that has none."""
    with work.database.read() as tx:
        query = sa.select(file.c.id).select_from(kept).join(file, file.c.object_id == kept.c.id, isouter=True)
        return set(tx.scalars(query.where(kept.c.data_class == DataClass.BATCH_OUTPUT)))


def destroying(work: BatchWork) -> int:
    """How many objects wait for their blobs to be gone."""
    with work.database.read() as tx:
        query = sa.select(sa.func.count()).where(tombstone.c.state == TombstoneState.DESTROYING)
        return int(tx.scalar(query) or 0)


@pytest.fixture
def left(work: BatchWork, monkeypatch: pytest.MonkeyPatch) -> BatchWork:
    """Three lines went well, one did not; and a try that died has left its output."""
    assert work.attempt(0).write([record(1), record(2, well=False)])
    assert work.attempt(1).write([record(3), record(4)])
    finalize(work)
    with monkeypatch.context() as patch, contextlib.suppress(DiedError):
        patch.setattr(transitions, "end", die)
        work.finisher.finish(work.id)
    assert outputs(work) == {work.batch.output_file_id}
    return work


def delivered(work: BatchWork) -> None:
    """All of it, once, and nothing else."""
    batch = work.batch
    assert (batch.state, batch.counts) == (BatchState.COMPLETED, Counts(LINES, 3, 1))
    assert [one["custom_id"] for one in work.result(batch.output_file_id)] == ["id-1", "id-3", "id-4"]
    assert [one["custom_id"] for one in work.result(batch.error_file_id)] == ["id-2"]
    assert outputs(work) == {batch.output_file_id}
    assert (work.files(), work.work(), destroying(work)) == (3, 0, 0)


@pytest.mark.parametrize("which", range(WRITES + 1))
def test_of_two_tries_at_once_one_ends_the_batch_and_the_other_harms_nothing(
    left: BatchWork, before: Callable[[int, Callable[[], None]], None], which: int
) -> None:
    """The second runs as a whole, between any two transactions of the first."""
    done: list[Batch] = []

    def second() -> None:
        left.finisher.finish(left.id)
        done.append(left.batch)

    before(which, second)
    with contextlib.suppress(NotKeptError):  # it was reading journals that the other has purged: a job that failed
        left.finisher.finish(left.id)
    assert len(done) == (which < WRITES)
    assert done in ([], [left.batch])
    delivered(left)


@pytest.mark.parametrize("which", range(WRITES))
def test_a_try_that_dies_anywhere_is_followed_by_one_that_leaves_nothing_of_it(
    left: BatchWork, before: Callable[[int, Callable[[], None]], None], which: int
) -> None:
    before(which, die)
    with contextlib.suppress(DiedError):
        left.finisher.finish(left.id)
    assert outputs(left) <= {left.batch.output_file_id}, "what is kept is named, at any moment"
    left.finisher.finish(left.id)
    left.shelf.sweeper.sweep_once(confirm=True)
    delivered(left)


def test_two_tries_that_go_on_step_by_step_end_one_batch(left: BatchWork, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have read all of it before either keeps anything."""
    sort, both = Finisher._sort, threading.Barrier(2)

    def together(*arguments: Any) -> bool:
        undone = sort(*arguments)
        both.wait(60)
        return undone

    monkeypatch.setattr(Finisher, "_sort", together)
    with ThreadPoolExecutor(2) as pool:
        for one in [pool.submit(left.finisher.finish, left.id) for _ in range(2)]:
            one.result(60)
    delivered(left)


@pytest.mark.parametrize("which", range(WRITES))
def test_nothing_is_delivered_of_a_batch_that_the_policy_ends_meanwhile(
    left: BatchWork, before: Callable[[int, Callable[[], None]], None], which: int
) -> None:
    cancelled: list[Id] = []

    def cancel() -> None:
        with left.database.write() as tx:
            cancelled.extend(transitions.cancel_at_once(tx, [left.id], left.rig.clock.now_ms()))

    before(which, cancel)
    left.finisher.finish(left.id)
    if not cancelled:
        delivered(left)
        return
    batch = left.batch
    assert (batch.state, batch.cancel_reason) == (BatchState.CANCELLED, CancelReason.POLICY)
    assert (batch.output_file_id, batch.error_file_id, outputs(left)) == (None, None, set())
    assert (left.files(), left.work(), destroying(left)) == (1, 0, 0)


def test_what_the_policy_does_not_allow_any_more_is_ended_without_results(
    left: BatchWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(left.finisher, "_policy_now", lambda *_: None)
    left.finisher.finish(left.id)
    assert (left.batch.state, left.batch.cancel_reason) == (BatchState.CANCELLED, CancelReason.POLICY)
    assert (left.batch.output_file_id, outputs(left), left.files(), left.work()) == (None, set(), 1, 0)
