"""The messages of a conversation: structure by role."""

from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepless.errors import Code, Problem
from keepless.gateway.messages import PARTS, ROLES, check_messages
from tests.support.outcome import outcome

M = "MARKER"
U = {"role": "user", "content": "x"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ASKED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}

FINE: list[list[dict[str, Any]]] = [
    [U],
    [{"role": "system", "content": "x"}, {"role": "developer", "content": [{"type": "text", "text": "x"}]}, U],
    [U, ASKED, {"role": "tool", "content": "42", "tool_call_id": "c1"}],
    [U, {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "content": "42", "tool_call_id": "c1"}],
    [U, {"role": "assistant", "function_call": CALL["function"]}, {"role": "function", "content": "42", "name": "f"}],
    [U, {"role": "assistant", "content": "x", "refusal": None, "annotations": None, "audio": None}],
    [U, {"role": "assistant", "content": None, "refusal": "no"}],
    [U, {"role": "assistant", "content": "x", "tool_calls": None, "reasoning": "r"}],
    [{"role": "user", "content": [{"type": "text", "text": "x"}, IMAGE]}],
    [{"role": "user", "content": "x", "name": "n"}],
    [{"role": "user", "content": ""}],
]
BAD: list[tuple[list[Any], Code, str]] = [
    ([M], Code.INVALID_TYPE, "messages[0]"),
    ([{}], Code.MISSING_PARAMETER, "messages[0].role"),
    ([{"role": M, "content": M}], Code.INVALID_VALUE, "messages[0].role"),
    ([{"role": [M], "content": M}], Code.INVALID_TYPE, "messages[0].role"),
    ([U, {"role": "user"}], Code.MISSING_PARAMETER, "messages[1].content"),
    ([{"role": "user", "content": None}], Code.MISSING_PARAMETER, "messages[0].content"),
    ([{"role": "assistant", "content": None}], Code.MISSING_PARAMETER, "messages[0].content"),
    ([{"role": "user", "content": {M: M}}], Code.INVALID_TYPE, "messages[0].content"),
    ([{"role": "user", "content": []}], Code.INVALID_VALUE, "messages[0].content"),
    ([{"role": "user", "content": [M]}], Code.INVALID_TYPE, "messages[0].content[0]"),
    ([{"role": "user", "content": [{}]}], Code.MISSING_PARAMETER, "messages[0].content[0].type"),
    ([{"role": "user", "content": [{"type": M}]}], Code.INVALID_VALUE, "messages[0].content[0].type"),
    ([{"role": "user", "content": [{"type": ["text"]}]}], Code.INVALID_VALUE, "messages[0].content[0].type"),
    ([{"role": "system", "content": [IMAGE]}], Code.INVALID_VALUE, "messages[0].content[0].type"),
    ([{"role": "user", "content": [{"type": "text"}]}], Code.MISSING_PARAMETER, "messages[0].content[0].text"),
    (
        [{"role": "user", "content": [{"type": "text", "text": 1}]}],
        Code.INVALID_TYPE,
        "messages[0].content[0].text",
    ),
    (
        [{"role": "user", "content": [{"type": "text", "text": "x", M: M}]}],
        Code.UNKNOWN_PARAMETER,
        "messages[0].content[0]",
    ),
    (
        [{"role": "user", "content": [{"type": "image_url", "image_url": M}]}],
        Code.INVALID_TYPE,
        "messages[0].content[0].image_url",
    ),
    (
        [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
        Code.MISSING_PARAMETER,
        "messages[0].content[0].image_url.url",
    ),
    (
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": [M]}}]}],
        Code.INVALID_TYPE,
        "messages[0].content[0].image_url.url",
    ),
    ([{"role": "user", "content": "x", M: M}], Code.UNKNOWN_PARAMETER, "messages[0]"),
    ([{"role": "user", "content": "x", "tool_calls": []}], Code.UNKNOWN_PARAMETER, "messages[0]"),
    ([{"role": "user", "content": "x", "name": [M]}], Code.INVALID_TYPE, "messages[0].name"),
    ([{**ASKED, "tool_calls": M}], Code.INVALID_TYPE, "messages[0].tool_calls"),
    ([{**ASKED, "tool_calls": [M]}], Code.INVALID_TYPE, "messages[0].tool_calls[0]"),
    ([{**ASKED, "tool_calls": [{M: M}]}], Code.UNKNOWN_PARAMETER, "messages[0].tool_calls[0]"),
    ([{**ASKED, "tool_calls": [{}]}], Code.MISSING_PARAMETER, "messages[0].tool_calls[0].id"),
    ([{**ASKED, "tool_calls": [{**CALL, "id": 1}]}], Code.INVALID_TYPE, "messages[0].tool_calls[0].id"),
    ([{**ASKED, "tool_calls": [{**CALL, "type": M}]}], Code.INVALID_VALUE, "messages[0].tool_calls[0].type"),
    (
        [{**ASKED, "tool_calls": [{**CALL, "function": {"name": M}}]}],
        Code.INVALID_TYPE,
        "messages[0].tool_calls[0].function.arguments",
    ),
    ([{"role": "assistant", "tool_calls": M}], Code.INVALID_TYPE, "messages[0].tool_calls"),
    ([{"role": "assistant", "tool_calls": [M]}], Code.INVALID_TYPE, "messages[0].tool_calls[0]"),
    ([{"role": "assistant", "function_call": M}], Code.INVALID_TYPE, "messages[0].function_call"),
    ([{"role": "assistant", "function_call": {"name": M}}], Code.INVALID_TYPE, "messages[0].function_call.arguments"),
    *(
        ([{"role": "assistant", "content": "x", key: 5}], Code.INVALID_TYPE, f"messages[0].{key}")
        for key in ("refusal", "reasoning", "reasoning_content", "audio", "annotations", "executed_tools")
    ),
    ([U, {"role": "tool", "content": "x"}], Code.MISSING_PARAMETER, "messages[1].tool_call_id"),
    ([U, {"role": "tool", "content": "x", "tool_call_id": [M]}], Code.INVALID_TYPE, "messages[1].tool_call_id"),
    ([U, {"role": "tool", "content": "x", "tool_call_id": M}], Code.INVALID_VALUE, "messages[1].tool_call_id"),
]


@pytest.mark.parametrize("messages", FINE)
def test_conversations_pass(messages: list[dict[str, Any]]) -> None:
    check_messages(messages, None)


@pytest.mark.parametrize(("messages", "code", "param"), BAD)
def test_what_is_wrong_is_named_and_not_quoted(messages: list[Any], code: Code, param: str) -> None:
    with pytest.raises(Problem) as caught:
        check_messages(messages, None)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, code, param)
    assert M not in caught.value.message


