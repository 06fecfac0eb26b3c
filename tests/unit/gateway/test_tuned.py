"""Tuned models by their names: found by their own project only, gone at once, and no name in usage or errors."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from starlette.applications import Starlette

from keepless.accounts.lease import Lease
from keepless.accounts.tuned import Tuned
from keepless.config import Endpoint
from keepless.content import Content
from keepless.errors import Problem
from keepless.gateway.line import Collector
from keepless.gateway.models import routes
from keepless.http import problems
from keepless.ids import Id, Prefix, mint
from keepless.inference.backend import FailureKind
from keepless.inference.router import Route, Router
from keepless.policy.controls import Controls
from keepless.policy.data_class import Feature
from keepless.tuning.names import ledger_name, name_of
from tests.support.asgi import call
from tests.support.sinks import until
from tests.support.way import KEY, MODELS, ORGANIZATION, PROJECT, Harness, answer, fail, head, stream

HEX = "0123456789ab"
WALRUS = name_of("embedded", ORGANIZATION, "walrus", HEX)
LEDGER = ledger_name("embedded", HEX)


def with_model(harness: Harness, *, organization: Id = ORGANIZATION, project: Id = PROJECT, base: str = "embedded",
               ends_at: int | None = None) -> Tuned:  # fmt: skip
    tuned = Tuned(HEX, organization, project, base, mint(Prefix.OBJECT), 1_700_000_000_000)
    harness.lease.models[HEX] = tuned
    harness.labels[tuned.object_id] = (ends_at, Content(b"walrus"))
    return tuned


def on(test: Callable[[Harness], Awaitable[None]], *script) -> None:
    async def main() -> None:
        harness = Harness(*script)
        try:
            await test(harness)
        finally:
            await harness.tuned.close()
            harness.close()

    asyncio.run(main())


def test_it_is_answered_by_its_own_engine_and_no_name_is_written_down() -> None:
    async def test(harness: Harness) -> None:
        with_model(harness)
        for _ in range(3):
            reply = await harness.ask({"model": WALRUS})
            assert reply.status == 200
        assert harness.labels_read == 1  # compared once
        assert [body["model"] for body in harness.backend.bodies] == [WALRUS] * 3
        assert [(row.model, row.status) for row in harness.rows] == [(LEDGER, 200)] * 3

    on(test, *answer())


def test_responses_call_it_as_it_was_asked() -> None:
    async def test(harness: Harness) -> None:
        with_model(harness)
        reply = await harness.ask({"model": WALRUS}, to=Endpoint.RESPONSES)
        assert reply.status == 200
        assert WALRUS.encode() in reply.body
        assert harness.rows[0].model == LEDGER

    chat = (
        b'{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"x"},'
        b'"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8}}'
    )
    on(test, *answer(chat))


@pytest.mark.parametrize(
    "name",
    [
        name_of("embedded", ORGANIZATION, "seal", HEX),
        name_of("embedded", ORGANIZATION, "walrus", "ffffffffffff"),
        name_of("zero", ORGANIZATION, "walrus", HEX),
        name_of("embedded", mint(Prefix.ORGANIZATION), "walrus", HEX),
        f"ft:embedded:{ORGANIZATION}/walrus",
        "ft:",
        LEDGER,
    ],
    ids=["name", "digits", "base", "organization", "short", "nothing", "ledger"],
)
def test_any_other_name_is_unknown(name: str) -> None:
    async def test(harness: Harness) -> None:
        with_model(harness)
        assert (await harness.ask({"model": WALRUS})).status == 200
        reply = await harness.ask({"model": name})
        assert (reply.status, reply.error["code"]) == (404, "model_not_found")
        assert "walrus" not in reply.body.decode() and "seal" not in reply.body.decode()
        assert harness.rows[1].model is None
        assert len(harness.backend.calls) == 1

    on(test, *answer())


@pytest.mark.parametrize("whose", ["organization", "project"])
def test_it_is_nobody_elses(whose: str) -> None:
    async def test(harness: Harness) -> None:
        other = {whose: mint(Prefix.ORGANIZATION if whose == "organization" else Prefix.PROJECT)}
        tuned = with_model(harness, **other)
        name = name_of("embedded", tuned.organization_id, "walrus", HEX)
        for asked in (name, WALRUS):
            reply = await harness.ask({"model": asked})
            assert (reply.status, reply.error["code"]) == (404, "model_not_found")
        assert harness.labels_read == 0 and not harness.backend.calls
        assert harness.tuned.of(harness.lease.known) == []

    on(test, *answer())


@pytest.mark.parametrize(
    "controls", [Controls(off=frozenset({Feature.FINE_TUNING})), Controls(zero_data_retention=True)]
)
def test_turned_off_is_403_at_once_and_it_is_back_afterwards(controls: Controls) -> None:
    async def test(harness: Harness) -> None:
        with_model(harness)
        assert (await harness.ask({"model": WALRUS})).status == 200
        harness.lease.set(controls)
        harness.tuned.enforce()
        reply = await harness.ask({"model": WALRUS})
        assert (reply.status, reply.error["code"]) == (403, "feature_disabled_by_data_controls")
        assert harness.tuned.of(harness.lease.known) == []
        harness.lease.set()
        harness.tuned.enforce()
        assert (await harness.ask({"model": WALRUS})).status == 200
        assert harness.labels_read == 2  # through the door again

    on(test, *answer())


def test_without_a_lease_it_is_not_served() -> None:
    async def test(harness: Harness) -> None:
        with_model(harness)
        harness.lease.valid = False
        reply = await harness.ask({"model": WALRUS})
        assert (reply.status, reply.error["code"]) == (503, "policy_unreadable")

    on(test, *answer())


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda harness: harness.lease.models.clear(), 404),
        (lambda harness: harness.lease.set(Controls(off=frozenset({Feature.FINE_TUNING}))), 403),
    ],
    ids=["deleted", "turned off"],
)
def test_an_answer_under_way_ends_with_the_model(change: Callable[[Harness], None], status: int) -> None:
    async def test(harness: Harness) -> None:
        with_model(harness)
        body = {"model": WALRUS, "messages": [{"role": "user", "content": "QUESTION"}], "stream": True}
        reply = harness.send(body)
        await until(lambda: bool(reply.body))
        change(harness)
        harness.way.enforce()
        harness.tuned.enforce()
        await asyncio.wait_for(reply.done.wait(), 10)
        assert harness.backend.exchanges[0].cancelled
        assert b"error" in reply.body
        assert harness.rows[0].status == status
        assert (await harness.ask({"model": WALRUS})).status == status

    on(test, head(200, b"text/event-stream"), *stream()[1:2])


def test_its_weights_end_with_their_time() -> None:
    async def test(harness: Harness) -> None:
        tuned = with_model(harness, ends_at=harness.clock.now_ms() + 1000)
        assert (await harness.ask({"model": WALRUS})).status == 200
        harness.clock.advance_ms(2000)
        harness.labels.pop(tuned.object_id)
        assert (await harness.ask({"model": WALRUS})).status == 404

    on(test, *answer())


def test_one_made_a_moment_ago_is_waited_for() -> None:
    async def test(harness: Harness) -> None:
        reply = harness.send({"model": WALRUS, "messages": [{"role": "user", "content": "QUESTION"}]})
        assert harness.lease.asked_again == 1
        with_model(harness)
        await asyncio.wait_for(reply.done.wait(), 10)
        assert reply.status == 200

    on(test, *answer())


def test_a_client_that_leaves_while_it_is_looked_up() -> None:
    async def test(harness: Harness) -> None:
        with_model(harness)
        reply = harness.send({"model": WALRUS, "messages": [{"role": "user", "content": "QUESTION"}]})
        reply.leave()
        assert [row.status for row in harness.rows] == [499]
        await asyncio.sleep(0.1)
        assert not harness.backend.calls and len(harness.rows) == 1

    on(test, *answer())


def test_an_endpoint_that_its_base_does_not_serve() -> None:
    async def test(harness: Harness) -> None:
        with_model(harness)
        reply = await harness.ask({"model": WALRUS}, to=Endpoint.EMBEDDINGS)
        assert reply.status == 400
        assert LEDGER in reply.body.decode() and "walrus" not in reply.body.decode()

    on(test, *answer())


def test_a_line_of_a_batch() -> None:
    async def test(harness: Harness) -> None:
        with_model(harness)
        done = asyncio.get_running_loop().create_future()
        collector = Collector(lambda status, body: done.set_result(status))
        body = b'{"model":"%b","messages":[{"role":"user","content":"x"}]}' % WALRUS.encode()
        harness.handlers[Endpoint.CHAT].line(harness.lease.known, body, collector)
        assert await asyncio.wait_for(done, 10) == 200
        assert harness.tuned.lane(WALRUS) == (LEDGER, harness.tuned.base_of(harness.lease.models[HEX]))
        assert harness.tuned.lane("ft:nothing") is None
        assert await asyncio.to_thread(harness.tuned.offered, harness.lease.known, WALRUS) is harness.lease.models[HEX]
        with pytest.raises(Problem):
            await asyncio.to_thread(harness.tuned.offered, harness.lease.known, WALRUS.replace("walrus", "seal"))

    on(test, *answer())


def test_an_engine_that_is_not_there_is_told_as_any_other() -> None:
    async def test(harness: Harness) -> None:
        with_model(harness)
        reply = await harness.ask({"model": WALRUS})
        assert reply.status == 503
        assert harness.rows[0].model == LEDGER

    on(test, fail(FailureKind.BUSY))


def test_the_list_has_names_and_no_more_than_may_be_read() -> None:
    async def test(harness: Harness) -> None:
        tuned = with_model(harness)
        own = harness.tuned.of(harness.lease.known)
        assert own == [tuned]
        assert harness.tuned.names(own) == {HEX: WALRUS}
        harness.labels.clear()
        assert harness.tuned.names(own) == {}

    on(test)


def test_the_pages_show_it_to_its_project_only() -> None:
    async def test(harness: Harness) -> None:
        tuned = with_model(harness)
        pages = routes(
            cast("Lease", harness.lease), Router(Route(model, harness.backend) for model in MODELS), harness.tuned
        )
        app = problems.Guard(Starlette(routes=pages, exception_handlers=dict(problems.handlers())))

        def get(path: str) -> tuple[int, Any]:
            answer = call(app, "GET", f"/v1/models{path}", {"authorization": f"Bearer {KEY}"})
            return answer.status, json.loads(answer.body)

        def own() -> list[str]:
            return [one["id"] for one in get("")[1]["data"] if one["id"].startswith("ft:")]

        assert await asyncio.to_thread(own) == [WALRUS]
        status, shown = await asyncio.to_thread(get, f"/{WALRUS}")
        assert status == 200
        assert shown["id"] == WALRUS and shown["owned_by"] == ORGANIZATION
        assert shown["created"] == tuned.created_at // 1000
        assert shown["capabilities"] == (await asyncio.to_thread(get, "/embedded"))[1]["capabilities"]
        assert (await asyncio.to_thread(get, f"/{WALRUS}x"))[0] == 404
        harness.lease.set(Controls(off=frozenset({Feature.FINE_TUNING})))
        assert await asyncio.to_thread(own) == []
        assert (await asyncio.to_thread(get, f"/{WALRUS}"))[0] == 403
        harness.lease.set()
        with_model(harness, project=mint(Prefix.PROJECT))
        assert await asyncio.to_thread(own) == []
        assert (await asyncio.to_thread(get, f"/{WALRUS}"))[0] == 404

    on(test)
