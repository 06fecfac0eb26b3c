"""A table of parameters bound to a model: the walk over a body along it."""

from typing import Any

import pytest

from keepless.config import ModelConfig
from keepless.errors import Problem
from keepless.gateway import switches, values
from keepless.gateway.rules import Parameter, Rules, anything, check_name, fixed, lacks, plain, stream_options, tools
from keepless.policy.controls import NO_REQUEST, RequestControls

M = "MARKER"
TABLE = {
    "size": Parameter(plain(values.integer, "size", 1, 9)),
    "image": Parameter(fixed(anything), "vision", ({},)),
    "kept": Parameter(fixed(anything), neutral=(False,), never=True),
    **{member.path[0]: Parameter(fixed(anything)) for member in switches.BODY},
}
MODEL = ModelConfig(id="m", extra_params=["beam"])


def read(body: dict[str, Any], *required: str, capabilities: frozenset[str] | None = frozenset()) -> RequestControls:
    return Rules(MODEL, TABLE, capabilities)._read(body, *required)


def refused(body: dict[str, Any], *required: str, **how: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        read(body, *required, **how)
    assert M not in f"{caught.value.message} {caught.value.param}"
    return caught.value


def test_nulls_and_switches_are_taken_out_and_the_rest_stays() -> None:
    body = {"size": 3, "image": None, "store": False, "beam": {"any": "thing"}, "kept": None}
    assert read(body, "size") == RequestControls(keep_nothing=True)
    assert body == {"size": 3, "beam": {"any": "thing"}}
    assert read({}) == NO_REQUEST


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({M: 1}, "unknown_parameter", None),
        ({"size": M}, "invalid_type", "size"),
        ({"size": 10}, "invalid_value", "size"),
        ({"image": {"a": M}}, "unsupported_parameter", "image"),
        ({"kept": True}, "unsupported_parameter", "kept"),
        ({"size": None}, "missing_required_parameter", "size"),
        ({}, "missing_required_parameter", "size"),
    ],
)
def test_what_is_refused(body: dict[str, Any], code: str, param: str | None) -> None:
    problem = refused(body, "size")
    assert (problem.status, problem.code, problem.param) == (400, code, param)


def test_what_asks_for_nothing_needs_no_capability_and_what_a_model_can_is_taken() -> None:
    read({"image": {}, "kept": False})
    read({"image": {"a": 1}}, capabilities=frozenset({"vision"}))
    read({"image": {"a": 1}}, capabilities=None)
    assert refused({"kept": True}, capabilities=None).code == "unsupported_parameter"  # no model can


@pytest.mark.parametrize(
    ("capabilities", "needed", "expected"),
    [(None, "x", False), (frozenset(), None, False), (frozenset(), "x", True), (frozenset({"x"}), "x", False)],
)
def test_lacks(capabilities: frozenset[str] | None, needed: str | None, expected: bool) -> None:
    assert lacks(capabilities, needed) is expected


@pytest.mark.parametrize("name", ["", "a b", "ä", "x" * 65, 1, None])
def test_names_that_are_none(name: Any) -> None:
    with pytest.raises(Problem):
        check_name("name", name)


def test_flags_of_streams() -> None:
    check = stream_options("include_usage")
    check({"include_usage": True})
    check({"include_usage": None})
    for wrong in ({"include_usage": 1}, {M: True}, []):
        with pytest.raises(Problem):
            check(wrong)


def test_tools_have_different_names_wherever_they_stand() -> None:
    check = tools(lambda param, tool: (param, tool))(frozenset())
    check([{"type": "function", "name": "f"}, {"type": "function", "name": "g", "parameters": {}}])
    for wrong, param in (
        ([{"type": "function", "name": "f"}] * 2, "tools"),
        ([{"type": "web_search"}], "tools[0].type"),
        ([{"type": 1}], "tools[0].type"),
        ([{"type": "function", "name": "f", "strict": M}], "tools[0].strict"),
        ([1], "tools[0]"),
        ([{}] * 129, "tools"),
    ):
        with pytest.raises(Problem) as caught:
            check(wrong)
        assert caught.value.param == param
