"""What all endpoints share: which models serve one, and lines of a batch, which come without a socket."""

import asyncio
from typing import Any

import msgspec
import pytest

from keepless.accounts.principal import Limits
from keepless.config import Endpoint
from keepless.content import Content, Purpose
from keepless.errors import Code
from keepless.gateway.line import Collector
from keepless.inference.backend import FailureKind
from keepless.policy.controls import Controls
from keepless.usage.record import Outcome, Phase
from tests.support.way import API_KEY, OK, Harness, Step, answer, asked, fail

BODY = {"model": "zero", "messages": [{"role": "user", "content": "MARKER"}]}


def line(
    body: dict[str, Any], *script: Step, controls: Controls | None = None, seen: list[Collector] | None = None
) -> tuple[int, dict[str, Any], Harness]:
    """One line through a fresh path: its answer, and the path to look into."""

    async def main() -> tuple[int, dict[str, Any], Harness]:
        harness = Harness(*script)
        harness.lease.set(controls or Controls(), limits=Limits(requests_per_minute=1))
        told: asyncio.Future[tuple[int, Content]] = asyncio.get_running_loop().create_future()
        assert harness.lease.known is not None
        for _ in range(3):  # no limit counts a line
            collector = Collector(lambda status, content: None if told.done() else told.set_result((status, content)))
            if seen is not None:
                seen.append(collector)
            request_id = harness.handler.line(harness.lease.known, msgspec.json.encode(body), collector)
        status, content = await asyncio.wait_for(told, 10)
        for _ in range(5):
            await asyncio.sleep(0)
        harness.close()
        assert harness.rows[-1].request_id == request_id
        return status, msgspec.json.decode(content.reveal(Purpose.PROVE)), harness

    return asyncio.run(main())


def test_a_line_is_answered_as_a_request_is_and_leaves_its_row() -> None:
    status, body, harness = line(BODY, *answer())
    assert (status, body) == (200, msgspec.json.decode(OK))
    row = harness.rows[0]
    assert (row.status, row.key_id, row.endpoint, row.prompt_tokens) == (200, API_KEY, Endpoint.CHAT, 3)
    assert len({row.request_id for row in harness.rows}) == len(harness.rows) == 3
    assert not harness.way.inflight


@pytest.mark.parametrize(
    ("more", "status", "code"),
    [
        ({"stream": True}, 400, Code.UNSUPPORTED_VALUE),
        ({"model": "MARKER"}, 404, Code.MODEL_NOT_FOUND),
        ({"model": "transcriber"}, 400, Code.UNSUPPORTED_VALUE),
        ({"temperature": "MARKER"}, 400, Code.INVALID_TYPE),
        ({"store": True}, 400, Code.LOOSENING_REFUSED),
    ],
)
def test_a_line_is_checked_as_a_request_is(more: dict[str, Any], status: int, code: Code) -> None:
    told, body, harness = line({**BODY, **more}, *answer())
    row = harness.rows[0]
    assert (told, body["error"]["code"], row.status, row.code) == (status, code, status, code)
    assert row.sketch is not None
    assert row.sketch.phase is Phase.VALIDATE
    assert not harness.backend.calls
    assert "MARKER" not in str(body)


def test_a_line_that_fails_is_never_captured() -> None:
    status, body, harness = line(BODY, fail(FailureKind.CRASHED))
    assert (status, body["error"]["code"]) == (503, Code.ENGINE_FAILED)
    assert harness.rows[0].outcome is Outcome.NONE
    assert not harness.reliability.incidents


@pytest.mark.parametrize(("kind", "waits"), [(FailureKind.CRASHED, False), (FailureKind.BUSY, True)])
def test_a_line_that_met_the_death_of_its_engine_does_not_come_again(kind: FailureKind, waits: bool) -> None:
    seen: list[Collector] = []
    assert line(BODY, fail(kind), seen=seen)[0] == 503
    assert (seen[0].retry_after_s is not None) is waits
    assert seen[0].code is kind.code
    refused: list[Collector] = []
    line({**BODY, "stream": True}, *answer(), seen=refused)
    assert refused[0].code is Code.UNSUPPORTED_VALUE


def test_zero_retention_binds_a_line() -> None:
    status, body, harness = line({**BODY, "model": "logs"}, *answer(), controls=Controls(zero_data_retention=True))
    assert (status, body["error"]["code"]) == (403, Code.UPSTREAM_RETENTION)
    assert not harness.backend.calls


def test_cancelling_a_line_stops_its_engine() -> None:
    async def main() -> None:
        harness = Harness()
        told: list[int] = []
        collector = Collector(lambda status, _: told.append(status))
        assert harness.lease.known is not None
        harness.handler.line(harness.lease.known, msgspec.json.encode(BODY), collector)
        collector.cancel()
        assert harness.backend.exchanges[0].cancelled
        assert (harness.rows[0].code, told) == (Code.CLIENT_CLOSED, [])
        harness.close()

    asyncio.run(main())


def test_a_model_that_serves_another_endpoint_says_which_it_does_not() -> None:
    reply, harness = asked(*answer(), more={"model": "transcriber"})
    assert (reply.status, reply.error["message"]) == (400, "The model `transcriber` does not support chat completions")
    assert reply.headers["x-should-retry"] == "false"
    assert harness.rows[0].code is Code.UNSUPPORTED_VALUE
