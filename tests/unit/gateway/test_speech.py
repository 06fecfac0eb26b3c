"""/audio/speech through the whole way: what an engine is asked, every ending, what is recorded and what may be kept."""

import asyncio
from typing import Any

import msgspec
import pytest

from keepless.accounts.principal import Limits
from keepless.config import Endpoint
from keepless.content import Purpose
from keepless.errors import Code
from keepless.inference.backend import FailureKind
from keepless.inference.embedded.asks import SpeechHeader
from keepless.inference.embedded.formats import FORMATS
from keepless.policy.decision import Reason
from keepless.usage.record import Flag, Outcome, Phase
from tests.support.usage import shown
from tests.support.way import JSON, SSE, FakeReply, Harness, Step, answer, asked, data, end, fail, head
from tests.unit.test_pipeline import FAILURES_BEFORE

M = "MARKER"
SOUND = [head(200, b"audio/mpeg"), data(b"first"), data(b"second"), end()]
DELTA = b'data: {"type":"speech.audio.delta","audio":"AAAA"}\n\n'
DONE = b'data: {"type":"speech.audio.done","usage":{"input_tokens":2,"output_tokens":9,"total_tokens":11}}\n\n'
EVENTS = [head(200, SSE), data(DELTA), data(DELTA + DONE), end()]
BEFORE = {name: case for name, case in FAILURES_BEFORE.items() if "event" not in name}


def speech(*script: Step, more: dict[str, Any] | None = None, **how: Any) -> tuple[FakeReply, Harness]:
    return asked(*script, more={"model": "narrator", **(more or {})}, to=Endpoint.SPEECH, **how)


def row(harness: Harness) -> Any:
    assert len(harness.rows) == 1
    assert not harness.way.inflight
    return harness.rows[0]


# -- what an engine is asked ---------------------------------------------------------------------------------------


def test_an_upstream_is_asked_by_its_own_name_for_a_format_that_we_know() -> None:
    _, harness = speech(*SOUND, more={"voice": {"id": "v"}, "speed": 2, "instructions": "slowly", "store": False})
    assert harness.backend.calls[0].path == "/audio/speech"
    assert harness.backend.bodies == [
        {
            "model": "its-own-name",
            "input": "QUESTION",
            "voice": {"id": "v"},
            "speed": 2,
            "instructions": "slowly",
            "response_format": "mp3",
        }
    ]


@pytest.mark.parametrize(
    ("more", "header"),
    [
        ({}, {"format": "mp3", "rate": 16000, "voice": "slt", "speed": 1.0, "events": False}),
        (
            {"voice": "fable", "response_format": "pcm", "speed": 2, "stream_format": "sse"},
            {"format": "pcm", "rate": 24000, "voice": "awb", "speed": 2.0, "events": True},
        ),
        (
            {"response_format": "mulaw", "sample_rate": 16000},
            {"format": "mulaw", "rate": 16000, "voice": "slt", "speed": 1.0, "events": False},
        ),
    ],
)
def test_our_own_engine_is_asked_in_frames(more: dict[str, Any], header: dict[str, Any]) -> None:
    script = EVENTS if header["events"] else SOUND
    reply, harness = speech(*script, more={"model": "flite", "input": "Grüße", **more})
    found, beside = harness.backend.bodies[0]
    assert msgspec.json.decode(found, type=SpeechHeader) == SpeechHeader(**header)
    assert beside == "Grüße".encode()
    assert reply.status == 200


@pytest.mark.parametrize(("accept", "expected"), [(b"audio/wav", "wav"), (b"application/octet-stream", "mp3")])
def test_who_accepts_wav_gets_it(accept: bytes, expected: str) -> None:
    reply, harness = speech(*SOUND, headers=[(b"accept", accept)])
    assert harness.backend.bodies[0]["response_format"] == expected
    assert reply.headers["content-type"] == FORMATS[expected].content_type


# -- endings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", [b"audio/mpeg", b"Audio/X", b"application/octet-stream"])
def test_sound_is_sent_as_it_comes_and_recorded(content_type: bytes) -> None:
    reply, harness = speech(head(200, content_type), *SOUND[1:])
    found = row(harness)
    assert (reply.status, reply.body, reply.aborted) == (200, b"firstsecond", False)
    assert reply.headers["content-type"] == "audio/mpeg"
    assert reply.headers["x-keepless-retention"] == "on-error; upstream=unknown"
    assert (found.endpoint, found.status, found.streamed) == (Endpoint.SPEECH, 200, True)
    assert (found.prompt_tokens, found.completion_tokens, found.bytes_out) == (len("QUESTION"), 0, 11)
    assert found.outcome is Outcome.ON_ERROR
    assert not harness.reliability.incidents


