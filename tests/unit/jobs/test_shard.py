"""A shard while it runs, over the whole request path in memory: tried again, stopped, dropped, each line once."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest

from keepless.accounts.lease import Lease
from keepless.batches.shards import Shard, ShardPlan
from keepless.batches.values import Batch, BatchEndpoint, BatchState
from keepless.config import Endpoint
from keepless.content import Content
from keepless.errors import Code
from keepless.ids import Prefix, mint
from keepless.inference.backend import FailureKind
from keepless.jobs import shard as module
from keepless.jobs.gate import Gate, Lane
from keepless.jobs.journal import ShardJournal
from keepless.jobs.lines import split
from keepless.jobs.recorder import Recorder
from keepless.jobs.results import Record
from keepless.jobs.shard import Outcome, Parts, ShardRun
from keepless.jobs.validate import urls_of
from keepless.policy.controls import Controls
from keepless.policy.data_class import Feature
from tests.support.way import API_KEY, ORGANIZATION, PROJECT, Harness, answer, end, fail, head

CHAT = BatchEndpoint.CHAT
LINES = 20


def input_of(lines: int, model: str = "zero") -> bytes:
    def line(number: int) -> str:
        body = {"model": model, "messages": [{"role": "user", "content": f"question {number}"}]}
        return json.dumps({"custom_id": f"id-{number}", "method": "POST", "url": CHAT.value, "body": body})

    return "\n".join(line(number) for number in range(1, lines + 1)).encode()


def batch() -> Batch:
    none = dict.fromkeys(
        ("output_file_id", "error_file_id", "metadata_object_id", "output_life_ms", "cancel_reason", "in_progress_at",
         "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at")
    )  # fmt: skip
    return Batch(
        id=mint(Prefix.BATCH), organization_id=ORGANIZATION, project_id=PROJECT, key_id=API_KEY, endpoint=CHAT,
        state=BatchState.IN_PROGRESS, input_file_id=mint(Prefix.FILE), window_ms=1, created_at=0, expires_at=1,
        line_errors=0, **none,
    )  # fmt: skip


def together(groups: Sequence[tuple[ShardJournal, Sequence[Record]]]) -> list[Any]:
    outcomes: list[Any] = []
    for journal, group in groups:
        try:
            outcomes.append(journal.write(group))
        except OSError as error:
            outcomes.append(error)
    return outcomes


class Bench:
    """One run over a fake engine; what it records is in `records`."""

    def __init__(self, harness: Harness, *, lines: int = LINES, model: str = "zero", most: int = 4, recorded: Any = ()):
        self.harness = harness
        self.records: list[Record] = []
        self.mine = True
        self.broken = False
        self.outcomes: list[Outcome] = []
        self.over = asyncio.Event()
        self.executor = ThreadPoolExecutor(2)
        loop = asyncio.get_running_loop()
        self.gate = Gate(loop, {"zero": most, "logs": most})
        parts = Parts(
            loop,
            self.executor,
            self.gate,
            Recorder(loop, self.executor, together),
            cast("Lease", harness.lease),
            {CHAT: harness.handler},
            urls_of(CHAT),
        )
        data = input_of(lines, model)
        whole = batch()
        self.run = ShardRun(
            parts,
            batch=whole,
            shard=Shard(whole.id, 0, ShardPlan(1, lines, 0, len(data)), 1, False),
            lines=split([Content(data)], 10_000),
            recorded=set(recorded),
            journal=cast("ShardJournal", self),
            ended=self._ended,
        )

    def write(self, group: list[Record]) -> bool:
        if self.broken:
            raise OSError
        if self.mine:
            self.records += group
        return self.mine

    def _ended(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.over.set()

    async def wait(self) -> Outcome:
        await asyncio.wait_for(self.over.wait(), 30)
        return self.outcomes[0]

    @property
    def told(self) -> list[dict[str, Any]]:
        return [json.loads(record.line) for record in self.records]


Act = Callable[[Bench], Awaitable[None]]


def bench(*script: Any, act: Act | None = None, before: Any = None, **how: Any) -> Bench:
    """Run a shard to its end; `act` is what happens meanwhile."""

    async def main() -> Bench:
        harness = Harness(*script)
        if before is not None:
            before(harness)
        made = Bench(harness, **how)
        made.run.begin()
        if act is not None:
            await act(made)
        await made.wait()
        made.executor.shutdown()
        harness.close()
        return made

    return asyncio.run(main())


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr("keepless.jobs.gate._HOLD_S", 0.001)
    monkeypatch.setattr("keepless.jobs.gate._CUT_S", 0.001)


async def until(condition: Callable[[], object]) -> None:
    for _ in range(10_000):
        if condition():
            return
        await asyncio.sleep(0.002)
    raise AssertionError


def test_every_line_is_asked_and_recorded_once_and_accounted_to_the_batch() -> None:
    made = bench(*answer(), lines=600)
    assert made.outcomes == [Outcome.DONE]
    assert sorted(record.number for record in made.records) == list(range(1, 601))
    assert all(record.succeeded for record in made.records)
    assert {told["custom_id"] for told in made.told} == {f"id-{number}" for number in range(1, 601)}
    rows = made.harness.rows
    assert len(rows) == 600
    assert all((row.batch, row.endpoint, row.key_id) == (True, Endpoint.CHAT, API_KEY) for row in rows)
    assert {told["response"]["request_id"] for told in made.told} == {row.request_id for row in rows}


def test_lines_of_earlier_attempts_are_not_asked_again() -> None:
    made = bench(*answer(), recorded=range(1, LINES - 1))
    assert sorted(record.number for record in made.records) == [LINES - 1, LINES]
    assert len(made.harness.backend.calls) == 2
    assert bench(*answer(), recorded=range(1, LINES + 1)).outcomes == [Outcome.DONE]


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ([fail(FailureKind.CUT)], Code.UPSTREAM_CUT),
        ([fail(FailureKind.TIMEOUT_IDLE)], Code.UPSTREAM_TIMEOUT),
        ([head(500), end()], Code.UPSTREAM_ERROR),
        ([head(503), end()], Code.UPSTREAM_ERROR),
        ([fail(FailureKind.CRASHED)], Code.ENGINE_FAILED),  # a line that an engine dies of must not kill it for days
        ([fail(FailureKind.MISSING)], Code.ENGINE_UNAVAILABLE),
    ],
)
def test_what_keeps_failing_is_tried_five_times_and_goes_into_the_error_file(script: list[Any], code: Code) -> None:
    made = bench(*script, lines=3)
    assert made.outcomes == [Outcome.DONE]
    assert [record.succeeded for record in made.records] == [False] * 3
    assert {told["response"]["body"]["error"]["code"] for told in made.told} == {code}
    assert len(made.harness.backend.calls) == 15
    assert not made.harness.reliability.incidents


def test_a_refusal_of_the_engine_is_not_tried_again() -> None:
    made = bench(*answer(b'{"error":{"message":"no"}}', 400), lines=3)
    assert [told["response"]["status_code"] for told in made.told] == [400] * 3
    assert len(made.harness.backend.calls) == 3


def test_what_is_refused_before_any_engine_is_recorded_as_a_line_too() -> None:
    made = bench(*answer(), lines=3, model="gone")
    assert [told["response"]["body"]["error"]["code"] for told in made.told] == ["model_not_found"] * 3
    assert not made.harness.backend.calls


@pytest.mark.parametrize(
    "script",
    [
        [fail(FailureKind.BUSY)],
        [fail(FailureKind.UNREACHABLE)],
        [head(429), end()],
        [head(503, retry_after_s=9), end()],
    ],
    ids=["busy", "unreachable", "429", "503 with retry-after"],
)
def test_an_engine_at_its_limits_is_waited_for_however_long(script: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    cut = Lane._cut
    monkeypatch.setattr(Lane, "_cut", lambda lane, _: cut(lane, 0.0))  # no test has the seconds that an engine asks for
    busy = [40]

    def before(harness: Harness) -> None:
        start = harness.backend.start

        def sometimes(call: Any, sink: Any) -> Any:
            busy[0] -= 1
            harness.backend.script = script if busy[0] >= 0 else answer()
            return start(call, sink)

        harness.backend.start = sometimes

    made = bench(before=before, lines=3, most=1)
    assert [record.succeeded for record in made.records] == [True] * 3


def test_stopping_begins_nothing_more_and_records_what_ends_in_time() -> None:
    async def act(made: Bench) -> None:
        await until(lambda: len(made.harness.backend.calls) == 4)
        made.run.stop(20)
        for exchange in range(4):
            assert not made.harness.backend.exchanges[exchange].cancelled
        for sink in sinks:
            for step in answer():
                step(sink)

    sinks: list[Any] = []

    def before(harness: Harness) -> None:
        start = harness.backend.start

        def keep(call: Any, sink: Any) -> Any:
            sinks.append(sink)
            return start(call, sink)

        harness.backend.start = keep

    made = bench(act=act, before=before)
    assert made.outcomes == [Outcome.STOPPED]
    assert len(made.records) == len(made.harness.backend.calls) == 4


def test_what_does_not_end_in_time_is_cut_and_not_recorded() -> None:
    async def act(made: Bench) -> None:
        await until(lambda: len(made.harness.backend.calls) == 4)
        made.run.stop(0.01)

    made = bench(act=act)
    assert (made.outcomes, made.records) == ([Outcome.STOPPED], [])
    assert all(exchange.cancelled for exchange in made.harness.backend.exchanges)
    assert Counter(row.code for row in made.harness.rows) == {Code.CLIENT_CLOSED: 4}


def test_a_shard_that_is_somebody_elses_ends_at_once() -> None:
    def before(harness: Harness) -> None:
        harness.backend.script = answer()

    async def act(made: Bench) -> None:
        made.mine = False

    made = bench(before=before, act=act, lines=2000)
    assert (made.outcomes, made.records) == ([Outcome.STOPPED], [])
    assert len(made.harness.backend.calls) < 2000


@pytest.mark.parametrize(
    "controls", [Controls(off=frozenset({Feature.BATCH})), Controls(zero_data_retention=True)], ids=["off", "zdr"]
)
def test_a_feature_that_is_turned_off_ends_it_at_once_and_nothing_more_is_recorded(controls: Controls) -> None:
    async def act(made: Bench) -> None:
        await until(lambda: len(made.harness.backend.calls) == 4)
        made.harness.lease.set(controls)
        made.run.enforce()

    made = bench(act=act)
    assert (made.outcomes, made.records) == ([Outcome.STOPPED], [])
    assert all(exchange.cancelled for exchange in made.harness.backend.exchanges)


def test_without_a_lease_nothing_is_begun_and_nothing_is_thrown_away() -> None:
    calls: list[int] = []

    async def act(made: Bench) -> None:
        made.harness.lease.valid = False
        made.run.enforce()
        await asyncio.sleep(0.05)
        calls.append(len(made.harness.backend.calls))
        made.harness.lease.valid = True

    made = bench(*answer(), act=act)
    assert made.outcomes == [Outcome.DONE]
    assert calls == [0]


def test_while_nothing_can_be_recorded_nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keepless.jobs.recorder._AGAIN_S", 0.01)

    async def act(made: Bench) -> None:
        made.broken = True
        await until(lambda: made.run._recording.stuck)
        before = len(made.harness.backend.calls)
        await asyncio.sleep(0.05)
        assert len(made.harness.backend.calls) == before
        made.broken = False

    made = bench(*answer(), act=act, lines=300, most=1)
    assert made.outcomes == [Outcome.DONE]
    assert sorted(record.number for record in made.records) == list(range(1, 301))


def test_an_input_that_cannot_be_read_on_stops_it_and_says_why() -> None:
    def broken() -> Iterator[Any]:
        yield from split([Content(input_of(3))], 10_000)
        raise OSError

    async def main() -> Bench:
        harness = Harness(*answer())
        made = Bench(harness, lines=3)
        made.run._lines = broken()
        made.run.begin()
        await made.wait()
        made.executor.shutdown()
        harness.close()
        return made

    made = asyncio.run(main())
    assert made.outcomes == [Outcome.STOPPED]
    assert isinstance(made.run.failure, OSError)


def test_what_an_engine_asks_to_wait_is_what_its_lane_waits() -> None:
    left: list[float | None] = []

    async def act(made: Bench) -> None:
        lane = made.gate.lane("zero")
        assert lane is not None
        leave = lane.leave

        def seen(*, busy: bool, retry_after_s: float | None = None, answered: bool = False) -> None:
            left.append(retry_after_s)
            leave(busy=busy, answered=answered)

        lane.leave = seen
        await until(lambda: 7.0 in left)
        made.harness.backend.script = answer()

    made = bench(head(429, retry_after_s=7), end(), act=act, lines=1)
    assert made.outcomes == [Outcome.DONE]
    assert left[-1] is None
