"""Shards and journals, on both databases: one holder at a time, counts that only grow, nothing left behind."""

from keepless.batches import shards, transitions
from keepless.batches.shards import Shard, ShardPlan
from keepless.batches.values import CancelReason, Counts
from keepless.db import Database
from keepless.ids import Id, Prefix, mint
from tests.unit.batches.test_store import NOW, made, new
from tests.unit.batches.test_transitions import PLAN, at, started


def taken(database: Database, batch_id: Id, number: int = 0) -> Shard:
    with database.write() as tx:
        shard = shards.take(tx, batch_id, number)
    assert shard is not None
    return shard


def test_shards_are_what_was_planned(database: Database) -> None:
    batch_id = started(database)
    with database.read() as tx:
        found = shards.shards_of(tx, batch_id)
    assert [(one.number, one.plan, one.attempt, one.done) for one in found] == [
        (0, PLAN[0], 0, False),
        (1, PLAN[1], 0, False),
    ]


def test_who_had_a_shard_before_can_write_nothing_any_more(database: Database) -> None:
    batch_id = started(database)
    earlier, later = taken(database, batch_id), taken(database, batch_id)
    with database.write() as tx:
        assert not shards.advance(tx, earlier, 5, 0)
        assert not shards.add_journal(tx, earlier, mint(Prefix.OBJECT))
        assert not shards.finish(tx, earlier)
        assert shards.advance(tx, later, 1, 0)
    assert at(database, batch_id).counts == Counts(7, 1, 0)


def test_counts_only_grow(database: Database) -> None:
    batch_id = started(database)
    shard = taken(database, batch_id)
    for completed, failed in ((2, 1), (1, 0), (2, 2)):
        with database.write() as tx:
            assert shards.advance(tx, shard, completed, failed)
    assert at(database, batch_id).counts == Counts(7, 2, 2)


def test_a_shard_that_is_done_or_whose_batch_does_not_run_is_not_taken(database: Database) -> None:
    batch_id = started(database)
    with database.write() as tx:
        assert shards.take(tx, made_waiting := mint(Prefix.BATCH), 0) is None
        assert made_waiting
    first = taken(database, batch_id)
    with database.write() as tx:
        assert shards.finish(tx, first)
        assert shards.take(tx, batch_id, 0) is None
        assert shards.take(tx, batch_id, 2) is None
        assert transitions.request_cancel(tx, batch_id, CancelReason.CUSTOMER, NOW)
        assert shards.take(tx, batch_id, 1) is None


def test_what_is_in_flight_at_a_cancellation_is_still_recorded(database: Database) -> None:
    batch_id = started(database)
    shard = taken(database, batch_id)
    with database.write() as tx:
        assert transitions.request_cancel(tx, batch_id, CancelReason.CUSTOMER, NOW)
        assert shards.advance(tx, shard, 1, 0)
        assert shards.add_journal(tx, shard, mint(Prefix.OBJECT))


def test_journals_are_listed_by_attempt_and_dropped(database: Database) -> None:
    batch_id = started(database)
    ids = [mint(Prefix.OBJECT) for _ in range(3)]
    for number, object_id in ((0, ids[0]), (1, ids[2]), (0, ids[1])):
        with database.write() as tx:
            shard = shards.take(tx, batch_id, number)
            assert shard is not None
            assert shards.add_journal(tx, shard, object_id)
    with database.write() as tx:
        assert shards.journals_of(tx, batch_id) == ids
        assert shards.journals_of(tx, batch_id, 0) == ids[:2]
        shards.drop_journals(tx, ids[:1])
        assert shards.journals_of(tx, batch_id) == ids[1:]
        assert shards.ended_with_work(tx) == []
        transitions.cancel_at_once(tx, [batch_id], NOW)
        assert shards.ended_with_work(tx) == [batch_id]


def test_a_batch_that_waits_has_no_shards(database: Database) -> None:
    batch_id = made(database, new(database))
    with database.write() as tx:
        assert shards.shards_of(tx, batch_id) == []
        assert transitions.start(tx, batch_id, [ShardPlan(1, 1, 0, 9)], NOW)
        assert not transitions.start(tx, batch_id, PLAN, NOW)
        assert len(shards.shards_of(tx, batch_id)) == 1
