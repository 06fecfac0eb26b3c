"""What is recorded of a shard: read back by the next attempt, refused of an earlier one, under the policy of now."""

from pathlib import Path

import pytest
import sqlalchemy as sa

from keepless.accounts import tables as accounts
from keepless.batches import shards, transitions
from keepless.batches.values import Counts
from keepless.db import Database
from keepless.jobs.journal import write_together
from tests.support.batch_work import LINES, BatchWork, record


@pytest.fixture
def work(database: Database, tmp_path: Path) -> BatchWork:
    return BatchWork(database, tmp_path)


def test_the_next_attempt_finds_what_was_recorded_and_counts_it_once(work: BatchWork) -> None:
    first = work.attempt(0)
    assert first.recorded() == set()
    assert first.write([record(1), record(2, well=False)])
    assert work.batch.counts == Counts(LINES, 1, 1)
    second = work.attempt(0)
    assert second.recorded() == {1, 2}
    assert second.write([record(1)])  # a group whose commit was not heard of, once more
    assert work.batch.counts == Counts(LINES, 1, 1)
    assert second.finish()


def test_an_earlier_attempt_writes_nothing_any_more(work: BatchWork) -> None:
    first, second = work.attempt(0), work.attempt(0)
    assert not first.write([record(1)])
    assert (work.work(), work.batch.counts) == (0, Counts(LINES, 0, 0))  # not even an empty journal
    assert second.write([record(2)])
    assert not first.finish()
    assert not first.tell()
    assert work.attempt(0).recorded() == {2}


def test_groups_of_several_shards_stand_or_fall_alone(work: BatchWork) -> None:
    lost, other = work.attempt(0), work.attempt(1)
    assert lost.write([record(1)])
    work.attempt(0)  # somebody took it
    assert write_together([(lost, [record(2)]), (other, [record(3), record(4)])]) == [False, True]
    assert work.batch.counts == Counts(LINES, 3, 0)


def test_after_a_change_of_policy_the_group_goes_into_another_journal(work: BatchWork) -> None:
    journal = work.attempt(0)
    assert journal.write([record(1)])
    with work.database.write() as tx:
        tx.execute(accounts.organization.update().values(epoch=accounts.organization.c.epoch + 1))
    assert journal.write([record(2)])
    with work.database.read() as tx:
        assert len(shards.journals_of(tx, work.id, 0)) == 2
    assert work.attempt(0).recorded() == {1, 2}


def test_where_nothing_may_be_kept_nothing_is(work: BatchWork) -> None:
    journal = work.attempt(0)
    with work.database.write() as tx:
        off = {"zero_data_retention": True, "epoch": accounts.organization.c.epoch + 1}
        tx.execute(accounts.organization.update().where(sa.true()).values(**off))
    assert not journal.write([record(1)])
    assert work.work() == 0


def test_an_ended_batch_takes_nothing(work: BatchWork) -> None:
    journal = work.attempt(0)
    with work.database.write() as tx:
        transitions.cancel_at_once(tx, [work.id], work.rig.clock.now_ms())
    assert not journal.write([record(1)])
    assert work.work() == 0
