"""/responses field by field: each is sent along, echoed or refused, and every refusal in its exact words.

One row for each parameter of OpenAI's and each of ours; a parameter without a row fails. And the events of each kind of
answer, in their exact order.
"""

from typing import Any, NamedTuple

import msgspec
import pytest

from keepless.config import Endpoint
from keepless.gateway.response_params import PARAMETERS
from tests.support.responses import STOP, USAGE, call, delta, kinds, read, sse
from tests.support.way import KEY, FakeReply, Harness, Step, answer, asked, data, end, head, stream
from tests.support.way import SSE as EVENTS

CHAT = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": USAGE["usage"],
}
OWN = {"object": "response", "id": "resp_x", "output": [], "usage": {"input_tokens": 3, "output_tokens": 5}}
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
SCHEMA = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
ZDR = "cannot be used for this organization due to Zero Data Retention."


class Row(NamedTuple):
    """One parameter: what is taken, what a chat engine is asked then, what the response echoes; and what is refused.

    `chat`: members that a chat engine is asked beside model and messages; a text: not taken by a bridge, in these
    words. `echo`: what the response says under the same name; ABSENT: it has no such member.
    """

    good: Any
    chat: dict[str, Any] | str
    echo: Any
    bad: Any
    words: str
    code: str = "invalid_value"


ABSENT: Any = object()


def kind(name: str, expected: str, got: str = "an object") -> str:
    return f"Invalid type for '{name}': expected {expected}, but got {got} instead."


def loosens(name: str) -> str:
    return f"'{name}' would keep more than the data controls allow a request to ask for; a request can only tighten."


def lacks(what: str) -> str:
    return f"`{what}` is not supported with this model"


WALK: dict[str, Row] = {
    "model": Row("zero", {}, "zero", 1, kind("model", "a string", "an integer"), "invalid_type"),
    "input": Row("QUESTION", {}, ABSENT, 1, kind("input", "a string or an array", "an integer"), "invalid_type"),
    "instructions": Row("be kind", {}, "be kind", {}, kind("instructions", "a string"), "invalid_type"),
    "stream": Row(False, {"stream": False}, ABSENT, "yes", kind("stream", "a boolean", "a string"), "invalid_type"),
    "stream_options": Row(
        None, {}, ABSENT, {}, "The 'stream_options' parameter is only allowed when 'stream' is enabled."
    ),
    "max_output_tokens": Row(
        7, {"max_completion_tokens": 7}, 7, 0,
        "Invalid value for 'max_output_tokens': expected an integer from 1 to 2147483648.",
    ),
    "max_tool_calls": Row(
        3, lacks("max_tool_calls"), ABSENT, 0,
        "Invalid value for 'max_tool_calls': expected an integer from 1 to 2147483648.",
    ),
    "temperature": Row(
        0.5, {"temperature": 0.5}, 0.5, 3, "Invalid value for 'temperature': expected a number from 0 to 2."
    ),
    "top_p": Row(0.5, {"top_p": 0.5}, 0.5, 2, "Invalid value for 'top_p': expected a number from 0 to 1."),
    "top_logprobs": Row(
        2, {"logprobs": True, "top_logprobs": 2}, 2, 21,
        "Invalid value for 'top_logprobs': expected an integer from 0 to 20.",
    ),
    "tools": Row([TOOL], {"tools": [FUNCTION]}, [TOOL], {}, kind("tools", "an array"), "invalid_type"),
    "tool_choice": Row(
        "auto", {}, "auto", "some", "Invalid value for 'tool_choice': expected none, auto, required or a function."
    ),
    "parallel_tool_calls": Row(
        False, {"parallel_tool_calls": False}, False, 1, kind("parallel_tool_calls", "a boolean", "an integer"),
        "invalid_type",
    ),
    "text": Row(
        {"format": SCHEMA, "verbosity": "low"},
        {
            "response_format": {
                "type": "json_schema", "json_schema": {key: SCHEMA[key] for key in ("name", "schema", "strict")}
            },
            "verbosity": "low",
        },
        {"format": SCHEMA, "verbosity": "low"},
        {"format": {"type": "xml"}},
        "Invalid value for 'text.format.type': expected one of json_object, json_schema, text.",
    ),
    "reasoning": Row(
        {"effort": "low"}, {"reasoning_effort": "low"}, {"effort": "low", "summary": None}, {"effort": "much"},
        "Invalid value for 'reasoning.effort': expected one of default, high, low, max, medium, minimal, none, xhigh.",
    ),
    "include": Row(
        ["reasoning.encrypted_content"], {}, ABSENT, {}, kind("include", "an array"), "invalid_type"
    ),
    "truncation": Row(
        "disabled", {}, "disabled", "some", "Invalid value for 'truncation': expected one of auto, disabled."
    ),
    "metadata": Row(
        {"a": "b"}, {}, {"a": "b"}, {"a": 1},
        "Invalid value for 'metadata': expected strings of at most 512 characters.",
    ),
    "user": Row("u", {"user": "u"}, "u", 1, kind("user", "a string", "an integer"), "invalid_type"),
    "safety_identifier": Row(
        "s", {"safety_identifier": "s"}, "s", "s" * 129,
        "Invalid value for 'safety_identifier': expected a string of at most 128 characters.",
    ),
    "prompt_cache_key": Row(
        "k", {"prompt_cache_key": "k"}, "k", 1, kind("prompt_cache_key", "a string", "an integer"), "invalid_type"
    ),
    "prompt_cache_options": Row({"x": 1}, {"prompt_cache_options": {"x": 1}}, ABSENT, None, ""),
    "service_tier": Row(
        "flex", {"service_tier": "flex"}, "default", "slow",
        "Invalid value for 'service_tier': expected one of auto, default, fast, flex, on_demand, performance, "
        "priority, scale."
    ),
    "previous_response_id": Row(
        None, {}, None, "resp_1", f"Previous response {ZDR}", "unsupported_parameter"
    ),
    "conversation": Row(None, {}, ABSENT, "conv_1", f"Conversation {ZDR}", "unsupported_parameter"),
    "background": Row(False, {}, False, True, f"Background mode {ZDR}", "unsupported_parameter"),
    "background_options": Row(None, {}, ABSENT, {}, f"Background mode {ZDR}", "unsupported_parameter"),
    "prompt": Row({"id": "pmpt_1"}, lacks("prompt"), ABSENT, None, ""),
    "context_management": Row([{"type": "compaction"}], lacks("context_management"), ABSENT, None, ""),
    "access_programs": Row({"x": 1}, lacks("access_programs"), ABSENT, None, ""),
    "image": Row({"x": 1}, lacks("image"), ABSENT, None, ""),
    "moderation": Row({"x": 1}, lacks("moderation"), ABSENT, None, ""),
    "store": Row(False, {}, False, True, loosens("store"), "loosening_refused"),
    "prompt_cache_retention": Row(
        "in_memory", {}, ABSENT, "24h", loosens("prompt_cache_retention"), "loosening_refused"
    ),
    "no-log": Row(True, {}, ABSENT, False, loosens("no-log"), "loosening_refused"),
    "provider": Row({"zdr": True}, {}, ABSENT, {"zdr": False}, loosens("provider.zdr"), "loosening_refused"),
    "providerOptions": Row(
        {"gateway": {"zeroDataRetention": True}}, {}, ABSENT, {"gateway": {"zeroDataRetention": False}},
        loosens("providerOptions.gateway.zeroDataRetention"),
        "loosening_refused",
    ),
}  # fmt: skip


