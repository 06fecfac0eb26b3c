"""What the client's sides of all endpoints share."""

import asyncio
from typing import cast

import pytest

from keepless.errors import Code, Problem
from keepless.gateway.speaker import PlainSpeaker, rejected
from keepless.http.limits import RateLimits
from keepless.ids import Prefix, mint
from keepless.inference.asking import Ask, MalformedError
from tests.support.way import FakeReply


class Asked:
    request_id = mint(Prefix.REQUEST)


def speaker() -> tuple[PlainSpeaker, FakeReply]:
    async def main() -> tuple[PlainSpeaker, FakeReply]:
        reply = FakeReply()
        return PlainSpeaker(reply, cast("Ask", Asked()), None, None, cast("RateLimits", None)), reply

    return asyncio.run(main())


def test_an_endpoint_that_does_not_stream_takes_no_stream() -> None:
    plain, _ = speaker()
    with pytest.raises(MalformedError):
        plain.stream(b"data: {}\n\n", b"none")
    with pytest.raises(MalformedError):
        plain.stream_ended()


def test_an_engines_refusal_is_passed_on_and_a_text_of_its_own_is_not() -> None:
    plain, reply = speaker()
    plain.answer(400, b'{"error":{"message":""}}', b"none")
    assert (reply.status, reply.body, plain.bytes_out) == (400, b'{"error":{"message":""}}', 24)
    plain, reply = speaker()
    plain.answer(404, b"<html>MARKER", b"none")
    assert (reply.status, reply.error["code"]) == (404, rejected(404).code)
    assert b"MARKER" not in reply.body


def test_an_error_after_the_beginning_of_a_stream_is_its_last_event() -> None:
    plain, reply = speaker()
    plain._begin_stream(b"text/event-stream", b"on-error")
    plain.fail(Problem(502, Code.UPSTREAM_CUT, "cut"), b"none", b"class=reliability_log")
    assert (reply.status, reply.headers["x-keepless-retention"]) == (200, "on-error")
    assert reply.body.startswith(b'data: {"error":')
    assert reply.body.endswith(b": x-keepless-retention class=reliability_log\n\n")
    assert reply.closed
