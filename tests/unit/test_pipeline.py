"""The way of a request: every ending, what the client is told, what is recorded, and what may be kept."""

import asyncio
import io
import sys
from collections.abc import Callable
from typing import Any

import pytest

from keepless import log
from keepless.accounts.principal import Limits
from keepless.content import Purpose
from keepless.errors import Code
from keepless.inference.backend import Failure, FailureKind
from keepless.policy.controls import Controls, Source
from keepless.policy.data_class import Feature
from keepless.policy.decision import DiscardReason, Reason
from keepless.usage.record import Outcome, Phase
from tests.support.way import (
    API_KEY,
    EVENTS,
    OK,
    ORGANIZATION,
    PROJECT,
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

STREAM = {"stream": True}
ZDR = Controls(zero_data_retention=True)
OPTED_OUT = Controls(off=frozenset({Feature.INFERENCE_LOGGING}))
ECHO = b'{"error":{"message":"MARKER of the upstream"}}'

# script, status told, code, reason of the capture (None: nothing may be captured)
FAILURES: dict[str, tuple[list[Step], int, Code, Reason | None]] = {
    "unreachable": ([fail(FailureKind.UNREACHABLE)], 502, Code.UPSTREAM_UNREACHABLE, None),
    "busy": ([fail(FailureKind.BUSY, 4)], 503, Code.ENGINE_UNAVAILABLE, None),
    "crashed": ([fail(FailureKind.CRASHED)], 503, Code.ENGINE_FAILED, Reason.ENGINE_CRASH),
    "no first byte": ([fail(FailureKind.TIMEOUT_FIRST_BYTE)], 504, Code.UPSTREAM_TIMEOUT, Reason.UPSTREAM_TIMEOUT),
    "silent": ([head(), fail(FailureKind.TIMEOUT_IDLE)], 504, Code.UPSTREAM_TIMEOUT, Reason.UPSTREAM_TIMEOUT),
    "cut": ([head(), data(OK[:9]), fail(FailureKind.CUT)], 502, Code.UPSTREAM_CUT, Reason.UPSTREAM_CUT),
    "malformed": ([fail(FailureKind.MALFORMED)], 502, Code.UPSTREAM_MALFORMED, Reason.UPSTREAM_MALFORMED),
    "401": (answer(ECHO, 401), 502, Code.UPSTREAM_AUTH, None),
    "403": (answer(ECHO, 403), 502, Code.UPSTREAM_AUTH, None),
    "429": ([head(429, retry_after_s=9), data(ECHO), end()], 503, Code.UPSTREAM_BUSY, None),
    "500": (answer(ECHO, 500), 502, Code.UPSTREAM_ERROR, Reason.UPSTREAM_5XX),
    "503": (answer(ECHO, 503), 502, Code.UPSTREAM_ERROR, Reason.UPSTREAM_5XX),
    "302": (answer(ECHO, 302), 502, Code.UPSTREAM_MALFORMED, Reason.UPSTREAM_MALFORMED),
    "204": (answer(b"", 204), 502, Code.UPSTREAM_MALFORMED, Reason.UPSTREAM_MALFORMED),
    "empty": (answer(b""), 502, Code.UPSTREAM_MALFORMED, Reason.UPSTREAM_MALFORMED),
    "half a JSON": (answer(OK[:-4]), 502, Code.UPSTREAM_MALFORMED, Reason.UPSTREAM_MALFORMED),
    "no choices": (answer(b'{"ok":true}'), 502, Code.UPSTREAM_MALFORMED, Reason.UPSTREAM_MALFORMED),
    "HTML": (answer(b"<html>MARKER"), 502, Code.UPSTREAM_MALFORMED, Reason.UPSTREAM_MALFORMED),
}
# The same for a stream, before any event has come.
FAILURES_BEFORE: dict[str, tuple[list[Step], int, Code, Reason | None]] = {
    **{name: FAILURES[name] for name in ("unreachable", "busy", "crashed", "no first byte", "500", "429", "401")},
    "no events": ([head(200, SSE), end()], 502, Code.UPSTREAM_CUT, Reason.UPSTREAM_CUT),
    "half an event": ([head(200, SSE), data(b"data: {"), end()], 502, Code.UPSTREAM_CUT, Reason.UPSTREAM_CUT),
    "cut at once": ([head(200, SSE), fail(FailureKind.CUT)], 502, Code.UPSTREAM_CUT, Reason.UPSTREAM_CUT),
    "JSON": (answer(OK), 502, Code.UPSTREAM_MALFORMED, Reason.UPSTREAM_MALFORMED),
    "endless event": (
        [head(200, SSE), data(b"data: " + b"x" * 5_000_000)],
        502,
        Code.UPSTREAM_MALFORMED,
        Reason.UPSTREAM_MALFORMED,
    ),
}
# And after some events are with the client.
FAILURES_WITHIN: dict[str, tuple[list[Step], Code, Reason]] = {
    "cut": ([fail(FailureKind.CUT)], Code.UPSTREAM_CUT, Reason.UPSTREAM_CUT),
    "cut in an event": ([data(b"data: {"), fail(FailureKind.CUT)], Code.UPSTREAM_CUT, Reason.UPSTREAM_CUT),
    "ended early": ([end()], Code.UPSTREAM_CUT, Reason.UPSTREAM_CUT),
    "silent": ([fail(FailureKind.TIMEOUT_IDLE)], Code.UPSTREAM_TIMEOUT, Reason.UPSTREAM_TIMEOUT),
    "crashed": ([fail(FailureKind.CRASHED)], Code.ENGINE_FAILED, Reason.ENGINE_CRASH),
    "endless event": ([data(b"data: " + b"x" * 5_000_000)], Code.UPSTREAM_MALFORMED, Reason.UPSTREAM_MALFORMED),
}


def only_row(harness: Harness) -> Any:
    assert len(harness.rows) == 1, "exactly one usage row a request"
    assert not harness.way.inflight
    return harness.rows[0]


def assert_kept(reply: FakeReply, harness: Harness, reason: Reason) -> None:
    row = only_row(harness)
    incident, why = harness.reliability.incidents[0]
    assert why is reason
    assert b"QUESTION" in incident.request_content.reveal(Purpose.PROVE)
    assert (row.outcome, row.object_id is not None) == (Outcome.CAPTURED, True)
    assert (incident.organization_id, incident.project_id, incident.key_id) == (ORGANIZATION, PROJECT, API_KEY)
    assert incident.policy is not None


@pytest.mark.parametrize("name", FAILURES)
def test_failures_of_a_whole_answer(name: str) -> None:
    script, status, code, reason = FAILURES[name]
    reply, harness = asked(*script)
    row = only_row(harness)
    assert (reply.status, reply.error["code"], row.status, row.code) == (status, code, status, code)
    assert b"MARKER" not in reply.body
    assert row.sketch.phase in (Phase.CONNECT, Phase.FIRST_BYTE, Phase.ANSWER)
    if reason is None:
        assert reply.headers["x-keepless-retention"] == "none"
        assert not harness.reliability.incidents
        assert row.outcome is Outcome.ON_ERROR
    else:
        assert reply.headers["x-keepless-retention"].startswith("class=reliability_log; object=obj_")
        assert_kept(reply, harness, reason)


@pytest.mark.parametrize("name", FAILURES_BEFORE)
def test_failures_of_a_stream_before_its_first_event_are_plain_errors(name: str) -> None:
    script, status, code, reason = FAILURES_BEFORE[name]
    reply, harness = asked(*script, more=STREAM)
    row = only_row(harness)
    assert (reply.status, reply.error["code"], row.status) == (status, code, status)
    assert reply.headers["content-type"] == "application/json"
    if reason is not None:
        assert_kept(reply, harness, reason)


@pytest.mark.parametrize("name", FAILURES_WITHIN)
def test_failures_within_a_stream_are_an_event_that_both_clients_raise(name: str) -> None:
    script, code, reason = FAILURES_WITHIN[name]
    reply, harness = asked(head(200, SSE), data(EVENTS[0]), *script, more=STREAM)
    assert (reply.status, reply.headers["x-keepless-retention"]) == (200, "on-error")
    events = reply.body.split(b"\n\n")
    assert events[0] + b"\n\n" == EVENTS[0]
    assert events[1].startswith(b'data: {"error":{"message":')
    assert code.encode() in events[1]
    assert events[2].startswith(b": x-keepless-retention class=reliability_log; object=obj_")
    assert events[3] == b""
    assert b"[DONE]" not in reply.body
    assert_kept(reply, harness, reason)
    answered = harness.reliability.incidents[0][0].answer_content
    assert answered is not None
    assert answered.reveal(Purpose.PROVE).startswith(EVENTS[0])


def test_an_error_event_of_the_engine_is_handed_on_and_counts_as_its_failure() -> None:
    event = b'data: {"error":{"message":"from the upstream"}}\n\n'
    reply, harness = asked(*stream([EVENTS[0], event, EVENTS[-1]]), more=STREAM)
    assert reply.body.startswith(EVENTS[0] + event + EVENTS[-1] + b": x-keepless-retention class=")
    assert (only_row(harness).status, only_row(harness).code) == (502, Code.UPSTREAM_ERROR)
    assert_kept(reply, harness, Reason.UPSTREAM_5XX)


def test_an_answer_is_handed_on_byte_for_byte() -> None:
    reply, harness = asked(head(), data(OK[:20]), data(OK[20:]), end())
    assert (reply.status, reply.body, reply.headers["x-keepless-retention"]) == (200, OK, "none")
    row = only_row(harness)
    assert (row.prompt_tokens, row.completion_tokens, row.status, row.code) == (3, 5, 200, None)
    assert (row.organization_id, row.project_id, row.key_id, row.model) == (ORGANIZATION, PROJECT, API_KEY, "zero")
    assert (row.bytes_out, row.sketch, row.outcome) == (len(OK), None, Outcome.ON_ERROR)


def test_a_stream_is_handed_on_without_the_usage_that_nobody_asked_for() -> None:
    reply, harness = asked(*stream(), more=STREAM)
    assert reply.body == EVENTS[0] + EVENTS[1] + EVENTS[3]
    assert harness.backend.bodies[0]["stream_options"] == {"include_usage": True}
    assert (only_row(harness).prompt_tokens, only_row(harness).completion_tokens) == (3, 5)


def test_a_stream_is_handed_on_untouched_when_usage_was_asked_for() -> None:
    reply, harness = asked(*stream(), more={**STREAM, "stream_options": {"include_usage": True}})
    assert reply.body == b"".join(EVENTS)
    assert (only_row(harness).prompt_tokens, only_row(harness).completion_tokens) == (3, 5)


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422])
def test_an_upstreams_refusal_passes_and_is_never_kept(status: int) -> None:
    reply, harness = asked(*answer(ECHO, status))
    assert (reply.status, reply.body, reply.headers["x-keepless-retention"]) == (status, ECHO, "none")
    assert (only_row(harness).status, only_row(harness).code) == (status, Code.UPSTREAM_REJECTED)
    assert not harness.reliability.incidents


