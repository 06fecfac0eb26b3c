"""Several upstreams under any schedule of failures, waits, changes of policy and clients that leave.

Whatever happens: a request is never sent to an upstream that policy does not permit at that moment, none is under way
at one after a change has been enforced; nobody is asked twice, nor after a byte of an answer has come; every request
has exactly one end and one row of usage, and both say the truth about who answered.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keepless.config import Engine, ModelConfig, UpstreamConfig, UpstreamRetention
from keepless.inference.backend import Call, Failure, FailureKind, Sink
from keepless.inference.router import Route
from keepless.policy.controls import Controls
from keepless.policy.data_class import Feature
from tests.support.way import EVENTS, OK, SSE, FakeExchange, FakeReply, Harness, Step, answer, data, fail, head, stream

TURNS = 40
ZERO, LOGS, UNKNOWN = UpstreamRetention.ZERO, UpstreamRetention.LOGS_30D, UpstreamRetention.UNKNOWN
SAID = {ZERO: "", LOGS: "; upstream=logs_30d", UNKNOWN: "; upstream=unknown"}
POLICIES: dict[str, tuple[Controls, str | None]] = {
    "open": (Controls(), None),
    "zdr": (Controls(zero_data_retention=True), None),
    "no logging": (Controls(off=frozenset({Feature.INFERENCE_LOGGING})), None),
    "in us": (Controls(), "us"),
    "zdr in eu": (Controls(zero_data_retention=True), "eu"),
}
HANGS: list[Step] = []
# how an upstream treats a request: (whole answer, stream)
WAYS: dict[str, tuple[list[Step], list[Step]]] = {
    "answers": (answer(), stream()),
    "unreachable": ([fail(FailureKind.UNREACHABLE)],) * 2,
    "queue full": ([fail(FailureKind.BUSY, 1)],) * 2,
    "cut": ([fail(FailureKind.CUT)],) * 2,
    "late": ([fail(FailureKind.TIMEOUT_FIRST_BYTE)],) * 2,
    "garbage": ([fail(FailureKind.MALFORMED)],) * 2,
    "cut in the answer": (
        [head(), data(OK[:9]), fail(FailureKind.CUT)],
        [head(200, SSE), data(EVENTS[0]), fail(FailureKind.CUT)],
    ),
    "hangs": (HANGS, HANGS),
    "hangs in the answer": ([head(), data(OK[:9])], [head(200, SSE), data(EVENTS[0])]),
    **{str(status): (answer(b'{"error":{}}', status),) * 2 for status in (400, 401, 429, 500, 502, 503, 504)},
}


@dataclass(frozen=True)
class Plan:
    """One request: when it comes, what each upstream does with it and after how many turns, when its client leaves."""

    at: int
    streamed: bool
    zero: bool  # the request itself allows upstreams with zero retention only
    ways: list[str]
    waits: list[int]
    leaves: int | None


@dataclass
class Sent:
    """A request at an upstream."""

    request: str
    upstream: int
    exchange: FakeExchange
    written: bool = False
    over: bool = False


class Reply(FakeReply):
    """Counts its ends."""

    def __init__(self) -> None:
        super().__init__()
        self.ends = 0

    def _close(self) -> None:
        self.ends += not self.closed
        super()._close()


@dataclass
class World:
    """What the upstreams saw, and the policy as whoever set it knows it."""

    upstreams: list[UpstreamConfig]
    plans: list[Plan]
    of: dict[str, Plan] = field(default_factory=dict)
    sent: list[Sent] = field(default_factory=list)
    policy: str = "open"
    leased: bool = True
    wrong: list[str] = field(default_factory=list)

    def permits(self, upstream: UpstreamConfig, plan: Plan) -> bool:
        controls, region = POLICIES[self.policy]
        zero = plan.zero or not self.leased or controls != Controls()
        return (not zero or upstream.retention is ZERO) and region in (None, upstream.region)

    def under_way(self) -> Iterator[Sent]:
        return (one for one in self.sent if one.written and not one.over and not one.exchange.cancelled)


@dataclass
class Upstream:
    """An engine that waits for a connection, asks whether it still may, and does as planned, a step a turn."""

    world: World
    index: int
    healthy: bool = True

    def start(self, call: Call, sink: Sink) -> FakeExchange:
        one = Sent(call.request_id, self.index, FakeExchange())
        if call.request_id not in self.world.of:
            self.world.of[call.request_id] = self.world.plans[len(self.world.of)]
        self.world.sent.append(one)
        asyncio.get_running_loop().create_task(self._serve(call, sink, one))
        return one.exchange

    async def _serve(self, call: Call, sink: Sink, one: Sent) -> None:
        world, plan = self.world, self.world.of[call.request_id]
        for _ in range(plan.waits[self.index]):
            await asyncio.sleep(0)
        if one.exchange.cancelled:
            return
        if not call.permitted():
            one.over = True
            sink.on_failure(Failure(FailureKind.WITHDRAWN))
            return
        steps = WAYS[plan.ways[self.index]][plan.streamed]
        sends = plan.ways[self.index] not in ("unreachable", "queue full")
        one.written = sends
        if sends and not world.permits(world.upstreams[self.index], plan):
            world.wrong.append(f"sent to upstream {self.index} under {world.policy}, leased: {world.leased}")
        for number, step in enumerate(steps):
            await asyncio.sleep(0)
            if one.exchange.cancelled:
                return
            one.over = number == len(steps) - 1 and plan.ways[self.index] != "hangs in the answer"
            step(sink)

    async def close(self) -> None: ...


def change(world: World, harness: Harness, event: str) -> None:
    """One change of policy or of the lease, enforced as every process enforces it before it acknowledges."""
    if event == "lease over":  # by time alone: nobody has noticed yet
        world.leased = harness.lease.valid = False
        return
    if event in POLICIES:
        world.policy = event
        controls, region = POLICIES[event]
        harness.lease.set(controls, region=region)
    else:
        world.leased = harness.lease.valid = event == "lease"
    harness.way.enforce()
    for one in world.under_way():
        if not world.permits(world.upstreams[one.upstream], world.of[one.request]):
            world.wrong.append(f"still at upstream {one.upstream} after {event}")


async def run(model: ModelConfig, plans: list[Plan], events: dict[int, str]) -> None:
    world = World(model.all_upstreams(), plans)
    route = Route(model, *(Upstream(world, index) for index in range(len(world.upstreams))))
    harness = Harness(routes=[route])
    replies: list[tuple[Plan, Reply]] = []
    waiting = sorted(plans, key=lambda plan: plan.at)
    world.plans = []
    for turn in range(TURNS):
        if turn in events:
            change(world, harness, events[turn])
        while waiting and waiting[0].at <= turn:
            plan, reply = waiting.pop(0), Reply()
            world.plans = [*world.of.values(), plan]
            known = set(world.of)
            harness.send(
                {
                    "model": "m",
                    "messages": [{"role": "user", "content": "x"}],
                    "stream": plan.streamed,
                    **({"provider": {"zdr": True}} if plan.zero else {}),
                },
                reply=reply,
            )
            assert len(set(world.of) - known) <= 1
            replies.append((plan, reply))
        for plan, reply in replies:
            if plan.leaves is not None and plan.at + plan.leaves == turn and not reply.closed:
                reply.leave()
        await asyncio.sleep(0)
    for _, reply in replies:
        if not reply.closed:
            reply.leave()
    while len(harness.rows) < len(plans):  # the others wait for what becomes of a capture
        harness.rows.first.clear()
        await asyncio.wait_for(harness.rows.first.wait(), 20)
    harness.close()
    check(world, harness, route, replies)


def check(world: World, harness: Harness, route: Route, replies: list[tuple[Plan, Reply]]) -> None:
    assert world.wrong == []
    assert not harness.way.inflight
    assert [target.in_flight for target in route.targets] == [0] * len(route.targets)
    assert len(harness.rows) == len(replies)
    assert len({row.request_id for row in harness.rows}) == len(replies)
    assert all(reply.ends <= 1 for _, reply in replies)
    for request, plan in world.of.items():
        asked = [one.upstream for one in world.sent if one.request == request]
        assert len(asked) == len(set(asked)) <= route.model.tries, asked
        final = ("answers", "cut in the answer", "hangs in the answer", "garbage", "400", "401", "500")
        for index in asked[:-1]:
            earlier = next(one for one in world.sent if (one.request, one.upstream) == (request, index))
            way, over = plan.ways[index], earlier.written and earlier.over
            assert not (over and way in final), f"{way}, and another one was asked"
            assert not (over and way == "late" and not route.model.retry_timeouts)
    by_id = {row.request_id: row for row in harness.rows}
    for request, plan in world.of.items():
        row = by_id[request]
        last = [one.upstream for one in world.sent if one.request == request][-1]
        assert row.upstream is world.upstreams[last].retention
        if row.status == 200:
            assert plan.ways[last] == "answers"
    for plan, reply in replies:
        if reply.status == 200 and reply.head:
            said = reply.headers["x-keepless-retention"].split("; tried=")[0]
            request = reply.headers["x-request-id"]
            answered = [one.upstream for one in world.sent if one.request == request][-1]
            promise = SAID[world.upstreams[answered].retention]
            assert said in ("none" + promise, "on-error" + promise), (said, plan)


upstreams = st.builds(
    UpstreamConfig,
    base_url=st.just("http://x"),
    retention=st.sampled_from(UpstreamRetention),
    region=st.sampled_from(["us", "eu", None]),
    weight=st.integers(1, 5),
)
plans = st.builds(
    Plan,
    at=st.integers(0, TURNS // 2),
    streamed=st.booleans(),
    zero=st.sampled_from([False, False, True]),
    ways=st.lists(st.sampled_from(list(WAYS)), min_size=4, max_size=4),
    waits=st.lists(st.integers(0, 4), min_size=4, max_size=4),
    leaves=st.none() | st.integers(0, TURNS // 2),
)
events = st.dictionaries(
    st.integers(0, TURNS - 1), st.sampled_from([*POLICIES, "no lease", "lease over", "lease", "lease"]), max_size=8
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(upstreams, min_size=2, max_size=4),
    st.lists(plans, min_size=1, max_size=5),
    events,
    st.integers(1, 4),
    st.booleans(),
)
def test_any_schedule(
    several: list[UpstreamConfig], requests: list[Plan], changes: dict[int, str], tries: int, retry_timeouts: bool
) -> None:
    more: dict[str, Any] = {"tries": tries, "retry_timeouts": retry_timeouts, "breaker_failures": 2}
    model = ModelConfig(id="m", engine=Engine.OPENAI, upstreams=several, **more)
    asyncio.run(run(model, requests, changes))