def test_our_own_engine_says_what_it_cost() -> None:
    async def main() -> None:
        metered = lambda _: harness.backend.calls[0].metered(8, 0, 1234)
        harness = Harness(*SOUND[:-1], metered, end())
        await harness.ask({"model": "flite"}, to=Endpoint.SPEECH)
        harness.close()
        assert (row(harness).prompt_tokens, row(harness).audio_ms) == (8, 1234)

    asyncio.run(main())


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_events_are_passed_whole_in_whatever_pieces_they_come(size: int) -> None:
    whole = DELTA + DELTA + DONE
    pieces = [data(whole[at : at + size]) for at in range(0, len(whole), size)]
    reply, harness = speech(head(200, SSE), *pieces, end(), more={"stream_format": "sse"})
    assert reply.body == whole
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (row(harness).status, row(harness).prompt_tokens) == (200, len("QUESTION"))


@pytest.mark.parametrize("form", ["audio", "sse"])
@pytest.mark.parametrize("name", BEFORE)
def test_failures_before_the_first_sound_are_plain_errors(name: str, form: str) -> None:
    script, status, code, reason = BEFORE[name]
    reply, harness = speech(*script, more={"stream_format": form})
    if name == "cut at once" and form == "audio":  # another type of answer than what was asked for
        status, code, reason = 502, Code.UPSTREAM_MALFORMED, Reason.UPSTREAM_MALFORMED
    assert (reply.status, reply.error["code"], row(harness).code) == (status, code, code)
    assert [why for _, why in harness.reliability.incidents] == ([] if reason is None else [reason])


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ([head(200, JSON), data(b"{}"), end()], Code.UPSTREAM_MALFORMED),
        ([head(200, b"text/html"), data(b"<p>"), end()], Code.UPSTREAM_MALFORMED),
        ([head(200, SSE), data(DELTA), end()], Code.UPSTREAM_MALFORMED),
        ([head(200, b"audio/mpeg"), end()], Code.UPSTREAM_CUT),
    ],
)
def test_what_is_no_sound_is_not_sent_as_one(script: list[Step], code: Code) -> None:
    reply, harness = speech(*script)
    assert (reply.status, reply.error["code"], row(harness).code) == (502, code, code)


@pytest.mark.parametrize(
    ("kind", "code", "reason"),
    [
        (FailureKind.CUT, Code.UPSTREAM_CUT, Reason.UPSTREAM_CUT),
        (FailureKind.CRASHED, Code.ENGINE_FAILED, Reason.ENGINE_CRASH),
        (FailureKind.TIMEOUT_IDLE, Code.UPSTREAM_TIMEOUT, Reason.UPSTREAM_TIMEOUT),
    ],
)
def test_a_sound_that_breaks_off_is_cut_and_what_was_said_may_be_captured(
    kind: FailureKind, code: Code, reason: Reason
) -> None:
    reply, harness = speech(*SOUND[:-1], fail(kind))
    assert (reply.status, reply.body, reply.aborted) == (200, b"firstsecond", True)
    found = row(harness)
    assert (found.code, found.outcome, found.prompt_tokens) == (code, Outcome.CAPTURED, len("QUESTION"))
    incident, why = harness.reliability.incidents[0]
    assert (why, incident.endpoint) == (reason, Endpoint.SPEECH)
    assert b"QUESTION" in incident.request_content.reveal(Purpose.PROVE)
    assert incident.answer_content is not None
    assert incident.answer_content.reveal(Purpose.PROVE) == b"firstsecond"


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ([fail(FailureKind.CUT)], Code.UPSTREAM_CUT),
        ([data(b"data: {"), end()], Code.UPSTREAM_CUT),
        ([end()], Code.UPSTREAM_CUT),
        ([data(b"data: " + b"x" * 5_000_000)], Code.UPSTREAM_MALFORMED),
    ],
)
def test_events_that_break_off_end_with_an_error(script: list[Step], code: Code) -> None:
    reply, harness = speech(*EVENTS[:2], *script, more={"stream_format": "sse"})
    assert reply.body.startswith(DELTA + b'data: {"error":{')
    assert b": x-keepless-retention class=reliability_log" in reply.body
    assert (reply.aborted, row(harness).code, row(harness).outcome) == (False, code, Outcome.CAPTURED)


def test_an_engine_s_own_error_event_is_a_failure() -> None:
    error = b'data: {"type":"error","error":{"message":"no"}}\n\n'
    reply, harness = speech(head(200, SSE), data(DELTA), data(error), end(), more={"stream_format": "sse"})
    assert reply.body.startswith(DELTA + error)
    assert [why for _, why in harness.reliability.incidents] == [Reason.UPSTREAM_5XX]