def test_an_upstreams_refusal_that_is_no_json_becomes_ours() -> None:
    reply, _ = asked(*answer(b"<html>MARKER", 400))
    assert (reply.status, reply.error["code"]) == (400, "upstream_rejected")


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [(FailureKind.BUSY, "4"), (FailureKind.UNREACHABLE, "4"), (FailureKind.CRASHED, "4"), (FailureKind.CUT, None)],
)
def test_retry_after(kind: FailureKind, seconds: str | None) -> None:
    reply, _ = asked(fail(kind, 4))
    assert reply.headers.get("retry-after") == seconds


@pytest.mark.parametrize(
    ("model", "more", "retention"),
    [
        ("zero", {}, "none"),
        ("logs", {}, "none; upstream=logs_30d"),
        ("unknown", {}, "none; upstream=unknown"),
        ("zero", STREAM, "on-error"),
        ("logs", STREAM, "on-error; upstream=logs_30d"),
        ("zero", {**STREAM, "store": False}, "none"),
        ("logs", {**STREAM, "store": False}, "none; upstream=logs_30d"),
    ],
)
def test_the_retention_header_of_a_success(model: str, more: dict[str, Any], retention: str) -> None:
    script = stream() if more else answer()
    reply, _ = asked(*script, more={"model": model, **more})
    assert reply.headers["x-keepless-retention"] == retention


