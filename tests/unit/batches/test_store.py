"""Batches as rows, on both databases: made once, found by their project only, listed page by page, forgotten."""

from dataclasses import replace

import pytest
import sqlalchemy as sa

from keepless.accounts.repeats import REPEAT_MS
from keepless.batches import store, transitions
from keepless.batches.shards import ShardPlan, add_journal, take
from keepless.batches.tables import batch, batch_line_error, batch_shard
from keepless.batches.values import BatchEndpoint, BatchState, Counts, LineCode, LineError, NewBatch
from keepless.clock import DAY_MS
from keepless.db import Database
from keepless.ids import Id, Prefix, mint
from tests.support.accounts import make_organization

NOW = 1_800_000_000_000


def new(database: Database) -> NewBatch:
    organization_id, project_id = make_organization(database)
    return NewBatch(
        organization_id, project_id, mint(Prefix.API_KEY), BatchEndpoint.CHAT, mint(Prefix.FILE), window_ms=DAY_MS
    )


def made(database: Database, what: NewBatch, now_ms: int = NOW, key: bytes | None = None) -> Id:
    with database.write() as tx:
        return store.create(tx, what, now_ms, key)[0].id


def failed(database: Database, batch_id: Id, now_ms: int = NOW) -> None:
    with database.write() as tx:
        assert transitions.fail(tx, batch_id, [LineError(1, LineCode.INVALID_JSON)], 1, now_ms)


def test_a_new_batch_is_validating_and_ends_with_its_window(database: Database) -> None:
    what = replace(new(database), output_life_ms=3_600_000, metadata_object_id=mint(Prefix.OBJECT))
    batch_id = made(database, what)
    with database.read() as tx:
        found = store.get(tx, batch_id, what.project_id)
    assert found is not None
    assert (found.state, found.created_at, found.expires_at) == (BatchState.VALIDATING, NOW, NOW + DAY_MS)
    assert (found.counts, found.ended_at, found.line_errors) == (Counts(), None, 0)
    told = {name: getattr(found, name) for name in NewBatch.__slots__}
    assert told == {name: getattr(what, name) for name in NewBatch.__slots__}


def test_another_projects_batch_is_not_found(database: Database) -> None:
    batch_id = made(database, new(database))
    other = new(database)
    with database.read() as tx:
        assert store.get(tx, batch_id, other.project_id) is None
        assert store.listing(tx, other.project_id, limit=10) == []
        assert store.listing(tx, other.project_id, limit=10, after=batch_id) == []


def test_pages_hold_every_batch_once_the_newest_first(database: Database) -> None:
    what = new(database)
    ids = [made(database, what, NOW + at // 3) for at in range(10)]  # several at the same instant
    with database.read() as tx:
        whole = [one.id for one in store.listing(tx, what.project_id, limit=100)]
        pages: list[Id] = []
        while page := store.listing(tx, what.project_id, limit=3, after=pages[-1] if pages else None):
            pages += [one.id for one in page]
        some = {one.id for one in store.listing(tx, what.project_id, limit=100, ids=ids[:2])}
    assert pages == whole
    assert set(whole) == set(ids)
    assert some == set(ids[:2])
    assert whole[0] == ids[-1]


@pytest.mark.parametrize(("later_ms", "same"), [(0, True), (REPEAT_MS - 1, True), (REPEAT_MS, False)])
def test_a_creation_with_the_same_key_is_made_once_a_day(database: Database, later_ms: int, same: bool) -> None:
    what = new(database)
    first = made(database, what, NOW, b"one")
    assert (made(database, what, NOW + later_ms, b"one") == first) is same
    assert made(database, what, NOW, b"two") != first
    assert made(database, what, NOW) != first


def test_a_key_means_nothing_in_another_project(database: Database) -> None:
    assert made(database, new(database), NOW, b"one") != made(database, new(database), NOW, b"one")


def test_what_the_client_typed_is_nowhere_and_its_digests_end(database: Database) -> None:
    what = new(database)
    made(database, what, NOW, b"marker")
    made(database, replace(what, project_id=new(database).project_id), NOW, b"marker")
    with database.write() as tx:
        rows = tx.execute(sa.select(batch)).all()
        assert not any("marker" in repr(row) for row in rows)
        assert len({bytes(row.repeat_digest) for row in rows}) == 2  # the same key, and nobody can tell
        assert store.forget_repeats(tx, NOW + REPEAT_MS - 1) == 0
        assert store.forget_repeats(tx, NOW + REPEAT_MS) == 2
        assert all(row.repeat_salt is None for row in tx.execute(sa.select(batch)))


def test_active_batches_of_whom_and_of_which_input(database: Database) -> None:
    one, other = new(database), new(database)
    mine, his = made(database, one), made(database, other)
    gone = made(database, one)
    failed(database, gone)
    with database.read() as tx:
        assert {found.id for found in store.active_of(tx)} == {mine, his}
        assert [found.id for found in store.active_of(tx, one.organization_id)] == [mine]
        assert [found.id for found in store.active_of(tx, one.organization_id, one.project_id)] == [mine]
        assert [found.id for found in store.with_input(tx, one.input_file_id)] == [mine]


def test_forgetting_takes_what_has_ended_and_everything_about_it(database: Database) -> None:
    what = new(database)
    ended, active = made(database, what), made(database, what)
    failed(database, ended, NOW)
    with database.write() as tx:
        assert store.forget(tx, NOW, ended_before_ms=NOW) == []
        assert store.forget(tx, NOW, project_id=new_project()) == []
        assert store.forget(tx, NOW, ended_before_ms=NOW + 1, organization_id=what.organization_id) == [ended]
        assert store.get(tx, ended) is None
        assert tx.scalar(sa.select(sa.func.count()).select_from(batch_line_error)) == 0
        assert store.get(tx, active) is not None


def test_a_page_goes_on_after_a_batch_that_is_forgotten(database: Database) -> None:
    what = new(database)
    first, second, third = (made(database, what, NOW + at) for at in range(3))
    failed(database, second)
    with database.write() as tx:
        assert store.forget(tx, NOW, ended_before_ms=NOW + 1) == [second]
        assert [one.id for one in store.listing(tx, what.project_id, limit=9, after=second)] == [first]
        assert [one.id for one in store.listing(tx, what.project_id, limit=9, after=third)] == [first]
        assert store.listing(tx, new_project(), limit=9, after=second) == []


def new_project() -> Id:
    return mint(Prefix.PROJECT)


def test_a_batch_whose_work_is_still_kept_is_not_forgotten(database: Database) -> None:
    batch_id = made(database, new(database))
    with database.write() as tx:
        assert transitions.start(tx, batch_id, [ShardPlan(1, 5, 0, 50)], NOW)
        shard = take(tx, batch_id, 0)
        assert shard is not None
        assert add_journal(tx, shard, mint(Prefix.OBJECT))
        assert transitions.cancel_at_once(tx, [batch_id], NOW) == [batch_id]
        assert store.forget(tx, NOW, ended_before_ms=NOW + 1) == []
        assert tx.scalar(sa.select(sa.func.count()).select_from(batch_shard)) == 0