def test_a_refusal_of_the_engine_is_passed_on() -> None:
    body = b'{"error":{"message":"no"}}'
    reply, harness = speech(*answer(body, 400))
    assert (reply.status, reply.body, row(harness).code) == (400, body, Code.UPSTREAM_REJECTED)
    assert row(harness).prompt_tokens == 0
    reply, _ = speech(head(400, b"audio/mpeg"), data(b"MARKER"), end())
    assert (reply.status, reply.error["code"]) == (400, Code.UPSTREAM_REJECTED)
    assert M.encode() not in reply.body


def test_a_client_that_leaves_stops_the_engine() -> None:
    async def main() -> None:
        harness = Harness(*SOUND[:2])
        reply = harness.send({"model": "narrator", "input": "QUESTION", "voice": "v"}, to=Endpoint.SPEECH)
        await asyncio.sleep(0)
        reply.leave()
        assert harness.backend.exchanges[0].cancelled
        assert (row(harness).code, row(harness).prompt_tokens) == (Code.CLIENT_CLOSED, len("QUESTION"))
        harness.close()

    asyncio.run(main())


def test_a_slow_client_slows_the_engine() -> None:
    async def main() -> None:
        harness = Harness(*SOUND[:2])
        reply = harness.send({"model": "narrator", "input": "QUESTION", "voice": "v"}, to=Endpoint.SPEECH)
        await asyncio.sleep(0)
        assert reply.on_pause is not None
        assert reply.on_resume is not None
        reply.on_pause()
        assert harness.backend.exchanges[0].paused
        reply.on_resume()
        assert not harness.backend.exchanges[0].paused
        reply.leave()
        harness.close()

    asyncio.run(main())


# -- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"model":"MARKER', 400, Code.INVALID_JSON),
        ({"input": M}, 400, Code.MISSING_PARAMETER),
        ({"model": M, "input": M, "voice": M}, 404, Code.MODEL_NOT_FOUND),
        ({"model": "zero", "input": M, "voice": M}, 400, Code.UNSUPPORTED_VALUE),
        ({"model": "flite", "input": M}, 400, Code.MISSING_PARAMETER),
        ({"model": "flite", "input": M, "voice": M}, 400, Code.INVALID_VALUE),
        ({"model": "flite", "input": M * 1000, "voice": "slt"}, 400, Code.INVALID_VALUE),
        ({"model": "flite", "input": M, "voice": "slt", M: M}, 400, Code.UNKNOWN_PARAMETER),
        ({"model": "flite", "input": M, "voice": "slt", "instructions": M}, 400, Code.UNSUPPORTED_PARAMETER),
    ],
)
def test_refusals_are_told_and_recorded_without_a_word_of_the_client(body: Any, status: int, code: Code) -> None:
    async def main() -> None:
        harness = Harness(*SOUND)
        reply = harness.send(body, to=Endpoint.SPEECH)
        harness.close()
        found = row(harness)
        assert (reply.status, reply.error["code"], found.code, found.endpoint) == (status, code, code, Endpoint.SPEECH)
        assert (found.sketch.phase, found.sketch.flags & Flag.AUDIO) == (Phase.VALIDATE, Flag.AUDIO)
        assert M.encode() not in reply.body
        assert M not in shown(found)
        assert not harness.backend.calls

    asyncio.run(main())


def test_the_sketch_of_a_failure() -> None:
    _, harness = speech(*answer(b"", 500), more={"stream_format": "sse", "store": False})
    sketch = row(harness).sketch
    assert (sketch.messages, sketch.largest_message_bytes, sketch.upstream_status) == (1, len("QUESTION"), 500)
    assert sketch.flags == Flag.AUDIO | Flag.STREAM | Flag.PRIVACY_SWITCH


@pytest.mark.parametrize(("script", "left"), [(SOUND, 998), (answer(b"", 500), 1000)])
def test_characters_are_charged_as_an_estimate_of_tokens_where_something_was_said(
    script: list[Step], left: int
) -> None:
    async def main() -> None:
        harness = Harness(*script)
        harness.lease.set(limits=Limits(tokens_per_minute=1000))
        reply = await harness.ask({"model": "narrator"}, to=Endpoint.SPEECH)
        assert reply.headers["x-ratelimit-remaining-tokens"] == "998"
        assert harness.lease.known is not None
        grant = harness.rates.admit(harness.lease.known, "zero", 0)
        assert grant is not None
        assert f"remaining-tokens: {left}\r\n".encode() in grant.headers
        harness.close()

    asyncio.run(main())
