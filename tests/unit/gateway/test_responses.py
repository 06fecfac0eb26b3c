"""/responses through the whole way: what an engine is asked, every ending, what is recorded and what may be kept."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from keepless.accounts.principal import Limits
from keepless.config import Endpoint
from keepless.content import Content, Purpose
from keepless.errors import Code
from keepless.gateway.line import Collector
from keepless.inference.backend import FailureKind
from keepless.policy.decision import Reason
from keepless.usage.record import Outcome, Phase
from tests.support.responses import STOP, USAGE, call, delta, kinds, read, sse
from tests.support.usage import shown
from tests.support.way import (
    SSE,
    FakeReply,
    Harness,
    Step,
    answer,
    asked,
    data,
    end,
    fail,
    head,
    stream,
)
from tests.unit.test_pipeline import FAILURES, FAILURES_BEFORE, FAILURES_WITHIN

M = "MARKER"
CHAT = {
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": USAGE["usage"],
}
OK = answer(msgspec.json.encode(CHAT))
STREAM = {"stream": True}
OWN = {"object": "response", "id": "resp_x", "output": [], "usage": {"input_tokens": 3, "output_tokens": 5}, "M": M}


def responses(*script: Step, more: dict[str, Any] | None = None, **how: Any) -> tuple[FakeReply, Harness]:
    return asked(*script, more=more, to=Endpoint.RESPONSES, **how)


def native(kind: str, number: int, **more: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, 'sequence_number': number, **more})}\n\n".encode()


NATIVE = [
    native("response.created", 0, response={"id": "resp_x"}),
    native("response.output_text.delta", 1, delta="hi"),
    native("response.completed", 2, response=OWN),
]


def row(harness: Harness) -> Any:
    assert len(harness.rows) == 1
    assert not harness.way.inflight
    return harness.rows[0]


# -- what an engine is asked ---------------------------------------------------------------------------------------


def test_a_chat_engine_is_asked_for_chat() -> None:
    reply, harness = responses(
        *OK, more={"model": "unknown", "instructions": "be kind", "store": False, "metadata": {}}
    )
    assert harness.backend.calls[0].path == "/chat/completions"
    assert harness.backend.bodies == [
        {
            "model": "its-own-name",
            "messages": [{"role": "system", "content": "be kind"}, {"role": "user", "content": "QUESTION"}],
        }
    ]
    made = msgspec.json.decode(reply.body)
    assert (made["model"], made["output"][0]["content"][0]["text"], made["status"]) == ("unknown", "hi", "completed")
    assert row(harness).bytes_out == len(reply.body)


def test_an_upstream_that_speaks_it_is_asked_to_store_nothing() -> None:
    sealed = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "sealed"}
    more = {
        "model": "native",
        "input": [sealed, {"role": "user", "content": "x"}],
        "include": ["reasoning.encrypted_content"],
        "tools": [{"type": "web_search"}],
        "truncation": "auto",
        "temperature": None,
    }
    body = msgspec.json.encode(OWN)
    reply, harness = responses(*answer(body), more=more)
    assert harness.backend.calls[0].path == "/responses"
    del more["temperature"]
    assert harness.backend.bodies == [{**more, "model": "its-own-name", "store": False}]
    assert reply.body == body
    assert (row(harness).prompt_tokens, row(harness).completion_tokens) == (3, 5)


# -- endings -------------------------------------------------------------------------------------------------------


def test_a_whole_answer_is_recorded() -> None:
    reply, harness = responses(*OK)
    found = row(harness)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert (found.endpoint, found.status, found.streamed) == (Endpoint.RESPONSES, 200, False)
    assert (found.prompt_tokens, found.completion_tokens, found.cached_tokens) == (3, 5, 2)
    assert found.outcome is Outcome.ON_ERROR
    assert not harness.reliability.incidents


def test_a_stream_is_translated_and_recorded() -> None:
    reply, harness = responses(*stream(sse(delta(content="hi"), STOP, USAGE)), more=STREAM)
    events = read(reply.body)
    assert (reply.status, reply.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert (kinds(events)[0], kinds(events)[-1]) == ("created", "completed")
    found = row(harness)
    assert (found.prompt_tokens, found.completion_tokens, found.streamed) == (3, 5, True)
    assert found.bytes_out == len(reply.body)
    assert harness.backend.bodies[0]["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_stream_may_come_in_any_pieces(size: int) -> None:
    whole = b"".join(sse(call(0, "{}", call_id="c", name="f"), STOP, USAGE))
    pieces = [data(whole[at : at + size]) for at in range(0, len(whole), size)]
    reply, _ = responses(head(200, SSE), *pieces, end(), more=STREAM)
    assert kinds(read(reply.body))[-1] == "completed"


def test_a_native_stream_is_passed_byte_for_byte() -> None:
    whole = b"".join(NATIVE)
    pieces = [data(whole[at : at + 11]) for at in range(0, len(whole), 11)]
    reply, harness = responses(head(200, SSE), *pieces, end(), more={**STREAM, "model": "native"})
    assert reply.body == whole
    assert (row(harness).status, row(harness).prompt_tokens) == (200, 3)


@pytest.mark.parametrize("model", ["zero", "native"])
@pytest.mark.parametrize("name", FAILURES)
def test_failures_of_a_whole_answer(name: str, model: str) -> None:
    script, status, code, reason = FAILURES[name]
    reply, harness = responses(*script, more={"model": model})
    found = row(harness)
    assert (reply.status, reply.error["code"], found.status, found.code) == (status, code, status, code)
    assert M.encode() not in reply.body
    assert [why for _, why in harness.reliability.incidents] == ([] if reason is None else [reason])


@pytest.mark.parametrize("model", ["zero", "native"])
@pytest.mark.parametrize("name", FAILURES_BEFORE)
def test_failures_before_the_first_event_are_plain_errors(name: str, model: str) -> None:
    script, status, code, reason = FAILURES_BEFORE[name]
    reply, harness = responses(*script, more={**STREAM, "model": model})
    assert (reply.status, reply.error["code"], row(harness).status) == (status, code, status)
    assert [why for _, why in harness.reliability.incidents] == ([] if reason is None else [reason])


@pytest.mark.parametrize("name", FAILURES_WITHIN)
def test_failures_within_a_stream_end_it_with_a_failed_response(name: str) -> None:
    script, code, reason = FAILURES_WITHIN[name]
    begun = [head(200, SSE), data(sse(delta(content="QUESTION"), done=False)[0])]
    reply, harness = responses(*begun, *script, more=STREAM)
    events = read(reply.body)
    assert kinds(events)[-1] == "failed"
    assert events[-1]["response"]["error"]["code"] == "server_error"
    assert b": x-keepless-retention class=reliability_log" in reply.body
    assert (reply.status, row(harness).code, row(harness).outcome) == (200, code, Outcome.CAPTURED)
    incident, why = harness.reliability.incidents[0]
    assert why is reason
    assert b"QUESTION" in incident.request_content.reveal(Purpose.PROVE)
    assert incident.endpoint is Endpoint.RESPONSES


@pytest.mark.parametrize("name", FAILURES_WITHIN)
def test_failures_within_a_native_stream_end_it_with_an_error(name: str) -> None:
    script, code, _ = FAILURES_WITHIN[name]
    reply, harness = responses(head(200, SSE), data(NATIVE[0]), *script, more={**STREAM, "model": "native"})
    assert reply.body.startswith(NATIVE[0] + b"event: error\n")
    error = json.loads(reply.body.split(b"\n\n")[1].split(b"data: ")[1])
    assert (error["type"], error["code"], error["sequence_number"]) == ("error", code, 1)
    assert (row(harness).code, row(harness).outcome) == (code, Outcome.CAPTURED)


@pytest.mark.parametrize("before", [[], sse(delta(content="x"), done=False)])
def test_an_engines_own_error_is_told_in_our_words(before: list[bytes]) -> None:
    error = b'data: {"error":{"message":"MARKER of the upstream"}}\n\n'
    reply, harness = responses(*stream([*before, error]), more=STREAM)
    events = read(reply.body)
    assert kinds(events)[-1] == "failed"
    assert M.encode() not in reply.body
    assert [why for _, why in harness.reliability.incidents] == [Reason.UPSTREAM_5XX]
    assert row(harness).status == 502


def test_a_native_response_that_failed_is_a_failure() -> None:
    failed = native("response.failed", 1, response={"error": {"code": "server_error"}})
    reply, harness = responses(*stream([NATIVE[0], failed]), more={**STREAM, "model": "native"})
    assert reply.body.startswith(NATIVE[0] + failed)
    assert [why for _, why in harness.reliability.incidents] == [Reason.UPSTREAM_5XX]


def test_a_whole_native_response_that_failed_is_a_failure() -> None:
    failed = {**OWN, "status": "failed", "error": {"code": "server_error", "message": "it said marzipan"}}
    reply, harness = responses(*answer(json.dumps(failed).encode()), more={"model": "native"})
    assert reply.status == 502
    assert b"marzipan" not in reply.body
    assert [why for _, why in harness.reliability.incidents] == [Reason.UPSTREAM_5XX]


def test_chunks_after_the_end_are_not_told() -> None:
    reply, _ = responses(*stream([*sse(delta(content="x"), STOP), *sse(delta(content="late"))]), more=STREAM)
    assert kinds(read(reply.body))[-1] == "completed"
    assert b"late" not in reply.body


@pytest.mark.parametrize(("param", "named"), [("messages", "input"), ("response_format", "text.format"), (M, M)])
def test_a_chat_engines_refusal_names_the_parameter_as_it_is_called_here(param: str, named: str) -> None:
    refusal = {"error": {"message": "no", "code": "x", "param": param}}
    reply, harness = responses(*answer(msgspec.json.encode(refusal), 400))
    assert (reply.status, reply.error["param"], reply.error["message"]) == (400, named, "no")
    assert (row(harness).code, row(harness).outcome) == (Code.UPSTREAM_REJECTED, Outcome.ON_ERROR)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"param":["messages"],"message":"no"}}', "no"),
        (b'{"error":"no"}', "no"),
        (b"{}", "The engine of this model refused the request."),
    ],
)
def test_a_refusal_of_any_other_shape_is_told_in_ours(body: bytes, message: str) -> None:
    reply, _ = responses(*answer(body, 422))
    assert (reply.status, reply.error["message"]) == (422, message)


def test_a_client_that_leaves_stops_the_engine() -> None:
    async def main() -> None:
        harness = Harness(head(200, SSE), data(sse(delta(content="x"), done=False)[0]))
        reply = harness.send({"model": "zero", "input": "QUESTION", "stream": True}, to=Endpoint.RESPONSES)
        await asyncio.sleep(0)
        reply.leave()
        assert harness.backend.exchanges[0].cancelled
        assert row(harness).code is Code.CLIENT_CLOSED
        harness.close()

    asyncio.run(main())


# -- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "code", "phase"),
    [
        (b'{"model":"MARKER', 400, "invalid_json", Phase.VALIDATE),
        ({"input": M}, 400, "missing_required_parameter", Phase.VALIDATE),
        ({"model": M, "input": M}, 404, "model_not_found", Phase.VALIDATE),
        ({"model": "transcriber", "input": M}, 400, "unsupported_value", Phase.VALIDATE),
        ({"model": "zero", "input": M, "previous_response_id": M}, 400, "unsupported_parameter", Phase.VALIDATE),
        ({"model": "zero", "input": [{"type": "item_reference", "id": M}]}, 404, "not_found", Phase.VALIDATE),
        (
            {"model": "zero", "input": [{"role": "user", "content": [{"type": "input_image", "file_id": M}]}]},
            400,
            "unsupported_parameter",
            Phase.VALIDATE,
        ),
    ],
)
def test_refusals_are_told_and_recorded_without_a_word_of_the_client(
    body: Any, status: int, code: str, phase: Phase
) -> None:
    async def main() -> None:
        harness = Harness(*OK)
        reply = harness.send(body, to=Endpoint.RESPONSES)
        harness.close()
        found = row(harness)
        assert (reply.status, reply.error["code"], found.status, found.sketch.phase) == (status, code, status, phase)
        assert found.endpoint is Endpoint.RESPONSES
        assert M.encode() not in reply.body
        assert M not in shown(found)
        assert not harness.backend.calls

    asyncio.run(main())


def test_tokens_are_charged_by_what_was_used() -> None:
    async def main() -> None:
        harness = Harness(*OK)
        harness.lease.set(limits=Limits(tokens_per_minute=1000))
        reply = await harness.ask({"max_output_tokens": 500}, to=Endpoint.RESPONSES)
        assert reply.headers["x-ratelimit-remaining-tokens"] == str(1000 - 500 - len("QUESTION") // 4 - 4)
        assert harness.lease.known is not None
        grant = harness.rates.admit(harness.lease.known, "zero", 0)
        assert grant is not None
        assert b"remaining-tokens: 992\r\n" in grant.headers
        harness.close()

    asyncio.run(main())


def test_a_line_of_a_batch_is_translated_too() -> None:
    async def main() -> None:
        harness = Harness(*OK)
        told: asyncio.Future[tuple[int, Content]] = asyncio.get_running_loop().create_future()
        assert harness.lease.known is not None
        body = msgspec.json.encode({"model": "zero", "input": "QUESTION"})
        collector = Collector(lambda status, content: told.set_result((status, content)))
        harness.handlers[Endpoint.RESPONSES].line(harness.lease.known, body, collector)
        status, content = await asyncio.wait_for(told, 10)
        assert (status, msgspec.json.decode(content.reveal(Purpose.PROVE))["object"]) == (200, "response")
        harness.close()

    asyncio.run(main())


# -- counting an input ---------------------------------------------------------------------------------------------


def counted(*script: Step, **more: Any) -> tuple[FakeReply, Harness]:
    return asked(*script, more={"model": "embedded", **more}, to=Endpoint.INPUT_TOKENS)


@pytest.mark.parametrize(
    ("model", "path"), [("embedded", "/chat/completions/input_tokens"), ("native", "/responses/input_tokens")]
)
def test_an_input_is_counted_by_the_engine(model: str, path: str) -> None:
    reply, harness = counted(*answer(b'{"input_tokens":7,"object":"MARKER"}'), model=model)
    assert msgspec.json.decode(reply.body) == {"object": "response.input_tokens", "input_tokens": 7}
    assert harness.backend.calls[0].path == path
    found = row(harness)
    assert (found.endpoint, found.prompt_tokens) == (Endpoint.INPUT_TOKENS, 0)
    assert "store" not in harness.backend.bodies[0]


def test_counting_uses_no_tokens() -> None:
    async def main() -> None:
        harness = Harness(*answer(b'{"input_tokens":7}'))
        harness.lease.set(limits=Limits(tokens_per_minute=1000))
        await harness.ask({"model": "embedded"}, to=Endpoint.INPUT_TOKENS)
        assert harness.lease.known is not None
        grant = harness.rates.admit(harness.lease.known, "zero", 0)
        assert grant is not None
        assert b"remaining-tokens: 1000\r\n" in grant.headers
        harness.close()

    asyncio.run(main())


def test_a_model_that_cannot_count_says_so() -> None:
    reply, _ = counted(model="zero")
    assert (reply.status, reply.error["message"]) == (400, "The model `zero` does not support input token counts")


@pytest.mark.parametrize(
    ("script", "more", "status", "code"),
    [
        (OK, {"stream": True}, 400, "unknown_parameter"),
        (OK, {"previous_response_id": M}, 400, "unsupported_parameter"),
        (answer(b'{"tokens":7}'), {}, 502, "upstream_malformed"),
        (answer(b"[]"), {}, 502, "upstream_malformed"),
        (answer(b'{"error":{"message":"MARKER"}}', 400), {}, 400, "upstream_rejected"),
        ([fail(FailureKind.BUSY, 1)], {}, 503, "engine_unavailable"),
    ],
)
def test_counts_that_fail(script: list[Step], more: dict[str, Any], status: int, code: str) -> None:
    reply, harness = counted(*script, **more)
    assert (reply.status, reply.error["code"], row(harness).status) == (status, code, status)
    assert M.encode() not in reply.body
