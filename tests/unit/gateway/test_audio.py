"""Transcriptions and translations through the whole way: what an engine hears, every ending, what may be kept."""

import asyncio
from typing import Any

import msgspec
import pytest

from keepless.config import Endpoint, Engine, ModelConfig, UpstreamRetention
from keepless.content import Purpose
from keepless.errors import Code
from keepless.gateway.multipart import FORM, write_form
from keepless.inference.backend import FailureKind
from keepless.inference.embedded.hearing import Format, Hearing, Task
from keepless.inference.router import Route
from keepless.policy.decision import Reason
from keepless.usage.record import Flag, Outcome
from tests.support.way import KEY, SSE, FakeBackend, FakeReply, Harness, Step, answer, data, end, fail, head

SOUND = b"RIFF\x01\x02\x03 QUESTION"
HEARD = b'{"text":"so","usage":{"type":"duration","seconds":2.5}}'
DELTA = b'data: {"type":"transcript.text.delta","delta":"so"}\n\n'
DONE = b'data: {"type":"transcript.text.done","text":"so","usage":{"type":"duration","seconds":2.5}}\n\n'
HEARING = [Endpoint.TRANSCRIPTIONS, Endpoint.TRANSLATIONS]
WHISPER = ModelConfig(id="whisper", engine=Engine.WHISPER, retention=UpstreamRetention.ZERO)
FAR = ModelConfig(
    id="far", engine=Engine.OPENAI, base_url="http://x", retention=UpstreamRetention.ZERO, endpoints=HEARING
)


def heard(*script: Step, to: Endpoint = Endpoint.TRANSCRIPTIONS, **fields: str) -> tuple[FakeReply, Harness]:
    """One request, as a form."""

    async def main() -> tuple[FakeReply, Harness]:
        harness = made(*script)
        try:
            reply = send(harness, to, **fields)
            await asyncio.wait_for(reply.done.wait(), 90)
            return reply, harness
        finally:
            harness.close()

    return asyncio.run(main())


def made(*script: Step) -> Harness:
    backend = FakeBackend(list(script))
    harness = Harness(routes=[Route(WHISPER, backend), Route(FAR, backend)])
    harness.backend = backend
    return harness


def send(harness: Harness, to: Endpoint = Endpoint.TRANSCRIPTIONS, **fields: str) -> FakeReply:
    encoded = [(name, value.encode()) for name, value in {"model": "far", **fields}.items()]
    body = write_form(b"XX", encoded, SOUND, extension="wav")
    headers = [(b"authorization", f"Bearer {KEY}".encode()), (b"content-type", FORM + b"XX")]
    return harness.send(body, key=None, headers=headers, to=to)


def row(harness: Harness) -> Any:
    (found,) = harness.rows
    assert not harness.way.inflight
    return found


@pytest.mark.parametrize(
    ("to", "fields", "expected"),
    [
        (Endpoint.TRANSCRIPTIONS, {}, {}),
        (Endpoint.TRANSLATIONS, {}, {"task": Task.TRANSLATE}),
        (
            Endpoint.TRANSCRIPTIONS,
            {"language": "de", "prompt": "Keepless", "temperature": "0.4"},
            {"language": "de", "prompt": "Keepless", "temperature": 0.4},
        ),
        (
            Endpoint.TRANSLATIONS,
            {"prompt": "x", "temperature": "1"},
            {"task": Task.TRANSLATE, "prompt": "x", "temperature": 1.0},
        ),
        (
            Endpoint.TRANSCRIPTIONS,
            {"response_format": "verbose_json", "timestamp_granularities[]": "word"},
            {"format": Format.VERBOSE_JSON, "words": True, "segments": False},
        ),
        (Endpoint.TRANSCRIPTIONS, {"response_format": "vtt"}, {"format": Format.VTT}),
    ],
)  # fmt: skip
def test_the_embedded_engine_is_told_everything_that_was_asked(
    to: Endpoint, fields: dict[str, str], expected: dict[str, Any]
) -> None:
    reply, harness = heard(*answer(HEARD), to=to, model="whisper", **fields)
    assert reply.status == 200
    header, sound = harness.backend.bodies[0]
    asked = msgspec.json.decode(header, type=Hearing)
    assert sound == SOUND
    assert asked.request_id == row(harness).request_id
    assert asked == Hearing(request_id=asked.request_id, **expected)


@pytest.mark.parametrize("to", HEARING)
def test_a_transcript_is_passed_on_and_counted_in_seconds(to: Endpoint) -> None:
    reply, harness = heard(*answer(HEARD), to=to)
    assert (reply.status, reply.body, reply.headers["content-type"]) == (200, HEARD, "application/json")
    found = row(harness)
    assert (found.endpoint, found.audio_ms, found.prompt_tokens, found.bytes_out) == (to, 2500, 0, len(HEARD))
    assert found.outcome is Outcome.ON_ERROR
    assert not harness.reliability.incidents


