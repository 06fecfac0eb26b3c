"""The state machine in rows, on both databases: every pair of states, what each change leaves behind."""

import pytest

from keepless.batches import store, transitions
from keepless.batches.shards import ShardPlan, advance, take
from keepless.batches.tables import batch
from keepless.batches.values import (
    MOST_LINE_ERRORS,
    NEXT,
    TERMINAL,
    Batch,
    BatchState,
    CancelReason,
    Counts,
    LineCode,
    LineError,
    LineParam,
)
from keepless.clock import DAY_MS
from keepless.db import Database
from keepless.ids import Id, Prefix, mint
from keepless.webhooks.events import EventType, mask_of
from keepless.webhooks.tables import webhook_delivery, webhook_endpoint
from tests.unit.batches.test_store import NOW, made, new

PLAN = [ShardPlan(1, 5, 0, 50), ShardPlan(6, 2, 50, 70)]
LATER = NOW + 1000


def at(database: Database, batch_id: Id) -> Batch:
    with database.read() as tx:
        found = store.get(tx, batch_id)
    assert found is not None
    return found


def started(database: Database) -> Id:
    batch_id = made(database, new(database))
    with database.write() as tx:
        assert transitions.start(tx, batch_id, PLAN, NOW)
    return batch_id


def test_a_batch_that_begins_says_its_model(database: Database) -> None:
    several = started(database)
    one = made(database, new(database))
    assert at(database, one).model is None
    with database.write() as tx:
        assert transitions.start(tx, one, PLAN, NOW, model="m")
    assert (at(database, one).model, at(database, several).model) == ("m", None)


def change(database: Database, batch_id: Id, to: BatchState) -> bool:
    with database.write() as tx:
        match to:
            case BatchState.FAILED:
                return transitions.fail(tx, batch_id, [], 0, LATER)
            case BatchState.IN_PROGRESS:
                return transitions.start(tx, batch_id, PLAN, LATER)
            case BatchState.FINALIZING:
                return transitions.finalize(tx, batch_id, LATER)
            case BatchState.CANCELLING:
                return transitions.request_cancel(tx, batch_id, CancelReason.CUSTOMER, LATER)
            case BatchState.VALIDATING:
                return False
            case _:
                return transitions.end(tx, batch_id, to, Counts(7, 6, 1), LATER)


@pytest.mark.parametrize("before", BatchState)
def test_a_state_is_followed_only_by_what_may_follow(database: Database, before: BatchState) -> None:
    for to in BatchState:
        batch_id = made(database, new(database))
        with database.write() as tx:
            tx.execute(batch.update().where(batch.c.id == batch_id).values(state=before))
        assert change(database, batch_id, to) is (to in NEXT[before]), to
        found = at(database, batch_id)
        assert found.state is (to if to in NEXT[before] else before)
        if to in NEXT[before]:
            assert getattr(found, f"{to.value}_at") == LATER
            assert (found.ended_at == LATER) is (to in TERMINAL)


def test_counts_are_the_shards_until_the_end_and_the_rows_then(database: Database) -> None:
    batch_id = started(database)
    with database.write() as tx:
        for number in (0, 1):
            shard = take(tx, batch_id, number)
            assert shard is not None
            assert advance(tx, shard, 1 + number, 1)
    assert at(database, batch_id).counts == Counts(7, 3, 2)
    output, error = mint(Prefix.FILE), mint(Prefix.FILE)
    with database.write() as tx:
        assert transitions.finalize(tx, batch_id, LATER)
        done = transitions.end(
            tx, batch_id, BatchState.EXPIRED, Counts(7, 3, 4), LATER, output_file_id=output, error_file_id=error
        )
        assert done
        assert not transitions.end(tx, batch_id, BatchState.COMPLETED, Counts(7, 7, 0), LATER)
    found = at(database, batch_id)
    assert (found.counts, found.output_file_id, found.error_file_id) == (Counts(7, 3, 4), output, error)


