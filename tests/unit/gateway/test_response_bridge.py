"""A request of /responses as one of chat."""

from typing import Any

import pytest

from keepless.config import ModelConfig
from keepless.errors import Problem
from keepless.gateway.chat_params import ChatRules
from keepless.gateway.response_bridge import to_chat
from keepless.gateway.response_params import ResponseRules, bridged_capabilities

MODEL = ModelConfig(id="m")
RULES, CHAT = ResponseRules(MODEL, bridged_capabilities(None)), ChatRules(MODEL, None)
FUNCTION = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
OTHER = {"type": "function", "name": "g", "parameters": None}
CHAT_FUNCTION = {"type": "function", "function": {key: FUNCTION[key] for key in FUNCTION if key != "type"}}


def call(number: int) -> dict[str, Any]:
    return {"type": "function_call", "call_id": f"c{number}", "name": "f", "arguments": "{}", "id": "fc_1"}


def asked(**more: Any) -> dict[str, Any]:
    """What chat is asked; chat's own rules find nothing wrong with it."""
    sent = to_chat(RULES.check({"model": "m", "input": "hello", **more}))
    assert CHAT.check({**sent})
    return sent


def said(*items: Any) -> Any:
    return asked(input=list(items))["messages"]


@pytest.mark.parametrize(
    ("more", "sent"),
    [
        ({}, {}),
        ({"max_output_tokens": 5}, {"max_completion_tokens": 5}),
        ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        ({"temperature": 1, "top_p": 1, "user": "u"}, {"temperature": 1, "top_p": 1, "user": "u"}),
        ({"metadata": {"a": "b"}, "truncation": "disabled", "include": ["reasoning.encrypted_content"]}, {}),
        ({"reasoning": {"effort": "low"}}, {"reasoning_effort": "low"}),
        ({"reasoning": {"effort": "none"}}, {}),
        ({"text": {"verbosity": "low"}}, {"verbosity": "low"}),
        ({"text": {"format": {"type": "text"}, "verbosity": "medium"}}, {}),
        ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
        (
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {}, "strict": None}}},
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}},
        ),
        ({"include": ["message.output_text.logprobs"]}, {"logprobs": True, "top_logprobs": 0}),
        ({"top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
        ({"tools": [FUNCTION]}, {"tools": [CHAT_FUNCTION]}),
        ({"tools": []}, {}),
        (
            {"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "f"}},
            {"tools": [CHAT_FUNCTION], "tool_choice": {"type": "function", "function": {"name": "f"}}},
        ),
        (
            {
                "tools": [FUNCTION, OTHER],
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "required",
                    "tools": [{"type": "function", "name": "f"}],
                },
            },
            {"tools": [CHAT_FUNCTION], "tool_choice": "required"},
        ),
    ],
)
def test_parameters(more: dict[str, Any], sent: dict[str, Any]) -> None:
    assert asked(**more) == {"model": "m", "messages": [{"role": "user", "content": "hello"}], **sent}


def test_instructions_come_first() -> None:
    assert asked(instructions="be kind")["messages"][0] == {"role": "system", "content": "be kind"}


def test_texts_in_parts_are_one_text() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "text", "text": "b"}]
    assert said({"role": "user", "content": parts}) == [{"role": "user", "content": "a\nb"}]


def test_images_files_and_sounds_keep_their_place() -> None:
    sound = {"data": "x", "format": "wav"}
    parts = [
        {"type": "input_text", "text": "a"},
        {"type": "input_image", "image_url": "data:", "detail": "low"},
        {"type": "input_file", "file_data": "data:", "filename": "f"},
        {"type": "input_audio", "input_audio": sound},
    ]
    assert said({"role": "user", "content": parts})[0]["content"] == [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": "data:", "detail": "low"}},
        {"type": "file", "file": {"file_data": "data:", "filename": "f"}},
        {"type": "input_audio", "input_audio": sound},
    ]


def test_calls_that_follow_one_another_are_one_message() -> None:
    output = {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "42"}]}
    thought = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "sealed"}
    before = {"role": "assistant", "content": [{"type": "output_text", "text": "let me see"}]}
    chat = said({"role": "user", "content": "?"}, thought, before, call(1), call(2), output)
    calls = [{"id": f"c{n}", "type": "function", "function": {"name": "f", "arguments": "{}"}} for n in (1, 2)]
    assert chat == [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "let me see", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]
    assert said({"role": "user", "content": "?"}, call(1))[1] == {
        "role": "assistant",
        "content": None,
        "tool_calls": calls[:1],
    }


def test_a_refusal_stays_one() -> None:
    refused = {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}
    assert said(refused) == [{"role": "assistant", "content": "", "refusal": "no"}]


@pytest.mark.parametrize(
    ("items", "param"),
    [
        ([{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}], "input[0].content[0].file_id"),
        ([{"role": "user", "content": [{"type": "input_file", "file_url": "f"}]}], "input[0].content[0].file_url"),
        (
            [
                call(1),
                {
                    "type": "function_call_output",
                    "call_id": "c1",
                    "output": [{"type": "input_image", "image_url": "data:"}],
                },
            ],
            "input[1].output",
        ),
    ],
)
def test_what_chat_has_no_word_for(items: list[Any], param: str) -> None:
    with pytest.raises(Problem) as caught:
        asked(input=items)
    assert (caught.value.status, caught.value.param) == (400, param)
