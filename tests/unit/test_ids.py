"""Ids are random, prefixed, and parse only as what they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepless.ids import ID_LENGTH, Id, Prefix, mint, parse, requested_at, trusted


@pytest.mark.parametrize("prefix", Prefix)
def test_minted_ids_parse_as_their_own_kind_only(prefix: Prefix) -> None:
    minted = mint(prefix)
    assert type(minted) is Id and len(minted) <= ID_LENGTH
    assert [other for other in Prefix if parse(minted, other) is not None] == [prefix]


def test_ids_do_not_repeat() -> None:
    assert len({mint(Prefix.REQUEST) for _ in range(10_000)}) == 10_000


def test_ids_of_requests_sort_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    minted = []
    for at_ms in (1_764_000_000_000, 1_764_000_000_001, 1_764_000_000_016, 1_999_999_999_999):
        monkeypatch.setattr("time.time_ns", lambda at_ms=at_ms: at_ms * 1_000_000)
        minted.append(mint(Prefix.REQUEST))
    assert minted == sorted(minted)


def test_ids_of_requests_say_when(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time_ns", lambda: 1_764_000_000_123 * 1_000_000)
    assert requested_at(mint(Prefix.REQUEST)) == 1_764_000_000_123


@pytest.mark.parametrize("letters", ["z" * 24, "k" + "2" * 23, "a" * 11 + "q" + "a" * 12, "-" * 24])
def test_ids_that_were_not_minted_here_do_not(letters: str) -> None:
    assert requested_at(Id("req_" + letters)) is None


@given(st.text())
def test_arbitrary_text_is_no_id(text: str) -> None:
    assert parse(text, Prefix.ORGANIZATION) is None


@pytest.mark.parametrize("tail", ["", "\n", " ", "A", "x" * 40])
def test_the_shape_is_exact(tail: str) -> None:
    good = mint(Prefix.OBJECT)
    assert (parse(good + tail, Prefix.OBJECT) is not None) is (tail == "")
    assert trusted(good) == good