@pytest.mark.parametrize(
    ("policy", "more", "why", "source"),
    [
        (ZDR, {}, DiscardReason.ZERO_DATA_RETENTION, Source.ORGANIZATION),
        (OPTED_OUT, {}, DiscardReason.OPTED_OUT, Source.ORGANIZATION),
        (Controls(), {"store": False}, DiscardReason.REQUEST_FORBIDS, Source.REQUEST),
        (Controls(), {"provider": {"zdr": True}}, DiscardReason.REQUEST_FORBIDS, Source.REQUEST),
        (None, {}, DiscardReason.POLICY_UNREADABLE, Source.SCHEDULE),
    ],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_nothing_is_kept_where_policy_forbids_it(
    policy: Controls | None, more: dict[str, Any], why: DiscardReason, source: Source, streamed: bool
) -> None:
    def before(harness: Harness) -> None:
        if policy is None:
            harness.lease.valid = False
        else:
            harness.lease.set(policy)

    script = [head(200, SSE), data(EVENTS[0])] if streamed else [head(), data(OK[:9])]
    reply, harness = asked(*script, fail(FailureKind.CUT), more={**more, "stream": streamed}, before=before)
    row = only_row(harness)
    assert reply.headers["x-keepless-retention"] == "none"
    assert b"x-keepless-retention" not in reply.body
    assert not harness.reliability.incidents
    assert (row.outcome, row.discard, row.source) == (Outcome.REFUSED, why, source)


def test_a_capture_that_is_refused_or_breaks_is_not_claimed() -> None:
    def refuse(harness: Harness) -> None:
        harness.reliability.refuse = DiscardReason.CAPPED

    def break_(harness: Harness) -> None:
        harness.reliability.broken = ValueError("MARKER")

    for before, why in ((refuse, DiscardReason.CAPPED), (break_, DiscardReason.STORE_FAILED)):
        reply, harness = asked(*answer(b"", 500), before=before)
        assert reply.headers["x-keepless-retention"] == "none"
        assert (only_row(harness).outcome, only_row(harness).discard) == (Outcome.REFUSED, why)


def test_what_is_too_large_to_be_kept_is_not_held_in_memory() -> None:
    async def main() -> None:
        big = b'data: {"choices":[{"delta":{"content":"' + b"x" * 60_000 + b'"}}]}\n\n'
        harness = Harness(head(200, SSE), data(big), data(big), data(big), fail(FailureKind.CUT), capture_bytes=100_000)
        await harness.ask(STREAM)
        harness.close()
        assert only_row(harness).discard is DiscardReason.TOO_LARGE
        assert not harness.reliability.incidents

    asyncio.run(main())


def test_of_a_long_stream_that_fails_every_byte_is_captured_in_order() -> None:
    async def main() -> None:
        events = [b'data: {"choices":[{"delta":{"content":"%d' % n + b"x" * 9_000 + b'"}}]}\n\n' for n in range(20)]
        harness = Harness(head(200, SSE), *map(data, events), fail(FailureKind.CUT))
        await harness.ask(STREAM)
        harness.close()
        ((captured, _),) = harness.reliability.incidents
        assert captured.answer_content is not None
        assert captured.answer_content.reveal(Purpose.PROVE) == b"".join(events)

    asyncio.run(main())


REFUSED_ROUTES: list[tuple[str, Callable[[Harness], None], dict[str, Any], int, str]] = [
    ("logs", lambda h: h.lease.set(ZDR), {}, 403, "upstream_retention_not_allowed"),
    ("unknown", lambda h: h.lease.set(OPTED_OUT), {}, 403, "upstream_retention_not_allowed"),
    ("logs", lambda _: None, {"provider": {"zdr": True}}, 403, "upstream_retention_not_allowed"),
    ("logs", lambda h: h.lease.set(region="us"), {}, 403, "upstream_region_not_allowed"),
    ("zero", lambda h: h.lease.set(region="eu"), {}, 403, "upstream_region_not_allowed"),
    ("logs", lambda h: setattr(h.lease, "valid", False), {}, 503, "policy_unreadable"),
]


@pytest.mark.parametrize(("model", "before", "more", "status", "code"), REFUSED_ROUTES)
def test_an_engine_that_policy_does_not_permit_is_not_asked(
    model: str, before: Callable[[Harness], None], more: dict[str, Any], status: int, code: str
) -> None:
    reply, harness = asked(*answer(), more={"model": model, **more}, before=before)
    assert (reply.status, reply.error["code"]) == (status, code)
    assert reply.headers["x-keepless-retention"] == "none"
    assert not harness.backend.calls
    assert only_row(harness).status == status
    if status == 403:
        assert reply.headers["x-should-retry"] == "false"


def test_without_a_lease_an_engine_with_zero_retention_still_answers() -> None:
    reply, harness = asked(*answer(), before=lambda h: setattr(h.lease, "valid", False))
    assert (reply.status, reply.headers["x-keepless-retention"]) == (200, "none")
    assert only_row(harness).outcome is Outcome.NONE


def test_permission_is_asked_again_at_the_moment_of_sending() -> None:
    async def main() -> None:
        harness = Harness()
        harness.send({"model": "logs", "messages": [{"role": "user", "content": "x"}]})
        permitted = harness.backend.calls[0].permitted
        assert permitted()
        harness.lease.generation += 1  # something else has changed
        assert permitted()
        harness.lease.valid = False
        assert not permitted()
        harness.lease.valid = True
        harness.lease.set(ZDR)
        assert not permitted()
        harness.lease.known = None
        assert not permitted()
        harness.close()

    asyncio.run(main())


def test_a_request_withdrawn_while_it_waited_is_told_why() -> None:
    def tighten(_: object) -> None:
        harnesses[0].lease.set(ZDR)

    harnesses: list[Harness] = []
    reply, harness = asked(tighten, fail(FailureKind.WITHDRAWN), more={"model": "logs"}, before=harnesses.append)
    assert (reply.status, reply.error["code"]) == (403, "upstream_retention_not_allowed")
    assert only_row(harness).code is Code.UPSTREAM_RETENTION


def test_a_tightening_stops_what_is_under_way_and_forgets_what_it_could_have_kept() -> None:
    async def main() -> None:
        harness = Harness(head(200, SSE), data(EVENTS[0]))
        to_logs, to_zero = (harness.send({"model": m, "messages": [{"role": "user", "content": "x"}], **STREAM})
                            for m in ("logs", "zero"))  # fmt: skip
        await asyncio.sleep(0)
        kept = next(p for p in harness.way.inflight if p._ask.route.model.id == "zero")
        assert kept._so_far.size
        harness.lease.set(ZDR)
        harness.way.enforce()
        assert to_logs.closed
        assert b"upstream_retention_not_allowed" in to_logs.body
        assert harness.backend.exchanges[0].cancelled
        assert not to_zero.closed
        assert not kept._so_far.size
        harness.lease.set()  # loosening again gives nothing back
        harness.way.enforce()
        kept.on_data(EVENTS[0])
        assert not kept._so_far.size
        kept.on_failure(Failure(FailureKind.CUT))
        await to_zero.done.wait()
        assert not harness.reliability.incidents
        assert [row.status for row in harness.rows] == [403, 502]
        assert harness.rows[1].discard is DiscardReason.ZERO_DATA_RETENTION
        harness.close()

    asyncio.run(main())


@pytest.mark.parametrize("script", [[], [head(200, SSE)], [head(200, SSE), data(EVENTS[0])]])
def test_a_client_that_leaves_stops_the_engine_and_is_recorded_once(script: list[Step]) -> None:
    async def main() -> None:
        harness = Harness(*script)
        reply = harness.send({"model": "zero", "messages": [{"role": "user", "content": "x"}], **STREAM})
        await asyncio.sleep(0)
        reply.leave()
        assert harness.backend.exchanges[0].cancelled
        assert (only_row(harness).status, only_row(harness).code) == (499, Code.CLIENT_CLOSED)
        assert not harness.reliability.incidents
        harness.close()

    asyncio.run(main())


def test_a_client_that_leaves_while_its_failure_is_captured_is_recorded_once() -> None:
    async def main() -> None:
        harness = Harness(*answer(b"", 500))
        reply = harness.send({"model": "zero", "messages": [{"role": "user", "content": "x"}]})
        await asyncio.sleep(0)
        reply.leave()
        await asyncio.wait_for(harness.rows.first.wait(), 10)
        assert only_row(harness).outcome is Outcome.CAPTURED
        harness.close()

    asyncio.run(main())


def test_a_slow_client_slows_the_engine() -> None:
    async def main() -> None:
        harness = Harness()
        reply = harness.send({"model": "zero", "messages": [{"role": "user", "content": "x"}]})
        assert reply.on_pause is not None
        assert reply.on_resume is not None
        reply.on_pause()
        assert harness.backend.exchanges[0].paused
        reply.on_resume()
        assert not harness.backend.exchanges[0].paused
        harness.close()

    asyncio.run(main())


def test_a_fault_of_ours_is_500_without_a_word_and_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: bytes) -> None:
        raise ValueError("MARKER")

    monkeypatch.setattr("keepless.gateway.chat.read_answer", broken)
    lines = io.StringIO()
    log.redirect(lines)
    reply, harness = asked(*answer())
    log.redirect(sys.stderr)
    assert (reply.status, reply.error["code"]) == (500, "internal_error")
    assert b"MARKER" not in reply.body
    assert "ValueError" in lines.getvalue()
    assert "MARKER" not in lines.getvalue()
    assert_kept(reply, harness, Reason.INTERNAL_ERROR)


