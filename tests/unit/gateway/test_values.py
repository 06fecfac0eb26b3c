"""Checks of single values."""

from typing import Any

import pytest

from keepless.errors import Code, Problem
from keepless.gateway import values

CASES: list[tuple[values.Check, list[Any], list[Any], list[Any]]] = [
    (values.boolean("p"), [True, False], [1, "x", None], []),
    (values.integer("p", 1, 3), [1, 3, 2.0], [1.5, True, "1", [1]], [0, 4, 10**40]),
    (values.number("p", 0, 2), [0, 2, 0.5], [True, "1", {}], [-0.01, 2.01]),
    (values.text("p", 3), ["", "abc"], [1, ["a"]], ["abcd"]),
    (values.choice("p", frozenset({"a"})), ["a"], [1, ["a"]], ["b", ""]),
]


@pytest.mark.parametrize(("check", "fine", "types", "bounds"), CASES)
def test_checks(check: values.Check, fine: list[Any], types: list[Any], bounds: list[Any]) -> None:
    for value in fine:
        check(value)
    for code, wrong in ((Code.INVALID_TYPE, types), (Code.INVALID_VALUE, bounds)):
        for value in wrong:
            with pytest.raises(Problem) as caught:
                check(value)
            assert (caught.value.code, caught.value.param) == (code, "p")


def test_members_refuses_what_nobody_defined() -> None:
    assert values.members("p", {"a": 1}, {"a", "b"}) == {"a": 1}
    with pytest.raises(Problem) as caught:
        values.members("p", {"a": 1, "MARKER": 2}, {"a", "b"})
    assert caught.value.message == "Unrecognized request argument in 'p' at position 1. Supported: a, b."
