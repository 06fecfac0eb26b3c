"""Time does not go back."""

from keepless.clock import DAY_MS, GuardedClock, SystemClock, day_end_ms, day_of, rfc3339
from tests.support.clock import FakeClock


def test_a_clock_set_back_does_not_move_the_guarded_one() -> None:
    fake = FakeClock(1_000_000)
    guarded = GuardedClock(fake)
    assert guarded.now_ms() == 1_000_000
    fake.advance_ms(-500_000)
    assert guarded.now_ms() == 1_000_000
    fake.advance_ms(500_001)
    assert guarded.now_ms() == 1_000_001


def test_the_floor_counts_from_the_start() -> None:
    assert GuardedClock(FakeClock(5), floor_ms=9).now_ms() == 9


def test_the_system_clock_is_unix_milliseconds() -> None:
    first, tick = SystemClock().now_ms(), SystemClock().monotonic()
    assert first > 1_700_000_000_000 and SystemClock().monotonic() >= tick


def test_days_and_texts() -> None:
    instant = 20_000 * DAY_MS + 5
    assert day_of(instant) == 20_000 and day_end_ms(20_000) == 20_001 * DAY_MS
    assert rfc3339(0) == "1970-01-01T00:00:00Z"
