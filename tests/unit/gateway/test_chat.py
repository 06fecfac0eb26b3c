"""chat/completions: what is refused before it is on its way, what an engine is asked, what is recorded."""

import asyncio
from typing import Any

import msgspec
import pytest

from keepless.accounts.principal import Limits
from keepless.content import Purpose
from keepless.errors import Code
from keepless.usage.record import Endpoint, Outcome, Phase
from tests.support.usage import shown
from tests.support.way import API_KEY, EVENTS, FakeReply, Harness, answer, asked, stream

M = "MARKER"
USER = [{"role": "user", "content": M}]


def one_row(harness: Harness) -> Any:
    assert len(harness.rows) == 1
    return harness.rows[0]


def refused(body: bytes | dict[str, Any], **how: Any) -> tuple[FakeReply, Harness]:
    async def main() -> tuple[FakeReply, Harness]:
        harness = Harness(*answer())
        reply = harness.send(body, **how)
        harness.close()
        return reply, harness

    reply, harness = asyncio.run(main())
    assert reply.closed
    assert not harness.backend.calls
    assert M.encode() not in reply.body
    assert M not in shown(one_row(harness))
    assert reply.headers["x-keepless-retention"] == "none"
    assert reply.headers["x-request-id"] == one_row(harness).request_id
    return reply, harness


REFUSALS: list[tuple[bytes | dict[str, Any], dict[str, Any], int, str, Phase]] = [
    ({"model": "zero", "messages": USER}, {"key": None}, 401, "invalid_api_key", Phase.AUTHENTICATE),
    ({"model": "zero", "messages": USER}, {"key": M}, 401, "invalid_api_key", Phase.AUTHENTICATE),
    (b"", {}, 400, "invalid_json", Phase.VALIDATE),
    (b'{"model":"MARKER', {}, 400, "invalid_json", Phase.VALIDATE),
    (b'{"model":"zero","model":"MARKER"}', {}, 400, "invalid_json", Phase.VALIDATE),
    ({"messages": USER}, {}, 400, "missing_required_parameter", Phase.VALIDATE),
    ({"model": M, "messages": USER}, {}, 404, "model_not_found", Phase.VALIDATE),
    ({"model": "zero"}, {}, 400, "missing_required_parameter", Phase.VALIDATE),
    ({"model": "zero", "messages": USER, M: M}, {}, 400, "unknown_parameter", Phase.VALIDATE),
    ({"model": "zero", "messages": USER, "temperature": M}, {}, 400, "invalid_type", Phase.VALIDATE),
    ({"model": "zero", "messages": USER, "store": True}, {}, 400, "loosening_refused", Phase.VALIDATE),
    (
        {"model": "embedded", "messages": [{"role": "user", "content": M, "name": M}]},
        {},
        400,
        "unsupported_parameter",
        Phase.VALIDATE,
    ),
    (
        {"model": "zero", "messages": USER},
        {"headers": [(b"x-keepless-retention", b"MARKER")]},
        400,
        "invalid_value",
        Phase.VALIDATE,
    ),
]


@pytest.mark.parametrize(("body", "how", "status", "code", "phase"), REFUSALS)
def test_refusals_are_told_and_recorded_without_a_word_of_the_client(
    body: bytes | dict[str, Any], how: dict[str, Any], status: int, code: str, phase: Phase
) -> None:
    reply, harness = refused(body, **how)
    row = one_row(harness)
    assert (reply.status, reply.error["code"]) == (status, code)
    assert (row.status, row.code, row.endpoint, row.sketch.phase) == (status, Code(code), Endpoint.CHAT, phase)
    assert (row.key_id is None) == (status == 401)
    assert row.outcome is Outcome.NONE


def test_an_unknown_key_has_the_lease_read_again() -> None:
    _, harness = refused({"model": "zero", "messages": USER}, key="sk-other")
    assert harness.lease.asked_again == 1


