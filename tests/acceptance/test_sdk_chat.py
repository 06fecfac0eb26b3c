"""The official clients, unchanged, against a running server: the embedded model, and an upstream of every temper."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import groq
import openai
import pytest

from tests.support.serve import EMBEDDED, Served, serve, upstream_models
from tests.support.upstream import Behaviour, MockUpstream

EMBEDDED_ID = EMBEDDED["id"]
ASK: list[Any] = [{"role": "user", "content": "Say hello in one short sentence."}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CLIENTS = ["openai", "groq"]


@pytest.fixture(scope="module")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream(delay_s=3.0) as mock:
        yield mock


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, upstream: MockUpstream) -> Iterator[Served]:
    logging = {"id": "logging", "engine": "openai", "base_url": upstream.base_url, "retention": "logs_30d"}
    models = [EMBEDDED, *upstream_models(upstream.base_url), logging]
    with serve(tmp_path_factory.mktemp("served"), models) as server:
        yield server


@pytest.fixture(scope="module")
def clients(served: Served) -> Iterator[dict[str, Any]]:
    with (
        openai.OpenAI(api_key=served.api_key, base_url=f"{served.url}/openai/v1", max_retries=0) as one,
        groq.Groq(api_key=served.api_key, base_url=served.url, max_retries=0) as other,
    ):
        yield {"openai": one, "groq": other}


@pytest.fixture
def client(request: pytest.FixtureRequest, clients: dict[str, Any]) -> Any:
    return clients[request.param]


def each(*kinds: str) -> Any:
    return pytest.mark.parametrize("client", kinds or CLIENTS, indirect=True)


def create(client: Any, **more: Any) -> Any:
    return client.chat.completions.create(**{"model": EMBEDDED_ID, "messages": ASK, "max_tokens": 16, **more})


def raised(client: Any, **more: Any) -> Any:
    with pytest.raises((openai.APIError, groq.APIError)) as caught:
        create(client, **more)
    return caught.value


def until_it_raises(stream: Any, seen: list[Any]) -> None:
    seen.extend(stream)


def text_of(chunks: list[Any]) -> str:
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


# -- the embedded model --------------------------------------------------------------------------------------------


@each()
def test_an_answer(client: Any) -> None:
    answer = create(client, seed=1, temperature=0)
    assert answer.choices[0].message.content
    assert answer.model == EMBEDDED_ID
    assert answer.usage.prompt_tokens > 5
    assert 0 < answer.usage.completion_tokens <= 16
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert create(client, seed=1, temperature=0).choices[0].message.content == answer.choices[0].message.content


@each()
def test_a_stream_says_what_the_answer_says(client: Any) -> None:
    whole = create(client, seed=2, temperature=0)
    chunks = list(create(client, seed=2, temperature=0, stream=True))
    assert text_of(chunks) == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


@pytest.mark.parametrize("kind", CLIENTS)
def test_asynchronous_clients(served: Served, kind: str) -> None:
    async def main() -> None:
        make: Any = {"openai": openai.AsyncOpenAI, "groq": groq.AsyncGroq}[kind]
        base_url = {"openai": served.base_url, "groq": served.url}[kind]
        async with make(api_key=served.api_key, base_url=base_url, max_retries=0) as client:
            body = {"model": EMBEDDED_ID, "messages": ASK, "max_tokens": 8, "seed": 3, "temperature": 0}
            whole = await client.chat.completions.create(**body)
            chunks = [chunk async for chunk in await client.chat.completions.create(**body, stream=True)]
            assert text_of(chunks) == whole.choices[0].message.content

    asyncio.run(main())


@each("openai")
def test_usage_of_a_stream_comes_when_it_is_asked_for(client: Any) -> None:
    chunks = list(create(client, stream=True, stream_options={"include_usage": True}))
    assert not chunks[-1].choices
    assert chunks[-1].usage.prompt_tokens > 5
    assert not any(chunk.usage for chunk in create(client, stream=True))


@each("groq")
def test_groqs_own_members(client: Any) -> None:
    answer = create(client)
    assert answer.x_groq.id
    assert answer.usage.total_time > 0
    chunks = list(create(client, stream=True))
    assert chunks[0].x_groq.id
    assert chunks[-1].x_groq.usage.prompt_tokens > 5


@each("openai")
def test_stop_and_the_limit_of_tokens(client: Any) -> None:
    assert create(client, max_tokens=3).usage.completion_tokens <= 3
    assert create(client, max_tokens=3).choices[0].finish_reason == "length"
    text = create(client, max_tokens=32, seed=4, temperature=0).choices[0].message.content
    cut = create(client, max_tokens=32, seed=4, temperature=0, stop=text[3:6]).choices[0]
    assert cut.finish_reason == "stop"
    assert text[3:6] not in cut.message.content


@each()
def test_a_forced_tool(client: Any) -> None:
    choice = {"type": "function", "function": {"name": "get_weather"}}
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    answer = create(client, messages=messages, tools=[TOOL], tool_choice=choice, max_tokens=64, seed=1)
    (call,) = answer.choices[0].message.tool_calls
    assert (answer.choices[0].finish_reason, call.function.name) == ("tool_calls", "get_weather")
    assert set(json.loads(call.function.arguments)) == {"city"}
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    again = create(client, messages=[*messages, answer.choices[0].message, result], tools=[TOOL], max_tokens=32)
    assert again.choices[0].message.content


@each("openai")
def test_json(client: Any) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    form = {"type": "json_schema", "json_schema": {"name": "number", "schema": schema}}
    answer = create(client, response_format=form, max_tokens=64, seed=1)
    assert isinstance(json.loads(answer.choices[0].message.content)["n"], int)
    messages = [{"role": "user", "content": 'Answer as JSON: {"greeting": "..."}'}]
    answer = create(client, messages=messages, response_format={"type": "json_object"}, max_tokens=256, seed=1)
    assert isinstance(json.loads(answer.choices[0].message.content), dict)


@each("openai")
def test_logprobs_and_several_choices(client: Any) -> None:
    answer = create(client, logprobs=True, top_logprobs=2, n=2, max_tokens=4)
    assert len(answer.choices) == 2
    assert len(answer.choices[0].logprobs.content[0].top_logprobs) == 2


@each()
def test_models(client: Any) -> None:
    listed = {model.id: model for model in client.models.list().data}
    assert client.models.retrieve(EMBEDDED_ID).id == EMBEDDED_ID
    assert "tools" in listed[EMBEDDED_ID].capabilities
    assert listed[EMBEDDED_ID].data_retention["allowed_modes"] == ["default", "zero_data_retention"]
    assert listed["logging"].data_retention["allowed_modes"] == ["default"]


# -- refusals --------------------------------------------------------------------------------------------------------


@each()
@pytest.mark.parametrize(
    ("more", "name", "code", "param"),
    [
        ({"model": "MARKER"}, "NotFoundError", "model_not_found", "model"),
        ({"temperature": 9}, "BadRequestError", "invalid_value", "temperature"),
        ({"messages": []}, "BadRequestError", "invalid_value", "messages"),
        ({"extra_body": {"MARKER": 1}}, "BadRequestError", "unknown_parameter", None),
        ({"store": True}, "BadRequestError", "loosening_refused", "store"),
        ({"extra_headers": {"X-Keepless-Retention": "MARKER"}}, "BadRequestError", "invalid_value", None),
        ({"messages": [{"role": "user", "content": "word " * 9000}]}, "BadRequestError", "context_length_exceeded",
         None),
        ({"reasoning_effort": "low"}, "BadRequestError", "unsupported_parameter", "reasoning_effort"),
        ({"model": "logging", "extra_headers": {"X-Keepless-Retention": "zero"}}, "PermissionDeniedError",
         "upstream_retention_not_allowed", "model"),
    ],
)  # fmt: skip
def test_refusals(client: Any, more: dict[str, Any], name: str, code: str, param: str | None) -> None:
    error = raised(client, **more)
    body = error.response.json()["error"]
    assert (type(error).__name__, body["code"]) == (name, code)
    assert param is None or body["param"] == param
    assert "MARKER" not in error.response.text
    assert error.response.headers["x-keepless-retention"] == "none"
    assert error.response.headers["x-request-id"].startswith("req_")


@each()
def test_a_wrong_key(client: Any) -> None:
    with pytest.raises((openai.AuthenticationError, groq.AuthenticationError)) as caught:
        client.with_options(api_key="sk-MARKER").chat.completions.create(model=EMBEDDED_ID, messages=ASK)
    assert "MARKER" not in caught.value.response.text


# -- an upstream -----------------------------------------------------------------------------------------------------


@each()
def test_an_upstreams_answer_and_stream(client: Any, served: Served, upstream: MockUpstream) -> None:
    answer = create(client, model="ok", max_tokens=None)
    assert answer.choices[0].message.content == upstream.text
    chunks = list(create(client, model="ok", stream=True))
    assert text_of(chunks).split() == upstream.text.split()
    assert all(chunk.choices for chunk in chunks), "usage was asked of the upstream, not by the client"
    sent = upstream.received[-1]
    assert served.api_key not in str(sent.headers)
    assert sent.json["stream_options"] == {"include_usage": True}


@each()
@pytest.mark.parametrize(
    ("behaviour", "status", "code", "kept"),
    [
        (Behaviour.ERROR_400, 400, None, False),
        (Behaviour.ERROR_404, 404, None, False),
        (Behaviour.ERROR_401, 502, "upstream_authentication", False),
        (Behaviour.ERROR_429, 503, "upstream_busy", False),
        (Behaviour.ERROR_500, 502, "upstream_error", True),
        (Behaviour.ERROR_503, 502, "upstream_error", True),
        (Behaviour.BAD_JSON, 502, "upstream_malformed", True),
        (Behaviour.BAD_TYPE, 502, "upstream_malformed", True),
        (Behaviour.CUT_JSON, 502, "upstream_cut", True),
        (Behaviour.CUT_HEAD, 502, "upstream_cut", True),
        (Behaviour.RESET, 502, "upstream_cut", True),
        (Behaviour.GARBAGE, 502, "upstream_malformed", True),
        (Behaviour.HUGE_HEADERS, 502, "upstream_malformed", True),
        (Behaviour.NEVER, 504, "upstream_timeout", True),
        (Behaviour.SLOW_IDLE, 504, "upstream_timeout", True),
    ],
)
def test_failing_upstreams(
    client: Any, served: Served, behaviour: Behaviour, status: int, code: str | None, kept: bool, upstream: MockUpstream
) -> None:
    error = raised(client, model=behaviour.value)
    assert error.status_code == status
    retention = error.response.headers["x-keepless-retention"]
    if code is None:
        assert upstream.error_text in error.response.text, "a refusal is the client's, as it is"
    else:
        assert error.response.json()["error"]["code"] == code
        assert upstream.error_text not in error.response.text
    if kept:
        assert retention.startswith("class=reliability_log; object=obj_")
        object_id = retention.split("object=")[1].split(";")[0]
        found = served.ask("GET", "/organization/retained_objects?limit=100")["data"]
        assert object_id in [item["id"] for item in found]
    else:
        assert retention == "none"


@each()
@pytest.mark.parametrize("behaviour", [Behaviour.CUT_STREAM, Behaviour.ERROR_EVENT, Behaviour.SLOW_IDLE])
def test_a_stream_that_fails_raises_after_what_came(client: Any, behaviour: Behaviour) -> None:
    stream = create(client, model=behaviour.value, stream=True)
    seen: list[Any] = []
    with pytest.raises((openai.APIError, groq.APIError)):
        until_it_raises(stream, seen)
    assert seen
    assert stream.response.headers["x-keepless-retention"] == "on-error"


@each("openai")
def test_the_declaration_of_the_upstream_is_in_the_header(client: Any) -> None:
    raw = client.chat.completions.with_raw_response.create(model="logging", messages=ASK)
    assert raw.headers["x-keepless-retention"] == "none; upstream=logs_30d"


@each()
def test_a_client_that_leaves_stops_the_upstream(client: Any, upstream: MockUpstream) -> None:
    stream = create(client, model="slow-stream", stream=True)
    next(iter(stream))
    sent = upstream.received[-1]
    stream.close()
    left: Callable[[MockUpstream], bool] = lambda _: sent.closed_early
    assert upstream.wait_for(left, 2.0)
