"""/embeddings through the whole way: what an engine is asked, every ending, and that nothing is ever captured."""

import asyncio
from typing import Any

import msgspec
import pytest

from keepless.accounts.principal import Limits
from keepless.config import Endpoint
from keepless.content import Content, Purpose
from keepless.errors import Code
from keepless.gateway.line import Collector
from keepless.inference.embedded.asks import EmbeddingHeader
from keepless.policy.data_class import DataClass
from keepless.usage.record import Flag, Outcome, Phase
from tests.support.usage import shown
from tests.support.way import API_KEY, FakeReply, Harness, Step, answer, asked, data, end, head
from tests.unit.test_pipeline import FAILURES

M = "MARKER"
BODY = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.5]}],
    "model": "its-own-name",
    "usage": {"prompt_tokens": 4, "total_tokens": 4},
}
OK = answer(msgspec.json.encode(BODY))


def embeddings(*script: Step, more: dict[str, Any] | None = None, **how: Any) -> tuple[FakeReply, Harness]:
    return asked(*script, more={"model": "embedder", **(more or {})}, to=Endpoint.EMBEDDINGS, **how)


def row(harness: Harness) -> Any:
    assert len(harness.rows) == 1
    assert not harness.way.inflight
    return harness.rows[0]


def test_an_upstream_is_asked_by_its_own_name_and_its_answer_passed_on() -> None:
    reply, harness = embeddings(*OK, more={"encoding_format": "base64", "user": None, "store": False})
    assert harness.backend.calls[0].path == "/embeddings"
    assert harness.backend.bodies == [{"model": "its-own-name", "input": "QUESTION", "encoding_format": "base64"}]
    assert reply.body == msgspec.json.encode(BODY)
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")


def test_it_is_recorded_and_nothing_of_it_can_be_kept() -> None:
    reply, harness = embeddings(*OK)
    found = row(harness)
    assert (found.endpoint, found.status, found.prompt_tokens, found.streamed) == (Endpoint.EMBEDDINGS, 200, 4, False)
    assert found.outcome is Outcome.NONE
    assert reply.headers["x-keepless-retention"] == "none; upstream=unknown"


@pytest.mark.parametrize("script", [OK, *(script for script, *_ in FAILURES.values())])
def test_nothing_is_captured_whatever_happens_and_whoever_asks(script: list[Step]) -> None:
    def confirmed(harness: Harness) -> None:
        harness.cases.keys.add(API_KEY)

    reply, harness = embeddings(*script, before=confirmed)
    assert not harness.reliability.incidents
    assert not harness.cases.incidents
    assert row(harness).object_id is None
    assert DataClass.RELIABILITY_LOG.value.encode() not in reply.head
    assert reply.headers["x-keepless-retention"].startswith("none")


@pytest.mark.parametrize("name", FAILURES)
def test_failures(name: str) -> None:
    script, status, code, _ = FAILURES[name]
    reply, harness = embeddings(*script)
    found = row(harness)
    assert (reply.status, reply.error["code"], found.status, found.code) == (status, code, status, code)
    assert M.encode() not in reply.body


@pytest.mark.parametrize(
    "body",
    [
        {**BODY, "data": []},
        {**BODY, "data": [{}, {}]},
        {**BODY, "data": None},
        {"usage": {}},
        {**BODY, "usage": {"prompt_tokens": M}},
    ],
)
def test_an_answer_that_is_none_is_told_as_such(body: dict[str, Any]) -> None:
    reply, harness = embeddings(*answer(msgspec.json.encode(body)))
    assert (reply.status, row(harness).code) == (502, Code.UPSTREAM_MALFORMED)


def test_an_answer_without_usage_is_an_answer() -> None:
    reply, harness = embeddings(*answer(msgspec.json.encode({"data": [{}]})))
    assert (reply.status, row(harness).prompt_tokens) == (200, 0)


@pytest.mark.parametrize(
    ("more", "header", "content"),
    [
        ({}, {"base64": False, "dimensions": None}, b'["QUESTION"]'),
        ({"encoding_format": "base64", "dimensions": 384}, {"base64": True, "dimensions": 384}, b'["QUESTION"]'),
        ({"input": ["a", "b"]}, {"base64": False, "dimensions": None}, b'["a","b"]'),
    ],
)
def test_our_own_engine_is_asked_in_frames(more: dict[str, Any], header: dict[str, Any], content: bytes) -> None:
    reply, harness = embeddings(*answer(b"whatever it says"), more={"model": "minilm", **more})
    found, beside = harness.backend.bodies[0]
    assert msgspec.json.decode(found, type=EmbeddingHeader) == EmbeddingHeader(model="minilm", **header)
    assert beside == content
    assert (reply.status, reply.body) == (200, b"whatever it says")
    assert reply.headers["x-keepless-retention"] == "none"


