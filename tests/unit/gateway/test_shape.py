"""The shape of a request: numbers and flags, whatever was typed."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepless.config import ModelConfig
from keepless.gateway.response_params import ResponseRules
from keepless.gateway.shape import CHAT, RESPONSES
from keepless.usage.record import Flag, Phase, Role, roles_to

M = "MARKER"
CASES: list[tuple[dict[str, Any], Flag]] = [
    ({}, Flag(0)),
    ({"stream": True}, Flag.STREAM),
    ({"stream": True, "stream_options": {"include_usage": True}}, Flag.STREAM | Flag.INCLUDE_USAGE),
    ({"tools": [{}, {}], "tool_choice": "auto"}, Flag.TOOLS | Flag.TOOL_CHOICE),
    ({"response_format": {"type": "json_object"}}, Flag.JSON_OBJECT),
    ({"response_format": {"type": "json_schema"}}, Flag.JSON_SCHEMA),
    ({"response_format": {"type": M}}, Flag(0)),
    ({"n": 1}, Flag(0)),
    ({"n": 2, "logprobs": True, "seed": 1, "stop": M}, Flag.SEVERAL | Flag.LOGPROBS | Flag.SEED | Flag.STOP),
    ({"reasoning_effort": M}, Flag.REASONING),
    ({"store": False}, Flag.PRIVACY_SWITCH),
    ({M: M}, Flag.EXTRA_PARAMETERS),
    ({"messages": [{"role": "system", "content": M}]}, Flag.SYSTEM),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url"}, {"type": "input_audio"}, {"type": "file"}]}]},
        Flag.IMAGES | Flag.AUDIO | Flag.FILES,
    ),
]


@pytest.mark.parametrize(("body", "flags"), CASES)
def test_flags(body: dict[str, Any], flags: Flag) -> None:
    assert CHAT.sketch(body, Phase.VALIDATE, body_bytes=1).flags == flags


def test_counts_and_sizes() -> None:
    body = {
        "messages": [{"role": "system", "content": "x"}, {"role": M, "content": M * 10}, {"role": "tool"}],
        "tools": [{}, {}],
    }
    sketch = CHAT.sketch(body, Phase.ANSWER, body_bytes=9, max_tokens=10**30, upstream_status=500, answered_bytes=4)
    assert (sketch.messages, sketch.tools, sketch.body_bytes, sketch.max_tokens) == (3, 2, 9, 2**31)
    assert roles_to(sketch.roles) == [Role.SYSTEM, Role.OTHER, Role.TOOL]
    assert sketch.largest_message_bytes == len(b'{"role":"MARKER","content":"') + 60 + 2
    assert (sketch.upstream_status, sketch.answered_bytes, sketch.phase) == (500, 4, Phase.ANSWER)


def test_a_body_that_could_not_be_read() -> None:
    sketch = CHAT.sketch(None, Phase.BODY, body_bytes=7, switched=True)
    assert (sketch.flags, sketch.messages, sketch.body_bytes) == (Flag.PRIVACY_SWITCH, 0, 7)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.just(M),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([M, "role", "type", "content"]), inner),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from(["messages", "tools", "n", "response_format", "stream", "stream_options", "stop", M]), JSON
    )
)
def test_any_json_has_a_shape_and_nothing_of_it_is_in_the_row(body: dict[str, Any]) -> None:
    row = CHAT.sketch(body, Phase.VALIDATE, body_bytes=1).row("req_x", 1)
    assert M not in str(row)


@pytest.mark.parametrize(
    ("messages", "max_tokens", "choices", "tokens"),
    [
        ([{"role": "user", "content": "x" * 40}], None, 1, 14),
        ([{"role": "user", "content": "x" * 40}], 100, 2, 214),
        ([{"role": "user", "content": [{"type": "text", "text": "x" * 40}]}], None, 1, 14),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x" * 10**6}}]}], None, 1, 804),
        ([{"role": "assistant", "content": None}], None, 1, 4),
    ],
)
def test_estimate(messages: list[dict[str, Any]], max_tokens: int | None, choices: int, tokens: int) -> None:
    assert CHAT.estimate({"messages": messages}, max_tokens, choices) == tokens


# -- /responses ----------------------------------------------------------------------------------------------------

RULES = ResponseRules(ModelConfig(id="m"), None)
NAMES = st.sampled_from(["input", "tools", "text", "instructions", "stream", "reasoning", "store", "extra"])


def test_a_conversation_of_responses() -> None:
    body = {
        "input": [
            {"role": "user", "content": [{"type": "input_image", "image_url": M}]},
            {"type": "function_call", "call_id": "c", "name": M, "arguments": M},
            {"type": "function_call_output", "call_id": "c", "output": M},
            {"type": "reasoning", "encrypted_content": M},
        ],
        "instructions": M,
        "tools": [{}, {}],
        "stream": True,
        "text": {"format": {"type": "json_schema"}},
        "reasoning": {"effort": "low"},
        M: M,
    }
    sketch = RESPONSES.sketch(body, Phase.ANSWER, body_bytes=9, max_tokens=2**40, switched=True)
    assert roles_to(sketch.roles) == [Role.USER, Role.ASSISTANT, Role.TOOL, Role.ASSISTANT]
    assert (sketch.messages, sketch.tools, sketch.max_tokens, sketch.body_bytes) == (4, 2, 2**31, 9)
    assert sketch.flags == (
        Flag.IMAGES
        | Flag.SYSTEM
        | Flag.TOOLS
        | Flag.STREAM
        | Flag.JSON_SCHEMA
        | Flag.REASONING
        | Flag.EXTRA_PARAMETERS
        | Flag.PRIVACY_SWITCH
    )
    assert M not in str(msgspec.structs.asdict(sketch))


@given(st.none() | st.dictionaries(NAMES, JSON, max_size=5))
def test_any_json_sent_to_responses_has_a_shape(body: dict[str, Any] | None) -> None:
    assert RESPONSES.sketch(body, Phase.VALIDATE, body_bytes=1).phase is Phase.VALIDATE


def test_the_estimate_of_responses_counts_texts_media_and_what_is_asked_for() -> None:
    checked = RULES.check(
        {
            "model": "m",
            "instructions": "a" * 40,
            "max_output_tokens": 100,
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "b" * 40}]},
                {"role": "user", "content": [{"type": "input_image", "image_url": "data:"}]},
            ],
        }
    )
    assert RESPONSES.estimate(checked.body, checked.max_tokens) == (40 + 40) // 4 + 2 * 4 + 800 + 100