@pytest.mark.parametrize("streamed", [False, True])
def test_under_a_confirmed_case_a_request_is_kept_and_the_header_says_so(streamed: bool) -> None:
    def watch(harness: Harness) -> None:
        harness.cases.keys.add(API_KEY)

    reply, harness = asked(*(stream() if streamed else answer()), more={"stream": streamed}, before=watch)
    described = "class=abuse_log; object=obj_"
    if streamed:
        assert reply.headers["x-keepless-retention"] == "pending; class=abuse_log"
        assert reply.body.split(b"\n\n")[-2].startswith(f": x-keepless-retention {described}".encode())
    else:
        assert reply.headers["x-keepless-retention"].startswith(described)
    assert (len(harness.cases.incidents), only_row(harness).outcome) == (1, Outcome.CAPTURED)


def test_under_a_case_zdr_still_keeps_nothing() -> None:
    def watch(harness: Harness) -> None:
        harness.cases.keys.add(API_KEY)
        harness.lease.set(ZDR)

    reply, harness = asked(*answer(), before=watch)
    assert reply.headers["x-keepless-retention"] == "none"
    assert not harness.cases.incidents


def test_tokens_are_settled_from_real_usage() -> None:
    reply, harness = asked(
        *answer(), more={"max_tokens": 500}, before=lambda h: h.lease.set(limits=Limits(tokens_per_minute=600))
    )
    assert int(reply.headers["x-ratelimit-remaining-tokens"]) < 100
    assert harness.lease.known is not None
    grant = harness.rates.admit(harness.lease.known, "zero", 0)
    assert grant is not None
    assert b"remaining-tokens: 592\r\n" in grant.headers


def test_an_engine_that_cannot_even_begin_leaves_nothing_behind() -> None:
    def broken(*_: object) -> None:
        raise TypeError("MARKER")

    async def main() -> None:
        harness = Harness()
        vars(harness.backend)["start"] = broken
        reply = await harness.ask()
        assert reply.status == 500
        assert b"MARKER" not in reply.head + reply.body
        assert not harness.way.inflight
        assert [record.status for record in harness.rows] == [500]
        assert [reason for _, reason in harness.reliability.incidents] == [Reason.INTERNAL_ERROR]
        harness.close()

    asyncio.run(main())