@pytest.mark.parametrize("messages", [*FINE, *(messages for messages, *_ in BAD)])
def test_a_content_that_is_absent_is_one_that_is_null(messages: list[Any]) -> None:
    def without(message: Any) -> Any:
        return (
            {k: v for k, v in message.items() if (k, v) != ("content", None)} if isinstance(message, dict) else message
        )

    def said(messages: list[Any]) -> tuple[Code, str | None] | None:
        problem = outcome(lambda: check_messages(messages, None))
        return None if problem is None else (problem.code, problem.param)

    assert said([without(message) for message in messages]) == said(messages)


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": [IMAGE]}, "messages[0].content[0].type"),
        ({"role": "user", "content": "x", "name": M}, "messages[0].name"),
    ],
)
def test_what_needs_a_capability_is_refused_without_it(message: dict[str, Any], param: str) -> None:
    with pytest.raises(Problem) as caught:
        check_messages([message], frozenset())
    assert (caught.value.code, caught.value.param) == (Code.UNSUPPORTED_PARAMETER, param)
    assert M not in caught.value.message


def test_every_part_of_every_role_is_in_the_table() -> None:
    for role in ROLES.values():
        assert role.parts <= PARTS.keys()
        assert set(role.silent) <= role.keys


KEYS = ["role", "content", "name", "tool_calls", "tool_call_id", "type", "text", "id", "function", "image_url", M]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from([M, "user", "assistant", "tool", "text", "image_url"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=12,
)


@given(JSON)
def test_nothing_but_a_problem_comes_out_and_it_is_silent(messages: Any) -> None:
    for capabilities in (None, frozenset[str]()):
        problem = outcome(partial(check_messages, messages, capabilities))
        assert problem is None or M not in f"{problem.message}{problem.param}"