def ask(*script: Step, **more: Any) -> tuple[FakeReply, Harness]:
    return asked(*script, more=more, to=Endpoint.RESPONSES)


def test_every_parameter_has_its_row() -> None:
    assert WALK.keys() == PARAMETERS.keys()


@pytest.mark.parametrize("name", WALK)
def test_what_is_taken_is_asked_for_and_echoed(name: str) -> None:
    row = WALK[name]
    reply, harness = ask(*answer(msgspec.json.encode(CHAT)), **{name: row.good})
    if isinstance(row.chat, str):
        assert (reply.status, reply.error["message"], reply.error["param"]) == (400, row.chat, name)
        assert (reply.error["code"], reply.error["type"]) == ("unsupported_parameter", "invalid_request_error")
        assert not harness.backend.calls
        return
    assert reply.status == 200
    (sent,) = harness.backend.bodies
    system = [{"role": "system", "content": "be kind"}] if name == "instructions" else []
    messages = [*system, {"role": "user", "content": "QUESTION"}]
    assert sent == {"model": "zero", "messages": messages, **row.chat}
    made = msgspec.json.decode(reply.body)
    if row.echo is ABSENT:
        assert name not in made or made[name] is None
    else:
        assert made[name] == row.echo
    assert (made["store"], made["background"], made["previous_response_id"]) == (False, False, None)


@pytest.mark.parametrize("name", WALK)
def test_what_speaks_responses_itself_is_sent_the_same(name: str) -> None:
    row = WALK[name]
    reply, harness = ask(*answer(msgspec.json.encode(OWN)), **{"model": "native", name: row.good, "input": "QUESTION"})
    if name == "model":
        return  # another model is another engine
    assert reply.status == 200
    (sent,) = harness.backend.bodies
    ours = ("store", "prompt_cache_retention", "no-log", "provider", "providerOptions")
    more = {} if row.good is None or name in ours else {name: row.good}
    assert sent == {"input": "QUESTION", **more, "model": "its-own-name", "store": False}


@pytest.mark.parametrize("model", ["zero", "native", "embedded"])
@pytest.mark.parametrize("name", [name for name, row in WALK.items() if row.bad is not None])
def test_what_is_refused_is_refused_in_these_words(name: str, model: str) -> None:
    row = WALK[name]
    reply, harness = ask(**{"model": model, name: row.bad})
    assert reply.status == 400
    error = reply.error
    assert (error["code"], error["type"]) == (row.code, "invalid_request_error")
    assert error["message"] == row.words
    assert (error["param"] or "").split(".")[0].split("[")[0] == name
    assert not harness.backend.calls


