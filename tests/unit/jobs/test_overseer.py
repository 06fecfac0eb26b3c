"""What the overseer submits, ends and destroys, from the rows of batches alone; one look at a time, no thread."""

from typing import Any

import pytest
import sqlalchemy as sa

from keepless.batches import store, transitions
from keepless.batches.shards import ShardPlan, finish, take
from keepless.batches.tables import batch as batch_table
from keepless.batches.tables import batch_journal
from keepless.batches.values import BatchEndpoint, BatchState, CancelReason, NewBatch
from keepless.clock import DAY_MS
from keepless.db import Database
from keepless.ids import Id, Prefix, mint
from keepless.jobs.liveness import Roll
from keepless.jobs.overseer import Overseer
from keepless.jobs.port import JobKind
from tests.support.accounts import make_organization
from tests.support.clock import FakeClock


class FakeJobs:
    """What was submitted, in order; `active` is what waits or runs."""

    def __init__(self) -> None:
        self.submitted: list[tuple[JobKind, str, int]] = []
        self.waiting: set[str] = set()
        self.cared = 0

    def submit(self, kind: JobKind, job_id: str, *arguments: Id | int, priority: int = 1) -> None:
        assert job_id.startswith(str(arguments[0]))
        self.submitted.append((kind, job_id, priority))
        self.waiting.add(job_id)

    def active(self) -> set[str]:
        return set(self.waiting)

    def cancel(self, job_ids: set[str]) -> None:
        self.waiting -= job_ids

    def rescue(self) -> int:
        self.cared += 1
        return 0

    def forget(self) -> int:
        return 0

    def close(self) -> None:
        """Nothing to close."""


class Watched:
    """One overseer over a database; it is also what runs in its process."""

    def __init__(self, database: Database) -> None:
        self.database, self.clock, self.jobs = database, FakeClock(), FakeJobs()
        self.told: list[dict[Id, BatchState]] = []
        self.purged: list[Id] = []
        self.believed = True
        self.owner = make_organization(database)
        self.overseer = Overseer(database, self.clock, lambda: self.jobs, self, believes=lambda: self.believed)

    def tell(self, states: dict[Id, BatchState]) -> None:
        self.told.append(states)

    def purge(self, batch_id: Id) -> None:
        self.purged.append(batch_id)

    def add(self, shards: int = 0, owner: tuple[Id, Id] | None = None) -> Id:
        """A batch; with shards it runs."""
        what = NewBatch(*(owner or self.owner), mint(Prefix.API_KEY), BatchEndpoint.CHAT, mint(Prefix.FILE), DAY_MS)
        with self.database.write() as tx:
            made = store.create(tx, what, self.clock.now_ms())[0].id
            if shards:
                plan = [ShardPlan(at + 1, 1, at, at + 1) for at in range(shards)]
                transitions.start(tx, made, plan, self.clock.now_ms())
        return made

    def done(self, batch_id: Id, number: int) -> None:
        """A shard has ended."""
        with self.database.write() as tx:
            shard = take(tx, batch_id, number)
            assert shard is not None
            assert finish(tx, shard)
        self.jobs.waiting = {one for one in self.jobs.waiting if not one.startswith(f"{batch_id}.s{number}.")}

    def look(self) -> list[tuple[JobKind, str, int]]:
        """What one look submits."""
        self.jobs.submitted.clear()
        self.overseer.look()
        return list(self.jobs.submitted)

    def state(self, batch_id: Id) -> Any:
        with self.database.read() as tx:
            return tx.execute(sa.select(batch_table.c.state).where(batch_table.c.id == batch_id)).scalar_one()


@pytest.fixture
def watched(database: Database) -> Watched:
    return Watched(database)


def test_a_new_batch_is_validated_once(watched: Watched) -> None:
    made = watched.add()
    assert watched.look() == [(JobKind.BATCH_VALIDATE, f"{made}.v", 1)]
    assert watched.look() == []
    assert watched.told[-1] == {made: BatchState.VALIDATING}
    watched.jobs.waiting.clear()  # a job store that was lost is filled again
    assert len(watched.look()) == 1


def test_new_batches_are_validated_in_turn_whoever_came_first(watched: Watched) -> None:
    other = make_organization(watched.database)
    names = []
    for owner in (None, None, other):
        names.append(f"{watched.add(owner=owner)}.v")
        watched.clock.advance_ms(1)
    first, second, theirs = names
    assert [name for _, name, _ in watched.look()] == [first, theirs, second]


