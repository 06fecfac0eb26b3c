"""/responses with the clients that people use: OpenAI's SDK, its Agents SDK, LangChain, Groq's SDK by path.

The embedded model answers for real; a scripted upstream says exactly what a test needs, as a chat engine (bridged) and
as one that speaks /responses itself (native).
"""

import asyncio
import json
import os
from collections.abc import Iterator
from typing import Any

import groq
import openai
import pydantic
import pytest

from tests.support.responses import STOP, USAGE, call, delta, sse
from tests.support.scripted import ScriptedUpstream
from tests.support.serve import EMBEDDED, Served, serve

os.environ["OPENAI_AGENTS_DISABLE_TRACING"] = "1"  # before it is imported: it would open the network
os.environ["LANGSMITH_TRACING"] = "false"

ID = EMBEDDED["id"]
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
SEALED = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "c2VhbGVk"}
SAID = {
    "type": "message",
    "id": "msg_1",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "From upstream.", "annotations": [], "logprobs": []}],
}
OWN = {
    "id": "resp_upstream",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "model": "native",
    "output": [SEALED, SAID],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "store": False,
    "usage": {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 8,
    },
}


def event(kind: str, number: int, **more: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, 'sequence_number': number, **more})}\n\n".encode()


NATIVE = [
    event("response.created", 0, response={**OWN, "status": "in_progress", "output": []}),
    event("response.output_item.added", 1, output_index=0, item={**SAID, "content": []}),
    event(
        "response.content_part.added",
        2,
        output_index=0,
        item_id="msg_1",
        content_index=0,
        part={"type": "output_text", "text": "", "annotations": []},
    ),
    event(
        "response.output_text.delta",
        3,
        output_index=0,
        item_id="msg_1",
        content_index=0,
        delta="From upstream.",
        logprobs=[],
    ),
    event("response.output_item.done", 4, output_index=0, item=SAID),
    event("response.completed", 5, response={**OWN, "output": [SAID]}),
]


def script(path: str, body: dict[str, Any]) -> dict[str, Any] | list[bytes]:
    """The upstream: `native` speaks /responses, anything else chat; a tool is called once, then its result is told."""
    if path == "/responses":
        if body.get("input") == "cut":
            return NATIVE[:4]
        return NATIVE if body.get("stream") else OWN
    last = body["messages"][-1]
    stream = body.get("stream")
    if body["model"] == "cut":
        return sse(delta(content="From"), done=False)
    if body.get("tools") and last["role"] != "tool":
        name = body["tools"][0]["function"]["name"]
        said = [call(0, '{"city"', call_id="call_1", name=name), call(0, ':"Paris"}'), STOP]
        calls = [{"id": "call_1", "type": "function", "function": {"name": name, "arguments": '{"city":"Paris"}'}}]
        message: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": calls}
    else:
        text = f"I heard: {last['content']}" if type(last["content"]) is str else "I saw."
        said = [delta(reasoning="Hm."), delta(content=text[:5]), delta(content=text[5:]), STOP]
        message = {"role": "assistant", "content": text, "reasoning": "Hm."}
    if stream:
        return sse(*said, USAGE)
    finish = "tool_calls" if message.get("tool_calls") else "stop"
    return {"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": USAGE["usage"]}


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(script) as scripted:
        yield scripted


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, upstream: ScriptedUpstream) -> Iterator[Served]:
    made = {"engine": "openai", "base_url": upstream.base_url, "retention": "zero"}
    models = [
        EMBEDDED,
        {"id": "chat", **made},
        {"id": "cut", **made},
        {"id": "native", "native_responses": True, **made},
    ]
    with serve(tmp_path_factory.mktemp("served"), models) as server:
        yield server


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=served.api_key, base_url=f"{served.url}/openai/v1", max_retries=0) as made:
        yield made


def refused(client: openai.OpenAI, **more: Any) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as caught:
        client.responses.create(**{"model": ID, "input": "MARKER", **more})
    assert "MARKER" not in str(caught.value.body)
    return caught.value


# The SDK dumps its own parsed types by their unparsed ones; pydantic says so.
SERIALIZER = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")


class City(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=20)  # a small model does not find an end by itself


# -- OpenAI's SDK, the embedded model ------------------------------------------------------------------------------


def test_an_answer(client: openai.OpenAI) -> None:
    made = client.responses.create(
        model=ID, instructions="Be short.", input="Say hello.", max_output_tokens=12, metadata={"a": "b"}
    )
    assert made.output_text
    assert (made.model, made.store, made.metadata, made.previous_response_id) == (ID, False, {"a": "b"}, None)
    assert made.id.startswith("resp_")
    assert made.usage is not None
    assert 0 < made.usage.output_tokens <= 12
    counted = client.responses.input_tokens.count(model=ID, instructions="Be short.", input="Say hello.")
    assert counted.input_tokens == made.usage.input_tokens


