"""An example is looked at part by part; what is told never holds what stood there."""

from typing import Any

import pytest

from keepless.tuning.dataset import check
from keepless.tuning.faults import FaultCode, FaultParam

C, P = FaultCode, FaultParam
USER = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
TURN = [USER, {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "c1", "content": "r"}]


@pytest.mark.parametrize(
    "example",
    [
        {"messages": [USER, ANSWER]},
        {"messages": [{"role": "system", "content": "s"}, USER, ANSWER, USER, ANSWER | {"weight": 0}]},
        {"messages": [USER, ANSWER | {"weight": 1, "name": "me"}], "tools": None},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, ANSWER]},
        {"messages": [*TURN, ANSWER], "tools": [TOOL], "parallel_tool_calls": False},
        {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}]},
    ],
)
def test_good(example: dict[str, Any]) -> None:
    assert check(example) is None


def messages(*them: object) -> dict[str, Any]:
    return {"messages": list(them)}


@pytest.mark.parametrize(
    ("example", "code", "param"),
    [
        ({}, C.MISSING, P.MESSAGES),
        ({"messages": []}, C.INVALID_VALUE, P.MESSAGES),
        ({"messages": "MARKER"}, C.INVALID_TYPE, P.MESSAGES),
        ({"messages": [USER, ANSWER], "MARKER": 1}, C.UNKNOWN_PARAMETER, None),
        ({"prompt": "MARKER", "completion": "x"}, C.UNKNOWN_PARAMETER, None),
        (messages(USER, ANSWER) | {"parallel_tool_calls": "yes"}, C.INVALID_TYPE, P.PARALLEL),
        (messages(USER, ANSWER) | {"tools": {}}, C.INVALID_TYPE, P.TOOLS),
        (messages(USER, ANSWER) | {"tools": [TOOL | {"type": "x"}]}, C.INVALID_VALUE, P.TOOLS),
        (
            messages(USER, ANSWER) | {"tools": [{"type": "function", "function": {"name": "a b"}}]},
            C.INVALID_VALUE,
            P.TOOLS,
        ),
        (messages(1), C.INVALID_TYPE, P.MESSAGES),
        (messages({"role": "MARKER"}), C.INVALID_ROLE, P.ROLE),
        (messages({"role": ["user"]}), C.INVALID_ROLE, P.ROLE),
        (messages(USER | {"weight": 1}, ANSWER), C.UNKNOWN_PARAMETER, P.MESSAGES),
        (messages(USER | {"name": "a b"}, ANSWER), C.INVALID_VALUE, P.NAME),
        (messages(USER | {"content": None}, ANSWER), C.MISSING, P.CONTENT),
        (messages(USER | {"content": 5}, ANSWER), C.INVALID_TYPE, P.CONTENT),
        (messages(USER | {"content": [{"type": "image_url"}]}, ANSWER), C.INVALID_TYPE, P.CONTENT),
        (messages(USER, ANSWER | {"weight": 0.5}), C.INVALID_VALUE, P.WEIGHT),
        (messages(USER, ANSWER | {"weight": True}), C.INVALID_VALUE, P.WEIGHT),
        (messages(USER, {"role": "assistant"}), C.MISSING, P.CONTENT),
        (messages(USER, {"role": "assistant", "tool_calls": []}), C.INVALID_VALUE, P.TOOL_CALLS),
        (messages(USER, {"role": "assistant", "tool_calls": [{}]}), C.INVALID_TYPE, P.TOOL_CALLS),
        (
            messages(USER, {"role": "assistant", "tool_calls": [CALL | {"function": {"name": "f", "arguments": "["}}]}),
            C.INVALID_VALUE,
            P.TOOL_CALLS,
        ),
        (messages(USER, ANSWER, {"role": "system", "content": "s"}), C.INVALID_ORDER, P.ROLE),
        (messages(USER, {"role": "tool", "content": "r"}, ANSWER), C.MISSING, P.TOOL_CALL_ID),
        (messages(USER, {"role": "tool", "content": "r", "tool_call_id": "c1"}), C.INVALID_ORDER, P.TOOL_CALL_ID),
        (messages(*TURN, TURN[2]), C.INVALID_ORDER, P.TOOL_CALL_ID),
        (messages(USER), C.NOTHING_TO_LEARN, P.WEIGHT),
        (messages(ANSWER), C.NOTHING_TO_LEARN, P.WEIGHT),
        (messages(USER, ANSWER | {"weight": 0}), C.NOTHING_TO_LEARN, P.WEIGHT),
    ],
)
def test_bad(example: dict[str, Any], code: FaultCode, param: FaultParam | None) -> None:
    assert check(example) == (code, param)


def test_calls_that_are_nested_without_end_are_no_calls() -> None:
    deep = '{"a":' * 100_000
    call = CALL | {"function": {"name": "f", "arguments": deep}}
    assert check(messages(USER, {"role": "assistant", "tool_calls": [call]})) == (C.INVALID_VALUE, P.TOOL_CALLS)
