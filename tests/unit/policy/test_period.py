"""When an object ends: the earliest of its own end, the period set now, and every shorter one it was under."""

from hypothesis import given
from hypothesis import strategies as st

from keepless.policy.period import DAY_MS, Ratchet, end_in_force_ms, ratchets_after

NOW = 1_790_000_000_000


def test_the_earliest_end_wins() -> None:
    ends = end_in_force_ms(created_at_ms=NOW, expires_at_ms=NOW + 30 * DAY_MS, days=7, ratchets=[Ratchet(NOW + 1, 3)])
    assert ends == NOW + 3 * DAY_MS


def test_a_ratchet_binds_only_what_is_older() -> None:
    ratchets = [Ratchet(NOW, 3)]
    assert end_in_force_ms(created_at_ms=NOW - 1, expires_at_ms=None, days=None, ratchets=ratchets) is not None
    assert end_in_force_ms(created_at_ms=NOW, expires_at_ms=None, days=None, ratchets=ratchets) is None


def test_nothing_set_means_until_deleted() -> None:
    assert end_in_force_ms(created_at_ms=NOW, expires_at_ms=None, days=None) is None


def test_lengthening_leaves_a_ratchet_and_shortening_none() -> None:
    assert ratchets_after(present=(), days_before=7, days_after=30, ceiling=30, now_ms=NOW) == (Ratchet(NOW + 1, 7),)
    assert ratchets_after(present=(), days_before=7, days_after=None, ceiling=30, now_ms=NOW) == (Ratchet(NOW + 1, 7),)
    assert ratchets_after(present=(), days_before=30, days_after=7, ceiling=30, now_ms=NOW) == ()
    assert ratchets_after(present=(), days_before=None, days_after=7, ceiling=30, now_ms=NOW) == ()
    assert ratchets_after(present=(), days_before=7, days_after=7, ceiling=30, now_ms=NOW) == ()


def test_a_spent_ratchet_goes() -> None:
    old = Ratchet(NOW - 30 * DAY_MS, 7)
    kept = {"present": [old], "days_before": 30, "days_after": 7}
    assert ratchets_after(**kept, ceiling=30, now_ms=NOW) == ()
    assert ratchets_after(**kept, ceiling=30, now_ms=NOW - 1) == (old,)
    assert ratchets_after(**kept, ceiling=None, now_ms=NOW) == (old,)


def test_what_ended_and_is_held_is_not_served_again_after_another_change() -> None:
    created, now_ms = NOW, NOW + 20 * DAY_MS
    lengthened = ratchets_after(present=(), days_before=3, days_after=None, ceiling=30, now_ms=NOW + 1)
    again = ratchets_after(present=lengthened, days_before=30, days_after=29, ceiling=30, now_ms=now_ms)
    end = end_in_force_ms(created_at_ms=created, expires_at_ms=created + 30 * DAY_MS, days=29, ratchets=again)
    assert end == created + 3 * DAY_MS


def test_two_changes_in_one_millisecond_leave_one_ratchet() -> None:
    first = ratchets_after(present=(), days_before=5, days_after=10, ceiling=30, now_ms=NOW)
    assert ratchets_after(present=first, days_before=10, days_after=30, ceiling=30, now_ms=NOW) == (
        Ratchet(NOW + 1, 5),
    )


changes = st.lists(st.tuples(st.integers(0, 40), st.one_of(st.none(), st.integers(1, 30))), max_size=12)


@given(
    created_day=st.integers(0, 60),
    after_ms=st.integers(0, 1),
    start=st.one_of(st.none(), st.integers(1, 30)),
    steps=changes,
)
def test_lengthening_never_lengthens_what_exists(
    created_day: int, after_ms: int, start: int | None, steps: list[tuple[int, int | None]]
) -> None:
    """Against a plain model: an object never outlives a period that was in force while it existed, if only for 1 ms."""
    created, day = NOW + created_day * DAY_MS + after_ms, 0
    ratchets: tuple[Ratchet, ...] = ()
    history = [(0, start)]
    for wait, new in steps:
        day += wait
        now_ms = NOW + day * DAY_MS
        ratchets = ratchets_after(
            present=ratchets, days_before=history[-1][1], days_after=new, ceiling=None, now_ms=now_ms
        )
        history.append((day, new))
    ends = [until for until, _ in history[1:]] + [10**6]
    allowed = min(
        (
            period
            for (_, period), until in zip(history, ends, strict=True)
            if period is not None and until * DAY_MS >= created_day * DAY_MS + after_ms
        ),
        default=None,
    )
    end = end_in_force_ms(created_at_ms=created, expires_at_ms=None, days=history[-1][1], ratchets=ratchets)
    if allowed is None:
        assert end is None
    else:
        assert end == created + allowed * DAY_MS
