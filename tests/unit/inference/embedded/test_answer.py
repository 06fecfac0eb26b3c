"""The engine's events as an OpenAI and Groq answer."""

import json
from dataclasses import replace

import pytest

from keepless.inference.embedded.answer import Answer, EngineFaultError
from keepless.inference.embedded.dialect import Plan

PLAN = Plan(
    request_id="req_abc",
    model="the-model",
    created=1000,
    started=50.0,
    stream=False,
    include_usage=False,
    seed=None,
    choices=1,
    tools=None,
    forced=False,
    json=False,
    schema=None,
    context=2048,
)


def event(text: str | None = None, finish: str | None = None, index: int = 0, **more) -> dict:
    delta = {} if text is None else {"content": text}
    choice = {"finish_reason": finish, "index": index, "delta": delta, **more}
    return {"choices": [choice], "id": "chatcmpl-theirs", "model": "/srv/model.gguf", "system_fingerprint": "b0-x"}


def usage(prompt: int = 40, completion: int = 3, cached: int = 0) -> dict:
    return {
        "choices": [],
        "model": "/srv/model.gguf",
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached},
        },
        "timings": {"prompt_ms": 300.0, "predicted_ms": 50.0, "prompt_n": prompt},
    }


def fed(plan: Plan, *events: dict, now: float = 51.0) -> tuple[Answer, bytes]:
    answer, out = Answer(plan), b""
    for each in events:
        out += answer.feed(json.dumps(each).encode(), now)
    if answer.status == 200:
        out += answer.feed(b"[DONE]", now)
    assert answer.done
    return answer, out


def chunks(out: bytes) -> list[dict]:
    *events, done, rest = out.decode().split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(each.removeprefix("data: ")) for each in events]


HELLO = (event(None, role=None), event("Hel"), event("lo"), event(None, "stop"), usage())
USAGE = {
    "queue_time": 0.7,
    "prompt_tokens": 40,
    "prompt_time": 0.3,
    "completion_tokens": 3,
    "completion_time": 0.05,
    "total_tokens": 43,
    "total_time": 0.35,
    "prompt_tokens_details": {"cached_tokens": 0},
}


def test_one_json() -> None:
    _, out = fed(replace(PLAN, seed=9), *HELLO)
    assert json.loads(out) == {
        "id": "chatcmpl-req_abc",
        "object": "chat.completion",
        "created": 1000,
        "model": "the-model",
        "system_fingerprint": "fp_keepless_llama",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello"},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
        "x_groq": {"id": "req_abc", "seed": 9},
    }