def test_a_reference_to_what_was_never_kept_is_refused_in_these_words() -> None:
    reply, _ = ask(input=[{"type": "item_reference", "id": "msg_1"}])
    assert (reply.status, reply.error["code"], reply.error["param"]) == (404, "not_found", "input")
    assert reply.error["message"] == (
        "Item not found. Items are not persisted for Zero Data Retention organizations. Remove this item from your "
        "input and try again."
    )


# -- events, in their exact order ----------------------------------------------------------------------------------

BEGIN = ["created", "in_progress"]
TEXT = [
    "output_item.added", "content_part.added", "output_text.delta", "output_text.done", "content_part.done",
    "output_item.done",
]  # fmt: skip
CALL = [
    "output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done",
]  # fmt: skip
THOUGHT = [name.replace("output_text", "reasoning_text") for name in TEXT]
REFUSAL = [name.replace("output_text", "refusal") for name in TEXT]
CUT_SHORT = {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}
FILTERED = {"choices": [{"index": 0, "delta": {}, "finish_reason": "content_filter"}]}
BROKEN = b'data: {"error":{"message":"no"}}\n\n'


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([delta(content="a"), STOP, USAGE], [*BEGIN, *TEXT, "completed"]),
        ([call(0, "{}", call_id="c", name="f"), STOP, USAGE], [*BEGIN, *CALL, "completed"]),
        (
            [call(0, "{}", call_id="c", name="f"), call(1, "{}", call_id="d", name="g"), STOP],
            [*BEGIN, *CALL, *CALL, "completed"],
        ),
        ([delta(refusal="no"), STOP], [*BEGIN, *REFUSAL, "completed"]),
        ([delta(reasoning="Hm."), delta(content="a"), STOP], [*BEGIN, *THOUGHT, *TEXT, "completed"]),
        (
            [delta(reasoning="Hm."), call(0, "{}", call_id="c", name="f"), STOP],
            [*BEGIN, *THOUGHT, *CALL, "completed"],
        ),
        ([delta(content="a"), CUT_SHORT], [*BEGIN, *TEXT, "incomplete"]),
        ([call(0, "{", call_id="c", name="f"), CUT_SHORT], [*BEGIN, *CALL, "incomplete"]),
        ([delta(content="a"), FILTERED], [*BEGIN, *TEXT, "incomplete"]),
    ],
    ids=[
        "text",
        "call",
        "calls",
        "refusal",
        "reasoning",
        "reasoning-call",
        "incomplete",
        "incomplete-call",
        "filtered",
    ],
)
def test_the_events_of_each_kind_of_answer(chunks: list[dict[str, Any]], expected: list[str]) -> None:
    reply, _ = ask(*stream(sse(*chunks)), stream=True)
    events = read(reply.body)  # each as OpenAI's client knows it, numbered from 0
    assert kinds(events) == expected


def test_the_events_of_a_failure() -> None:
    reply, _ = ask(head(200, EVENTS), data(sse(delta(content="a"), done=False)[0]), data(BROKEN), end(), stream=True)
    assert kinds(read(reply.body)) == [*BEGIN, *TEXT[:3], "failed"]


# -- Groq's metrics ------------------------------------------------------------------------------------------------

TIMED = {**USAGE["usage"], "queue_time": 0.001, "prompt_time": 0.25, "completion_time": 2, "total_time": 2.25}
TIMES = {
    "completion_time": "2.000000000",
    "prompt_time": "0.250000000",
    "queue_time": "0.001000000",
    "total_time": "2.250000000",
}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("sent", "usage", "expected"),
    [
        (b"inference-metrics", TIMED, {"a": "b", **TIMES}),
        (b"other, inference-metrics", TIMED, {"a": "b", **TIMES}),
        (b"inference-metrics", {**TIMED, "queue_time": "MARKER", "prompt_time": -1, "total_time": None},
         {"a": "b", "completion_time": TIMES["completion_time"]}),
        (b"inference-metrics", USAGE["usage"], {"a": "b"}),
        (b"other", TIMED, {"a": "b"}),
    ],
    ids=["asked", "among-others", "odd", "engine-says-nothing", "not-asked"],
)  # fmt: skip
def test_groqs_metrics_are_told_where_they_are_asked_for(
    sent: bytes, usage: dict[str, Any], expected: dict[str, str], streamed: bool
) -> None:
    if streamed:
        script = stream(sse(delta(content="hi"), STOP, {**USAGE, "usage": usage}))
    else:
        script = answer(msgspec.json.encode({**CHAT, "usage": usage}))
    reply, _ = asked(
        *script,
        more={"stream": streamed, "metadata": {"a": "b"}},
        to=Endpoint.RESPONSES,
        headers=[(b"authorization", f"Bearer {KEY}".encode()), (b"groq-beta", sent)],
        key=None,
    )
    made = read(reply.body)[-1]["response"] if streamed else msgspec.json.decode(reply.body)
    assert made["metadata"] == expected
