"""One sweeper at a time, and only under a credible clock."""

import pytest

from keepless.db import Database
from keepless.expiry.turn import LEASE_MS, ClockWatch, Turn, TurnLostError
from tests.support.clock import FakeClock

HOUR_MS = 3_600_000


def test_a_turn_is_one_process_at_a_time(database: Database) -> None:
    clock = FakeClock()
    first, second = Turn(database, clock), Turn(database, clock)
    assert first.take()
    assert not second.take()
    first.give_back()
    assert second.take()
    first.give_back()  # not its own any more: nothing happens
    assert not first.take()


def test_a_dead_process_loses_its_turn_when_its_lease_ends(database: Database) -> None:
    clock = FakeClock()
    dead, heir = Turn(database, clock), Turn(database, clock)
    assert dead.take()
    clock.advance_ms(LEASE_MS - 1)
    assert not heir.take()
    clock.advance_ms(1)
    assert heir.take()
    with pytest.raises(TurnLostError):
        dead.keep()


def test_a_living_process_renews_its_lease(database: Database) -> None:
    clock = FakeClock()
    alive, other = Turn(database, clock), Turn(database, clock)
    assert alive.take()
    for _ in range(10):
        clock.advance_ms(LEASE_MS // 2)
        alive.keep()
        assert not other.take()


def test_a_lease_written_under_another_clock_blocks_nobody(database: Database) -> None:
    ahead, here = FakeClock(), FakeClock()
    ahead.advance_ms(31 * 24 * HOUR_MS)
    assert Turn(database, ahead).take()
    assert Turn(database, here).take()


def test_confirmations_are_counted_for_every_process(database: Database) -> None:
    turn, other = Turn(database, FakeClock()), Turn(database, FakeClock())
    assert other.confirmations() == 0
    turn.take()
    turn.count_confirmation()
    turn.count_confirmation()
    assert other.confirmations() == 2


@pytest.mark.parametrize(
    ("jump_ms", "jumped"),
    [(0, False), (HOUR_MS, False), (HOUR_MS + 1, True), (-HOUR_MS, False), (-HOUR_MS - 1, True)],
)
def test_a_jump_is_more_than_an_hour_between_the_two_clocks(jump_ms: int, jumped: bool) -> None:
    clock = FakeClock()
    watch = ClockWatch(clock)
    clock.advance_ms(9 * HOUR_MS)
    assert not watch.jumped
    clock.jump_ms(jump_ms)
    assert watch.jump_ms == jump_ms
    assert watch.jumped is jumped
    clock.advance_ms(9 * HOUR_MS)
    assert watch.jumped is jumped
    watch.confirm()
    assert not watch.jumped