@pytest.mark.parametrize(
    ("form", "kind"),
    [("text", "text/plain; charset=utf-8"), ("srt", "text/plain; charset=utf-8"), ("vtt", "text/vtt; charset=utf-8")],
)
def test_what_is_no_json_is_passed_on_as_what_it_is(form: str, kind: str) -> None:
    reply, _ = heard(*answer(b"anything"), response_format=form)
    assert (reply.body, reply.headers["content-type"]) == (b"anything", kind)


@pytest.mark.parametrize("body", [b"{}", b"[]", b"so", b'{"text":1}'])
def test_what_is_no_transcript_is_malformed(body: bytes) -> None:
    reply, harness = heard(*answer(body))
    assert (reply.status, reply.error["code"]) == (502, Code.UPSTREAM_MALFORMED)
    assert [why for _, why in harness.reliability.incidents] == [Reason.UPSTREAM_MALFORMED]


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("last", [b"", b"data: [DONE]\n\n"])
def test_a_streamed_transcript_is_passed_on_in_whole_events(size: int, last: bytes) -> None:
    whole = DELTA + DELTA + DONE + last
    pieces = [data(whole[at : at + size]) for at in range(0, len(whole), size)]
    reply, harness = heard(head(200, SSE), *pieces, end(), stream="true")
    assert reply.body == whole
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (row(harness).audio_ms, row(harness).streamed) == (2500, True)


@pytest.mark.parametrize(
    ("script", "code", "reason"),
    [
        ([fail(FailureKind.CRASHED)], Code.ENGINE_FAILED, Reason.ENGINE_CRASH),
        ([fail(FailureKind.CUT)], Code.UPSTREAM_CUT, Reason.UPSTREAM_CUT),
        ([end()], Code.UPSTREAM_CUT, Reason.UPSTREAM_CUT),
        ([data(b"data: {"), end()], Code.UPSTREAM_CUT, Reason.UPSTREAM_CUT),
        ([fail(FailureKind.TIMEOUT_IDLE)], Code.UPSTREAM_TIMEOUT, Reason.UPSTREAM_TIMEOUT),
        ([data(b"x" * 5_000_000)], Code.UPSTREAM_MALFORMED, Reason.UPSTREAM_MALFORMED),
    ],
    ids=["crashed", "cut", "no-end", "half-an-event", "idle", "endless"],
)
def test_a_transcript_that_breaks_off_is_captured_with_its_sound_and_its_text(
    script: list[Step], code: Code, reason: Reason
) -> None:
    """Sound in and text out are one object, under the same policy as any other request."""
    reply, harness = heard(head(200, SSE), data(DELTA), *script, stream="true")
    assert reply.body.startswith(DELTA + b'data: {"error":{')
    assert b": x-keepless-retention class=reliability_log" in reply.body
    found = row(harness)
    assert (reply.status, found.code, found.outcome) == (200, code, Outcome.CAPTURED)
    ((incident, why),) = harness.reliability.incidents
    assert (why, incident.endpoint) == (reason, Endpoint.TRANSCRIPTIONS)
    assert SOUND in incident.request_content.reveal(Purpose.PROVE)
    assert incident.answer_content is not None
    assert incident.answer_content.reveal(Purpose.PROVE).startswith(DELTA)


def test_a_failed_request_that_forbids_keeping_is_not_captured() -> None:
    reply, harness = heard(*answer(b"", 500), store="false")
    assert (reply.status, reply.headers["x-keepless-retention"]) == (502, "none")
    assert not harness.reliability.incidents


def test_the_sketch_of_a_failure() -> None:
    _, harness = heard(*answer(b"", 500), stream="true", store="false")
    sketch = row(harness).sketch
    assert (sketch.largest_message_bytes, sketch.upstream_status) == (len(SOUND), 500)
    assert sketch.flags == Flag.AUDIO | Flag.STREAM | Flag.PRIVACY_SWITCH


def test_a_client_that_leaves_stops_the_engine_and_a_slow_one_slows_it() -> None:
    async def main() -> None:
        harness = made(head(200, SSE), data(DELTA))
        reply = send(harness, stream="true")
        await asyncio.sleep(0)
        (exchange,) = harness.backend.exchanges
        assert reply.on_pause is not None
        assert reply.on_resume is not None
        reply.on_pause()
        assert exchange.paused
        reply.on_resume()
        assert not exchange.paused
        reply.leave()
        assert exchange.cancelled
        assert row(harness).code is Code.CLIENT_CLOSED
        harness.close()

    asyncio.run(main())