def test_a_stream_with_its_helper(client: openai.OpenAI) -> None:
    with client.responses.stream(model=ID, input="Say hello.", max_output_tokens=8, temperature=0) as stream:
        events = list(stream)
    found = [found.type for found in events]
    assert [found[0], found[1], found[-2]] == ["response.created", "response.in_progress", "response.output_item.done"]
    assert found[-1] in ("response.completed", "response.incomplete")
    assert [one.sequence_number for one in events] == list(range(len(events)))
    said = "".join(one.delta for one in events if one.type == "response.output_text.delta")
    assert said == events[-1].response.output[0].content[0].text


@SERIALIZER
def test_a_type_is_parsed_from_what_it_says(client: openai.OpenAI) -> None:
    parsed = client.responses.parse(model=ID, input="A city in France.", text_format=City, max_output_tokens=200)
    assert isinstance(parsed.output_parsed, City)


def test_a_function_is_called(client: openai.OpenAI) -> None:
    made = client.responses.create(model=ID, input="Weather in Paris?", tools=[WEATHER], tool_choice="required")
    (item,) = made.output
    assert item.type == "function_call"
    assert (item.name, "city" in json.loads(item.arguments)) == ("get_weather", True)
    told = client.responses.create(
        model=ID,
        tools=[WEATHER],
        max_output_tokens=16,
        input=[
            {"role": "user", "content": "Weather in Paris?"},
            *(one.to_dict() for one in made.output),
            {"type": "function_call_output", "call_id": item.call_id, "output": "Sunny, 21 degrees."},
        ],
    )
    assert told.output_text


def test_the_asynchronous_client(served: Served) -> None:
    async def main() -> None:
        async with openai.AsyncOpenAI(api_key=served.api_key, base_url=served.base_url, max_retries=0) as client:
            body: Any = {"model": ID, "input": "Say hello.", "max_output_tokens": 6, "temperature": 0}
            whole = await client.responses.create(**body)
            chunks = [one async for one in await client.responses.create(**body, stream=True)]
            assert chunks[-1].response.output_text == whole.output_text
            async with client.responses.stream(**body) as stream:
                assert [one.type async for one in stream][-1] in ("response.completed", "response.incomplete")

    asyncio.run(main())


# -- a chat engine, and one that speaks /responses ------------------------------------------------------------------


def test_a_chat_engine_is_bridged(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"}
    text = {"type": "input_text", "text": "What is it?"}
    made = client.responses.create(model="chat", input=[{"role": "user", "content": [text, image]}])
    assert made.output_text == "I saw."
    assert [item.type for item in made.output] == ["reasoning", "message"]
    assert made.usage is not None
    assert made.usage.output_tokens_details.reasoning_tokens == 1
    assert upstream.asked[-1][1]["messages"][0]["content"][1]["image_url"]["url"] == "data:image/png;base64,AA=="


def test_a_bridged_stream_with_its_helper(client: openai.OpenAI) -> None:
    with client.responses.stream(model="chat", input="hello") as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert final.output_text == "I heard: hello"
    assert [one.type.removeprefix("response.") for one in events][2:6] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.done",
    ]
    with client.responses.stream(model="chat", input="hello", tools=[WEATHER]) as stream:
        (item,) = stream.get_final_response().output
    assert (item.type, item.arguments) == ("function_call", '{"city":"Paris"}')