def test_our_own_engine_says_what_it_cost() -> None:
    async def main() -> None:
        harness = Harness(head(), lambda _: harness.backend.calls[0].metered(7, 0, 0), data(b"{}"), end())
        await harness.ask({"model": "minilm"}, to=Endpoint.EMBEDDINGS)
        harness.close()
        assert row(harness).prompt_tokens == 7

    asyncio.run(main())


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"model":"MARKER', 400, Code.INVALID_JSON),
        ({"input": M}, 400, Code.MISSING_PARAMETER),
        ({"model": M, "input": M}, 404, Code.MODEL_NOT_FOUND),
        ({"model": "zero", "input": M}, 400, Code.UNSUPPORTED_VALUE),
        ({"model": "embedder"}, 400, Code.MISSING_PARAMETER),
        ({"model": "embedder", "input": ""}, 400, Code.INVALID_VALUE),
        ({"model": "embedder", "input": M, M: M}, 400, Code.UNKNOWN_PARAMETER),
        ({"model": "minilm", "input": [1, 2]}, 400, Code.UNSUPPORTED_PARAMETER),
    ],
)
def test_refusals_are_told_and_recorded_without_a_word_of_the_client(body: Any, status: int, code: Code) -> None:
    async def main() -> None:
        harness = Harness(*OK)
        reply = harness.send(body, to=Endpoint.EMBEDDINGS)
        harness.close()
        found = row(harness)
        assert (reply.status, reply.error["code"], found.code, found.endpoint) == (
            status,
            code,
            code,
            Endpoint.EMBEDDINGS,
        )
        assert found.sketch.phase is Phase.VALIDATE
        assert M.encode() not in reply.body
        assert M not in shown(found)
        assert not harness.backend.calls

    asyncio.run(main())


def test_the_sketch_of_a_failure_counts_inputs() -> None:
    _, harness = embeddings(*answer(b"[]"), more={"input": ["abc", "de"], "store": False})
    sketch = row(harness).sketch
    assert (sketch.messages, sketch.largest_message_bytes, sketch.upstream_status) == (2, 3, 200)
    assert sketch.flags == Flag.PRIVACY_SWITCH


def test_tokens_are_charged_by_what_was_used() -> None:
    async def main() -> None:
        harness = Harness(*OK)
        harness.lease.set(limits=Limits(tokens_per_minute=1000))
        reply = await harness.ask({"model": "embedder", "input": [[1, 2, 3]]}, to=Endpoint.EMBEDDINGS)
        assert reply.headers["x-ratelimit-remaining-tokens"] == "997"
        assert harness.lease.known is not None
        grant = harness.rates.admit(harness.lease.known, "zero", 0)
        assert grant is not None
        assert b"remaining-tokens: 996\r\n" in grant.headers
        reply = await harness.ask({"model": "embedder", "input": "x" * 8000}, to=Endpoint.EMBEDDINGS)
        assert reply.status == 413
        harness.close()

    asyncio.run(main())


def test_a_line_of_a_batch_goes_the_same_way() -> None:
    async def main() -> None:
        harness = Harness(*OK)
        told: asyncio.Future[tuple[int, Content]] = asyncio.get_running_loop().create_future()
        assert harness.lease.known is not None
        body = msgspec.json.encode({"model": "embedder", "input": "QUESTION"})
        collector = Collector(lambda status, content: told.set_result((status, content)))
        harness.handlers[Endpoint.EMBEDDINGS].line(harness.lease.known, body, collector)
        status, content = await asyncio.wait_for(told, 10)
        assert (status, content.reveal(Purpose.PROVE)) == (200, msgspec.json.encode(BODY))
        harness.close()

    asyncio.run(main())


def test_a_client_that_leaves_stops_the_engine() -> None:
    async def main() -> None:
        harness = Harness(head())
        reply = harness.send({"model": "embedder", "input": "QUESTION"}, to=Endpoint.EMBEDDINGS)
        await asyncio.sleep(0)
        reply.leave()
        assert harness.backend.exchanges[0].cancelled
        assert row(harness).code is Code.CLIENT_CLOSED
        harness.close()

    asyncio.run(main())