def test_the_first_errors_of_an_input_are_kept_in_order_and_all_are_counted(database: Database) -> None:
    batch_id = made(database, new(database))
    errors = [LineError(None, LineCode.EMPTY_FILE)]
    errors += [LineError(line, LineCode.MISSING, LineParam.CUSTOM_ID) for line in range(1, 200)]
    with database.write() as tx:
        assert transitions.fail(tx, batch_id, errors, 5000, LATER)
    found = at(database, batch_id)
    with database.read() as tx:
        assert store.errors_of(tx, batch_id) == errors[:MOST_LINE_ERRORS]
    assert (found.state, found.line_errors) == (BatchState.FAILED, 5000)


def test_cancelling_says_why_and_only_once(database: Database) -> None:
    batch_id = started(database)
    with database.write() as tx:
        assert transitions.request_cancel(tx, batch_id, CancelReason.INPUT_DELETED, LATER)
        assert not transitions.request_cancel(tx, batch_id, CancelReason.CUSTOMER, LATER)
    assert at(database, batch_id).cancel_reason is CancelReason.INPUT_DELETED


def test_a_policy_ends_every_active_batch_at_once_and_leaves_the_others(database: Database) -> None:
    running, waiting, over = started(database), made(database, new(database)), made(database, new(database))
    with database.write() as tx:
        shard = take(tx, running, 0)
        assert shard is not None
        assert advance(tx, shard, 2, 1)
        assert transitions.fail(tx, over, [], 0, NOW)
        assert set(transitions.cancel_at_once(tx, [running, waiting, over], LATER)) == {running, waiting}
        assert not advance(tx, shard, 3, 1)
    found = at(database, running)
    assert (found.state, found.cancel_reason) == (BatchState.CANCELLED, CancelReason.POLICY)
    assert found.counts == Counts(7, 2, 1)
    assert at(database, over).state is BatchState.FAILED


def test_what_nobody_has_begun_expires_with_its_window(database: Database) -> None:
    waiting, running = made(database, new(database)), started(database)
    with database.write() as tx:
        assert transitions.expire_unstarted(tx, NOW + DAY_MS - 1) == []
        assert transitions.expire_unstarted(tx, NOW + DAY_MS) == [waiting]
    assert at(database, waiting).state is BatchState.EXPIRED
    assert at(database, running).state is BatchState.IN_PROGRESS


@pytest.mark.parametrize(
    ("end", "event"),
    [
        (BatchState.FAILED, EventType.BATCH_FAILED),
        (BatchState.COMPLETED, EventType.BATCH_COMPLETED),
        (BatchState.EXPIRED, EventType.BATCH_EXPIRED),
        (BatchState.CANCELLED, EventType.BATCH_CANCELLED),
    ],
)
def test_the_end_is_announced_once_in_the_same_transaction(
    database: Database, end: BatchState, event: EventType
) -> None:
    batch_id = made(database, new(database)) if end is BatchState.FAILED else started(database)
    owner = at(database, batch_id)
    with database.write() as tx:
        tx.execute(
            webhook_endpoint.insert().values(
                id=mint(Prefix.WEBHOOK),
                organization_id=owner.organization_id,
                name="x",
                url="https://example.com/",
                events=mask_of(list(EventType)),
                created_at=NOW,
                updated_at=NOW,
                salt=bytes(32),
                hint="abcd",
            )
        )
    if end is BatchState.CANCELLED:
        assert change(database, batch_id, BatchState.CANCELLING)
    elif end is not BatchState.FAILED:
        assert change(database, batch_id, BatchState.FINALIZING)
    assert change(database, batch_id, end)
    assert not change(database, batch_id, end)
    with database.read() as tx:
        (told,) = tx.execute(webhook_delivery.select()).all()
    assert (told.event_type, told.subject_id, told.created_at) == (event, batch_id, LATER)