def test_by_a_clock_that_nobody_believes_no_batch_is_forgotten(watched: Watched) -> None:
    made = watched.add()
    with watched.database.write() as tx:
        transitions.expire_unstarted(tx, watched.clock.now_ms() + 2 * DAY_MS)
    watched.clock.jump_ms(400 * DAY_MS)
    watched.believed = False
    watched.look()
    assert watched.state(made) is BatchState.EXPIRED
    watched.believed = True
    watched.clock.advance_ms(61_000)
    watched.look()
    with watched.database.read() as tx:
        assert store.get(tx, made) is None


def test_three_shards_of_a_batch_at_a_time_until_all_are_done(watched: Watched) -> None:
    made = watched.add(shards=5)
    assert [name for _, name, _ in watched.look()] == [f"{made}.s{at}.0" for at in range(3)]
    watched.done(made, 1)
    assert [name for _, name, _ in watched.look()] == [f"{made}.s3.0"]
    for number in (0, 2, 3, 4):
        watched.done(made, number)
    assert watched.look() == []
    assert watched.state(made) is BatchState.FINALIZING
    assert watched.look() == [(JobKind.BATCH_FINISH, f"{made}.f", 1)]


def test_each_process_that_runs_jobs_can_have_three_shards_up_to_twelve(watched: Watched) -> None:
    made = watched.add(shards=20)
    for _ in range(2):
        Roll(watched.database, watched.clock).beat()
    assert [name for _, name, _ in watched.look()] == [f"{made}.s{at}.0" for at in range(6)]
    for _ in range(5):
        Roll(watched.database, watched.clock).beat()
    assert [name for _, name, _ in watched.look()] == [f"{made}.s{at}.0" for at in range(6, 12)]


def test_second_batches_stand_behind_the_first_of_others(watched: Watched) -> None:
    first = watched.add(shards=3)
    watched.clock.advance_ms(1)
    second = watched.add(shards=3)
    watched.clock.advance_ms(1)
    other = watched.add(shards=3, owner=make_organization(watched.database))
    priorities = {name.partition(".")[0]: priority for _, name, priority in watched.look() if ".s0." in name}
    assert priorities == {first: 1, second: 4, other: 1}


def test_a_shard_that_was_lost_is_submitted_as_another_attempt(watched: Watched) -> None:
    made = watched.add(shards=1)
    watched.look()
    with watched.database.write() as tx:
        assert take(tx, made, 0) is not None
    watched.jobs.waiting.clear()
    assert watched.look() == [(JobKind.BATCH_SHARD, f"{made}.s0.1", 1)]


@pytest.mark.parametrize("shards", [0, 2], ids=["not begun", "running"])
def test_at_the_end_of_its_window_a_batch_ends(watched: Watched, shards: int) -> None:
    made = watched.add(shards=shards)
    watched.look()
    watched.jobs.waiting.clear()
    watched.clock.advance_ms(DAY_MS)
    assert watched.look() == []
    assert watched.state(made) is (BatchState.FINALIZING if shards else BatchState.EXPIRED)


def test_a_cancelled_batch_waits_for_its_shards_but_not_for_ever(watched: Watched) -> None:
    made = watched.add(shards=1)
    watched.look()
    with watched.database.write() as tx:
        transitions.request_cancel(tx, made, CancelReason.CUSTOMER, watched.clock.now_ms())
    assert watched.look() == []
    assert watched.told[-1] == {made: BatchState.CANCELLING}
    watched.clock.advance_ms(15_000)
    assert watched.look() == [(JobKind.BATCH_FINISH, f"{made}.f", 1)]


def test_what_has_failed_is_tried_again_after_a_longer_and_longer_pause(watched: Watched) -> None:
    made = watched.add()
    for pause_ms in (2_000, 4_000, 8_000):
        watched.look()
        watched.jobs.waiting.clear()
        watched.overseer.failed(f"{made}.v")
        watched.clock.advance_ms(pause_ms - 1)
        assert watched.look() == []
        watched.clock.advance_ms(1)
        assert len(watched.look()) == 1
    watched.overseer.succeeded(f"{made}.v")
    watched.jobs.waiting.clear()
    assert len(watched.look()) == 1


def test_work_that_a_batch_has_left_is_destroyed(watched: Watched) -> None:
    made, going = watched.add(), watched.add(shards=1)
    with watched.database.write() as tx:
        transitions.cancel_at_once(tx, [made], watched.clock.now_ms())
        for batch_id in (made, going):
            row = {"object_id": mint(Prefix.OBJECT), "batch_id": batch_id, "shard": 0, "attempt": 1}
            tx.execute(batch_journal.insert().values(**row))
    watched.look()
    assert watched.purged == [made]
    assert watched.jobs.cared == 1
    watched.look()
    assert watched.jobs.cared == 1  # not at every look
    watched.clock.advance_ms(2_000)
    watched.look()
    assert watched.jobs.cared == 2
