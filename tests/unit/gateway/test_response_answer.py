"""A chat engine's whole answer as a response."""

from typing import Any

import msgspec
import pytest
from openai.types.responses import Response

from keepless.config import ModelConfig
from keepless.gateway.response_answer import decode_chunk, ended, usage_of, whole
from keepless.gateway.response_object import Draft
from keepless.gateway.response_params import ResponseRules
from keepless.inference.asking import MalformedError

LOGPROB = {"token": "hello", "logprob": -0.5, "bytes": [104], "top_logprobs": []}
RULES = ResponseRules(ModelConfig(id="m"), None)


def made(message: dict[str, Any], finish: str = "stop", **more: Any) -> dict[str, Any]:
    draft = Draft(RULES.check({"model": "m", "input": "x"}), "m", 1)
    answer = {"choices": [{"message": message, "finish_reason": finish, **more}], "usage": {"prompt_tokens": 1}}
    response = whole(draft, msgspec.json.encode(answer), 2)
    Response.model_validate(response)
    return response


def test_a_text() -> None:
    response = made({"content": "hello"}, logprobs={"content": [LOGPROB]})
    (item,) = response["output"]
    assert (item["type"], item["role"], item["status"]) == ("message", "assistant", "completed")
    assert item["content"][0]["text"] == "hello"
    assert item["content"][0]["logprobs"] == [LOGPROB]
    assert (response["status"], response["completed_at"], response["usage"]["input_tokens"]) == ("completed", 2, 1)


def test_everything_at_once_in_its_order() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    said = {"content": "a", "refusal": "b", "reasoning_content": "c", "tool_calls": [call]}
    output = made(said)["output"]
    assert [item["type"] for item in output] == ["reasoning", "message", "function_call"]
    assert [part["type"] for part in output[1]["content"]] == ["output_text", "refusal"]
    assert [item["id"].split("_")[0] for item in output] == ["rs", "msg", "fc"]


def test_calls_alone_make_no_message() -> None:
    call = {"id": "c", "function": {"name": "f"}}
    assert [item["type"] for item in made({"content": None, "tool_calls": [call]})["output"]] == ["function_call"]


def test_nothing_is_an_empty_message() -> None:
    assert made({})["output"][0]["content"][0]["text"] == ""


def test_an_answer_that_was_cut_off_is_incomplete() -> None:
    response = made({"content": "a"}, "length")
    assert (response["status"], response["completed_at"]) == ("incomplete", None)
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}


@pytest.mark.parametrize("finish", ["stop", "tool_calls", None, "eos"])
def test_any_other_end_is_complete(finish: str | None) -> None:
    assert ended(finish) == ("completed", None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"choices":[]}',
        b'{"choices":[{}]}',
        b'{"choices":[{"message":{"content":1}}]}',
        b'{"choices":[{"message":{"tool_calls":[{"id":"c"}]}}]}',
        b'{"choices":[{"message":{"tool_calls":[{"function":{"name":"f"}}]}}]}',
    ],
)
def test_what_is_no_answer(body: bytes) -> None:
    with pytest.raises(MalformedError):
        whole(Draft(RULES.check({"model": "m", "input": "x"}), "m", 1), body, 2)


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        (b"{}", None),
        (b'{"usage":{"prompt_tokens":-1,"completion_tokens":9e99}}', None),
        (b'{"usage":{"prompt_tokens":-1,"completion_tokens":99999999999999999}}', (0, 0, 2**40, 0)),
        (b'{"x_groq":{"usage":{"prompt_tokens":1}}}', (1, 0, 0, 0)),
        (b'{"usage":{"prompt_tokens_details":{"cached_tokens":null},"completion_tokens_details":{}}}', (0, 0, 0, 0)),
    ],
)
def test_usage_is_never_negative_and_never_absurd(usage: bytes, counted: Any) -> None:
    if b"9e99" in usage:
        with pytest.raises(MalformedError):
            decode_chunk(usage)
    else:
        assert usage_of(decode_chunk(usage)) == counted
