"""The latest instant survives the process that saw it."""

import pytest
import sqlalchemy as sa

from keepless.accounts import store
from keepless.accounts.tables import change
from keepless.app.guard import TimeKeeper, is_behind
from keepless.clock import DAY_MS, GuardedClock
from keepless.db import Database
from tests.support.clock import FakeClock

T0 = 1_790_000_000_000


@pytest.fixture
def db(database: Database) -> Database:
    with database.write() as tx:
        store.prepare(tx, now_ms=T0)
    return database


def floor(db: Database) -> int:
    with db.read() as tx:
        return tx.execute(sa.select(change.c.clock_floor)).scalar_one()


def test_it_rises_and_never_falls(db: Database) -> None:
    wall = FakeClock(T0 + 1000)
    keeper = TimeKeeper(db, wall, GuardedClock(wall), lambda: True)
    keeper.keep()
    assert floor(db) == T0 + 1000
    wall.jump_ms(-500)
    keeper.keep()
    assert floor(db) == T0 + 1000


def test_the_instant_of_a_clock_that_jumped_is_not_kept(db: Database) -> None:
    wall = FakeClock(T0 + 1000)
    credible = False
    keeper = TimeKeeper(db, wall, GuardedClock(wall), lambda: credible)
    keeper.keep()
    assert floor(db) == T0
    credible = True
    keeper.keep()
    assert floor(db) == T0 + 1000


def test_a_clock_far_behind_is_noticed() -> None:
    wall = FakeClock(T0)
    guarded = GuardedClock(wall, T0 + 3_600_000)
    assert not is_behind(wall, guarded)
    wall.jump_ms(-1)
    assert is_behind(wall, guarded)


def test_what_was_seen_of_a_time_that_nobody_believed_is_let_go(db: Database) -> None:
    wall = FakeClock(T0 + 1000)
    guarded = GuardedClock(wall, T0)
    credible = True
    keeper = TimeKeeper(db, wall, guarded, lambda: credible)
    keeper.keep()
    wall.jump_ms(40 * DAY_MS)
    guarded.now_ms()
    credible = False
    keeper.keep()
    wall.jump_ms(-40 * DAY_MS)
    assert guarded.now_ms() == T0 + 1000 + 40 * DAY_MS and guarded.strayed_ms() == 40 * DAY_MS
    credible = True
    keeper.keep()
    assert guarded.now_ms() == T0 + 1000 and guarded.strayed_ms() == 0


def test_a_time_that_was_believed_stands_however_far_the_clock_is_set_back(db: Database) -> None:
    wall = FakeClock(T0 + 50 * DAY_MS)
    guarded = GuardedClock(wall, T0)
    keeper = TimeKeeper(db, wall, guarded, lambda: True)
    guarded.now_ms()
    keeper.keep()
    wall.jump_ms(-40 * DAY_MS)
    keeper.keep()
    assert guarded.now_ms() == T0 + 50 * DAY_MS and guarded.strayed_ms() == 0