def test_a_refused_request_is_charged_to_no_limit() -> None:
    async def main() -> None:
        harness = Harness(*answer())
        harness.lease.set(limits=Limits(requests_per_minute=1))
        for _ in range(3):
            assert harness.send({"model": "zero", "messages": USER, "n": M}).status == 400
        assert (await harness.ask()).status == 200
        reply = harness.send({"model": "zero", "messages": USER})
        assert (reply.status, reply.headers["retry-after"]) == (429, "60")
        assert (harness.rows[-1].code, harness.rows[-1].sketch.phase) == (Code.RATE_LIMIT, Phase.LIMIT)
        harness.close()

    asyncio.run(main())


def test_without_limits_no_rate_headers_are_sent() -> None:
    reply, _ = asked(*answer())
    assert not any(name.startswith("x-ratelimit") for name in reply.headers)


@pytest.mark.parametrize(
    ("more", "sent"),
    [
        ({}, {}),
        ({"user": None}, {}),
        ({"store": False, "temperature": 1}, {"temperature": 1}),
        ({"model": "unknown"}, {"model": "its-own-name"}),
        ({"model": "embedded"}, {"model": "embedded"}),
        ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        (
            {"stream": True, "stream_options": {"include_usage": False, "include_obfuscation": False}},
            {"stream": True, "stream_options": {"include_usage": True, "include_obfuscation": False}},
        ),
        ({"stream": True, "model": "embedded"}, {"stream": True, "model": "embedded"}),
    ],
)
def test_what_an_engine_is_asked(more: dict[str, Any], sent: dict[str, Any]) -> None:
    script = stream(EVENTS) if more.get("stream") else answer()
    _, harness = asked(*script, more=more)
    body = {"model": "zero", "messages": [{"role": "user", "content": "QUESTION"}], **sent}
    assert harness.backend.bodies == [body]
    call = harness.backend.calls[0]
    assert (call.path, list(call.headers), call.request_id) == ("/chat/completions", [], one_row(harness).request_id)


@pytest.mark.parametrize("body", [b'{ "model":"zero", "messages":[{"role":"user","content":"\\u0041"}] }'])
def test_an_engine_gets_our_encoding_never_the_clients(body: bytes) -> None:
    async def main() -> None:
        harness = Harness()
        harness.send(body)
        sent = harness.backend.calls[0].body.reveal(Purpose.INFERENCE)
        assert sent == b'{"model":"zero","messages":[{"role":"user","content":"A"}]}'
        assert sent == msgspec.json.encode(msgspec.json.decode(body))
        harness.close()

    asyncio.run(main())


def test_every_request_has_an_id_of_its_own_and_a_row_with_its_key() -> None:
    async def main() -> None:
        harness = Harness(*answer())
        replies = [await harness.ask() for _ in range(3)]
        ids = [reply.headers["x-request-id"] for reply in replies]
        assert ids == [row.request_id for row in harness.rows]
        assert len(set(ids)) == 3
        assert {row.key_id for row in harness.rows} == {API_KEY}
        harness.close()

    asyncio.run(main())


def test_a_finished_request_is_not_referred_to_by_its_connection() -> None:
    reply, _ = asked(*answer())
    assert (reply.on_disconnect, reply.on_pause, reply.on_resume) == (None, None, None)


@pytest.mark.parametrize(
    ("usage", "charged"),
    [(b',"usage":{"prompt_tokens":3,"completion_tokens":5}', 8), (b"", 504 + 2)],
)
def test_an_answer_without_usage_is_charged_by_estimate(usage: bytes, charged: int) -> None:
    _, harness = asked(
        *answer(b'{"choices":[{}]' + usage + b"}"),
        more={"max_tokens": 500},
        before=lambda h: h.lease.set(limits=Limits(tokens_per_minute=1000)),
    )
    assert harness.lease.known is not None
    grant = harness.rates.admit(harness.lease.known, "zero", 0)
    assert grant is not None
    assert f"remaining-tokens: {1000 - charged}\r\n".encode() in grant.headers
