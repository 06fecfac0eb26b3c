"""The circuit breaker as a table of what happened, and what checks add."""

import pytest

from keepless.inference.health import Health, Standing

WELL, AVOIDED, DOWN = Standing.WELL, Standing.AVOIDED, Standing.DOWN


def broken(now: float = 0.0) -> Health:
    """Three failures in a row: open for two seconds."""
    health = Health(3, 2.0, lambda: 1.0)
    for _ in range(3):
        health.asked()
        health.failed(now)
    return health


def test_only_failures_in_a_row_open_the_circuit() -> None:
    health = Health(3, 2.0, lambda: 1.0)
    for _ in range(5):
        health.failed(0.0)
        health.failed(0.0)
        assert health.standing(0.0) is WELL
        health.succeeded()
    assert not health.open
    assert broken().open
    assert [broken().standing(now) for now in (0.0, 1.9, 2.0)] == [AVOIDED, AVOIDED, WELL]


def test_after_the_pause_one_probe_decides() -> None:
    health = broken()
    health.asked()
    assert health.standing(2.0) is AVOIDED, "the others wait for the probe"
    health.succeeded()
    assert (health.open, health.standing(2.0)) == (False, WELL)
    health.failed(2.0)
    assert health.standing(2.0) is WELL, "and the count begins anew"


def test_a_failed_probe_doubles_the_pause_up_to_a_minute() -> None:
    health, now, pauses = broken(), 0.0, []
    for _ in range(7):
        pauses.append(health.until - now)
        now = health.until
        health.asked()
        health.failed(now)
    assert pauses == [2, 4, 8, 16, 32, 60, 60]
    health.asked()
    health.succeeded()
    for _ in range(3):
        health.failed(now)
    assert health.until - now == 2, "a success makes the pauses short again"


def test_a_probe_without_a_lesson_lets_the_next_one_try() -> None:
    health = broken()
    health.asked()
    health.let_go()
    assert (health.open, health.standing(2.0)) == (True, WELL)


def test_what_was_under_way_when_the_circuit_opened_changes_nothing() -> None:
    health = broken()
    health.failed(1.0)
    assert health.until == 2.0
    health.succeeded()
    assert (health.open, health.standing(1.0)) == (True, AVOIDED)


def test_pauses_are_spread() -> None:
    seen = set()
    for _ in range(20):
        health = Health(1, 10.0)
        health.failed(0.0)
        seen.add(health.until)
    assert len(seen) > 1
    assert all(8.0 <= until <= 12.0 for until in seen)


@pytest.mark.parametrize(("seconds", "rests"), [(7, 7), (3600, 60)])
def test_an_upstream_that_asks_for_a_rest_gets_it(seconds: int, rests: int) -> None:
    health = Health(3, 2.0)
    health.rest(0.0, seconds)
    assert [health.standing(now) for now in (rests - 0.1, rests)] == [AVOIDED, WELL]
    assert not health.open


def test_two_missed_checks_are_down_and_one_is_up() -> None:
    health = Health(3, 2.0)
    health.checked(0.0, up=False)
    assert health.standing(0.0) is WELL
    health.checked(0.0, up=True)
    health.checked(0.0, up=False)
    assert health.standing(0.0) is WELL, "not in a row"
    health.checked(0.0, up=False)
    assert health.standing(0.0) is DOWN
    health.checked(0.0, up=True)
    assert health.standing(0.0) is WELL


def test_a_check_says_nothing_about_requests_that_fail() -> None:
    health = broken()
    health.checked(0.1, up=True)
    assert health.standing(0.1) is AVOIDED, "it answers checks and breaks requests"
    health.checked(0.2, up=False)
    health.checked(0.3, up=False)
    health.checked(0.4, up=True)
    assert health.standing(0.4) is WELL, "it was gone and is back: a request may find out"
    assert health.open