def test_a_stream() -> None:
    _, out = fed(replace(PLAN, stream=True), *HELLO)
    made = chunks(out)
    assert all(
        (chunk["id"], chunk["object"], chunk["created"], chunk["model"], chunk["system_fingerprint"])
        == ("chatcmpl-req_abc", "chat.completion.chunk", 1000, "the-model", "fp_keepless_llama")
        for chunk in made
    )
    assert [chunk["choices"][0]["delta"] for chunk in made] == [
        {"role": "assistant", "content": ""},
        {"content": "Hel"},
        {"content": "lo"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in made] == [None, None, None, "stop"]
    assert [chunk.get("x_groq") for chunk in made] == [
        {"id": "req_abc"},
        None,
        None,
        {"id": "req_abc", "usage": USAGE},
    ]
    assert all("usage" not in chunk for chunk in made)


def test_a_stream_with_usage_ends_with_it() -> None:
    _, out = fed(replace(PLAN, stream=True, include_usage=True), *HELLO)
    *_, last = chunks(out)
    assert (last["choices"], last["usage"]) == ([], USAGE)


def test_nothing_of_the_engines_own_gets_out() -> None:
    for stream in (False, True):
        _, out = fed(replace(PLAN, stream=stream, include_usage=True), *HELLO)
        for word in (b"gguf", b"chatcmpl-theirs", b"b0-x", b"timings", b"prompt_ms"):
            assert word not in out


def test_several_choices_add_up() -> None:
    events = (
        *(event("a", index=1), event("b", index=0), event(None, "stop", 1), usage(completion=2)),
        *(event(None, "length", 0), usage(completion=5)),
    )
    _, out = fed(replace(PLAN, choices=2), *events)
    made = json.loads(out)
    assert [(c["index"], c["message"]["content"], c["finish_reason"]) for c in made["choices"]] == [
        (0, "b", "length"),
        (1, "a", "stop"),
    ]
    assert (made["usage"]["prompt_tokens"], made["usage"]["completion_tokens"]) == (40, 7)
    _, out = fed(replace(PLAN, choices=2, stream=True), *events)
    made = chunks(out)
    assert [(c["choices"][0]["index"], c["choices"][0]["finish_reason"]) for c in made[-2:]] == [
        (1, "stop"),
        (0, "length"),
    ]
    assert made[-1]["x_groq"]["usage"]["completion_tokens"] == 7
    assert made[0]["choices"][0]["index"] == 1


def test_logprobs_without_token_ids() -> None:
    entry = {
        "id": 5,
        "token": "H",
        "bytes": [72],
        "logprob": -0.5,
        "top_logprobs": [{"id": 6, "token": "h", "logprob": -1, "bytes": [104]}],
    }
    clean = {
        "token": "H",
        "logprob": -0.5,
        "bytes": [72],
        "top_logprobs": [{"token": "h", "logprob": -1, "bytes": [104]}],
    }
    events = (event("H", logprobs={"content": [entry]}), event(None, "stop"), usage())
    _, out = fed(PLAN, *events)
    assert json.loads(out)["choices"][0]["logprobs"] == {"content": [clean], "refusal": None}
    _, out = fed(replace(PLAN, stream=True), *events)
    assert chunks(out)[1]["choices"][0]["logprobs"] == {"content": [clean], "refusal": None}


TOOLS = replace(PLAN, tools=frozenset({"get_weather"}))
CALL = '{"name": "get_weather", "arguments": {"city": "Oslo"}}'
MADE = {
    "id": "call_abc0",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city":"Oslo"}'},
}


@pytest.mark.parametrize("forced", [False, True])
def test_a_call(forced: bool) -> None:
    events = (event(CALL[:20]), event(CALL[20:]), event(None, "stop"), usage())
    _, out = fed(replace(TOOLS, forced=forced), *events)
    (choice,) = json.loads(out)["choices"]
    assert choice["message"] == {"role": "assistant", "content": None, "tool_calls": [MADE]}
    assert choice["finish_reason"] == "tool_calls"
    _, out = fed(replace(TOOLS, forced=forced, stream=True), *events)
    first, last = chunks(out)
    assert first["choices"][0]["delta"]["tool_calls"] == [{**MADE, "index": 0}]
    assert last["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    ("said", "finish", "content"),
    [
        ('{"name": "none", "message": "Hi!"}', "stop", "Hi!"),
        ('{"name": "none", "message": "Hi! How', "length", "Hi! How"),
        ('{"name": "other", "arguments": {}}', "stop", '{"name": "other", "arguments": {}}'),
        ('{"name": "no', "length", ""),
        ('{"na', "stop", ""),
        ('{"name": "none", "mess', "length", ""),
        ("words", "stop", "words"),
    ],
)
def test_no_call(said: str, finish: str, content: str) -> None:
    _, out = fed(TOOLS, event(said), event(None, finish), usage())
    (choice,) = json.loads(out)["choices"]
    assert (choice["message"], choice["finish_reason"]) == ({"role": "assistant", "content": content}, finish)
    _, out = fed(replace(TOOLS, stream=True), event(said), event(None, finish), usage())
    assert chunks(out)[0]["choices"][0]["delta"]["content"] == content


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("finish", ["length", "stop"])
def test_a_call_that_was_cut_is_groqs_400_and_never_words(finish: str, stream: bool) -> None:
    said = f'{{"name": "{MADE["function"]["name"]}", "argu'
    answer, out = fed(replace(TOOLS, stream=stream), event(said), event(None, finish), usage())
    error = json.loads(out)["error"]
    assert (answer.status, error["code"], error["failed_generation"]) == (400, "tool_use_failed", said)


@pytest.mark.parametrize("stream", [False, True])
def test_a_forced_call_that_failed_is_groqs_400(stream: bool) -> None:
    answer, out = fed(replace(TOOLS, forced=True, stream=stream), event('{"name"'), event(None, "length"), usage())
    assert answer.status == 400
    error = json.loads(out)["error"]
    assert (error["code"], error["failed_generation"], error["param"]) == ("tool_use_failed", '{"name"', None)


def test_json_that_was_cut_is_groqs_400_and_in_a_stream_simply_ends() -> None:
    events = (event('{"a": '), event(None, "length"), usage())
    answer, out = fed(replace(PLAN, json=True), *events)
    assert answer.status == 400
    assert json.loads(out)["error"]["code"] == "json_validate_failed"
    answer, out = fed(replace(PLAN, json=True, stream=True), *events)
    assert answer.status == 200
    assert chunks(out)[-1]["choices"][0]["finish_reason"] == "length"
    answer, _ = fed(replace(PLAN, json=True), event("{}"), event(None, "length"), usage())
    assert answer.status == 200


@pytest.mark.parametrize(
    "data",
    [
        b'{"error": {"message": "secret"}}',
        b"not json",
        b"[]",
        b'{"choices": [{"index": 5, "delta": {}, "finish_reason": null}]}',
        b'{"choices": [{"delta": {}}]}',
        b'{"choices": [7]}',
        b'{"choices": [], "usage": {"prompt_tokens": 1}}',
        b"[DONE]",
        b"\xff",
        b'{"a":' * 3000,
    ],
)
def test_what_makes_no_sense_is_a_fault_without_a_text(data: bytes) -> None:
    answer = Answer(PLAN)
    with pytest.raises(EngineFaultError) as raised:
        answer.feed(data, 51.0)
    assert not answer.done
    assert raised.value.args == ()
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


@pytest.mark.parametrize(
    ("status", "body", "schema", "code"),
    [
        (
            400,
            {"error": {"type": "exceed_context_size_error", "n_prompt_tokens": 9000}},
            None,
            "context_length_exceeded",
        ),
        (400, {"error": {"type": "exceed_context_size_error"}}, "tools", "context_length_exceeded"),
        (400, {"error": {"type": "invalid_request_error", "message": "secret"}}, "tools", "unsupported_value"),
        (400, {"error": "secret"}, None, "invalid_value"),
        (400, None, None, "invalid_value"),
        (401, {"error": {}}, None, None),
        (404, {"error": {}}, None, None),
        (500, {"error": {}}, None, None),
        (503, {"error": {}}, None, None),
    ],
)
def test_refusals(status: int, body: object, schema: str | None, code: str | None) -> None:
    encoded = b"no json" if body is None else json.dumps(body).encode()
    problem = Answer(replace(PLAN, schema=schema)).refusal(status, encoded)
    assert (problem and problem.code.value) == code
    if problem is not None:
        assert problem.status == 400
        assert "secret" not in problem.message