def test_a_native_upstream_is_passed_through(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    made = client.responses.create(
        model="native", input=[SEALED, {"role": "user", "content": "x"}], include=["reasoning.encrypted_content"]
    )
    assert made.to_dict() == OWN
    path, body = upstream.asked[-1]
    assert (path, body["store"], body["input"][0]) == ("/responses", False, SEALED)
    raw = client.responses.with_raw_response.create(model="native", input="x", stream=True)
    assert b"".join(raw.http_response.iter_bytes()) == b"".join(NATIVE)
    with client.responses.stream(model="native", input="x") as stream:
        assert stream.get_final_response().output_text == "From upstream."


def test_a_bridged_stream_that_is_cut_ends_with_a_failed_response(client: openai.OpenAI) -> None:
    events = list(client.responses.create(model="cut", input="x", stream=True))
    assert events[-1].type == "response.failed"
    assert events[-1].response.error is not None
    assert events[-1].response.error.code == "server_error"


def test_a_native_stream_that_is_cut_ends_with_an_error(client: openai.OpenAI) -> None:
    events = list(client.responses.create(model="native", input="cut", stream=True))
    assert (events[-1].type, events[-1].sequence_number, events[-1].code) == ("error", 4, "upstream_cut")


# -- without state -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "status", "code", "param"),
    [
        ({"previous_response_id": "MARKER"}, 400, "unsupported_parameter", "previous_response_id"),
        ({"conversation": "MARKER"}, 400, "unsupported_parameter", "conversation"),
        ({"background": True}, 400, "unsupported_parameter", "background"),
        ({"store": True}, 400, "loosening_refused", "store"),
        ({"input": [{"type": "item_reference", "id": "MARKER"}]}, 404, "not_found", "input"),
    ],
)
def test_what_would_need_something_kept(
    client: openai.OpenAI, more: dict[str, Any], status: int, code: str, param: str
) -> None:
    error = refused(client, **more)
    assert (error.status_code, error.code, error.param) == (status, code, param)


def test_the_words_that_clients_look_for(client: openai.OpenAI) -> None:
    message = "Previous response cannot be used for this organization due to Zero Data Retention."
    assert refused(client, previous_response_id="resp_1").body["message"] == message
    assert "Items are not persisted for Zero Data Retention organizations" in str(
        refused(client, input=[{"type": "item_reference", "id": "msg_1"}])
    )


def test_no_response_can_be_had_again(client: openai.OpenAI) -> None:
    made = client.responses.create(model="chat", input="x")
    for ask in (
        client.responses.retrieve,
        client.responses.delete,
        client.responses.cancel,
        client.responses.input_items.list,
    ):
        with pytest.raises(openai.NotFoundError, match="not stored"):
            ask(made.id)


def test_usage_has_a_row_for_it(client: openai.OpenAI, served: Served) -> None:
    raw = client.responses.with_raw_response.create(model="chat", input="x")
    assert raw.headers["x-keepless-retention"] == "none"
    assert raw.headers["x-request-id"].startswith("req_")


# -- other clients -------------------------------------------------------------------------------------------------


def test_groqs_client_by_path(served: Served) -> None:
    with groq.Groq(api_key=served.api_key, base_url=served.url, max_retries=0) as client:
        made = client.post("/openai/v1/responses", body={"model": "chat", "input": "hello"}, cast_to=object)
    assert (made["object"], made["store"], made["background"]) == ("response", False, False)


def test_the_agents_sdk_calls_tools(served: Served) -> None:
    import agents

    asked: list[str] = []

    @agents.function_tool
    def get_weather(city: str) -> str:
        """The weather of a city."""
        asked.append(city)
        return "Sunny."

    async def main() -> None:
        agents.set_tracing_disabled(disabled=True)
        async with openai.AsyncOpenAI(api_key=served.api_key, base_url=served.base_url, max_retries=0) as client:
            model = agents.OpenAIResponsesModel(model="chat", openai_client=client)
            agent = agents.Agent(name="Forecaster", instructions="Be short.", model=model, tools=[get_weather])
            result = await agents.Runner.run(agent, "Weather in Paris?")
            assert result.final_output == "I heard: Sunny."
            streamed = agents.Runner.run_streamed(agent, "Weather in Paris?")
            async for _ in streamed.stream_events():
                pass
            assert streamed.final_output == "I heard: Sunny."
            small = agents.OpenAIResponsesModel(model=ID, openai_client=client)
            settings = agents.ModelSettings(max_tokens=1000)
            plain = agents.Agent(name="Small", instructions="Be short.", model=small, model_settings=settings)
            assert (await agents.Runner.run(plain, "Say hello in one short sentence.")).final_output

    asyncio.run(main())
    assert asked == ["Paris", "Paris"]


def test_langchain(served: Served) -> None:
    from langchain_openai import ChatOpenAI

    def made(model: str, **more: Any) -> Any:
        return ChatOpenAI(
            model=model, api_key=served.api_key, base_url=served.base_url, use_responses_api=True, max_retries=0, **more
        )

    chat = made("chat")
    assert chat.invoke("hello").text == "I heard: hello"
    assert "".join(chunk.text for chunk in chat.stream("hello")) == "I heard: hello"
    answer = chat.bind_tools([{"name": "get_weather", "parameters": WEATHER["parameters"]}]).invoke("Weather in Paris?")
    assert answer.tool_calls[0]["args"] == {"city": "Paris"}
    assert answer.usage_metadata["input_tokens"] == 3
    assert made(ID, max_tokens=200).with_structured_output(City).invoke("A city in France.").name
