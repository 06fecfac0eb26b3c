"""The latest instant survives the process that saw it."""

import pytest
import sqlalchemy as sa

from keepless.accounts import store
from keepless.accounts.tables import change
from keepless.app.guard import TimeKeeper, is_behind
from keepless.clock import GuardedClock
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
    keeper = TimeKeeper(db, wall, lambda: True)
    keeper.keep()
    assert floor(db) == T0 + 1000
    wall.jump_ms(-500)
    keeper.keep()
    assert floor(db) == T0 + 1000


def test_the_instant_of_a_clock_that_jumped_is_not_kept(db: Database) -> None:
    wall = FakeClock(T0 + 1000)
    credible = False
    keeper = TimeKeeper(db, wall, lambda: credible)
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
