"""A shard while it runs: its lines are read ahead, sent through the gate, answered, tried again, recorded.

Holds: `ShardRun` (on the event loop of a worker), `Parts` (what all runs of a worker share), `Outcome`. Leaves out: who
may run it (driver), its rows and journals (journal), how a request goes (gateway: a line goes the way of all others).

1. Lines that no earlier attempt has recorded are read ahead, a bounded number of them, and offered to their lanes.
2. A line that is begun is a request of the batch's project under the policy in force at that moment.
3. What failed in passing is tried again, at most `_TRIES` times. An engine that says when to come again, or that cannot
   be reached, has taken nothing: that is waited for until the window ends.
4. The answer is recorded; when the last one is durable, the shard is done.
`stop` may come in between: no line is begun any more, and those under way have some seconds. `drop` ends everything at
once and keeps nothing: the policy does not allow the feature any more.
"""

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from keepless.accounts.lease import Lease
from keepless.accounts.principal import Principal
from keepless.batches.shards import Shard
from keepless.batches.values import Batch, BatchEndpoint
from keepless.content import Content
from keepless.gateway.line import Collector
from keepless.gateway.reply import Outlet
from keepless.ids import Id
from keepless.jobs.gate import Gate, Lane, Waiting
from keepless.jobs.journal import ShardJournal
from keepless.jobs.line_shapes import model_of, read_line
from keepless.jobs.lines import Found
from keepless.jobs.recorder import Recorder, Recording
from keepless.jobs.results import Record, answered
from keepless.policy.data_class import Feature

__all__ = ["LineHandler", "Outcome", "Parts", "ShardRun"]

_TRIES: Final = 5
_AHEAD_LINES: Final = 256
_AHEAD_BYTES: Final = 4 * 1024 * 1024
_BUSY: Final = frozenset({429, 503})
_PASSING: Final = frozenset({408, 429, 500, 502, 503, 504})
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 15.0
_CUT_S: Final = 10.0  # for lines under way when the input cannot be read on
_chance: Final = random.SystemRandom()


class LineHandler(Protocol):
    """An endpoint of the gateway."""

    def line(self, principal: Principal, body: bytes, outlet: Outlet) -> Id:
        """Take a line of a batch; the request's id."""


class Outcome(Enum):
    """How a run ended."""

    DONE = "done"  # every line is recorded
    STOPPED = "stopped"  # the rest is for another attempt, or for nobody


@dataclass(frozen=True, slots=True)
class Parts:
    """What all runs of a worker share. `urls` say which endpoint a line calls."""

    loop: asyncio.AbstractEventLoop
    executor: Executor
    gate: Gate
    recorder: Recorder
    lease: Lease
    handlers: Mapping[BatchEndpoint, LineHandler]
    urls: Mapping[str, BatchEndpoint]


class ShardRun:
    """One shard. `ended` is called once, on the loop."""

    def __init__(
        self,
        parts: Parts,
        *,
        batch: Batch,
        shard: Shard,
        lines: Iterator[Found],
        recorded: set[int],
        journal: ShardJournal,
        ended: Callable[[Outcome], None],
    ) -> None:
        self.parts: Final = parts
        self.batch: Final = batch
        self.shard: Final = shard
        self._lines: Final = lines  # read in a thread, one reader at a time
        self._recorded: Final = recorded
        self._ended: Final = ended
        self._recording: Final = Recording(parts.recorder, journal, on_durable=self._durable, on_lost=self.lost)
        self._unrecorded: dict[int, Lane] = {}
        self._waiting: set[_Line] = set()
        self._under_way: set[_Line] = set()
        self._loading = False
        self._all_read = False
        self._stopping = False
        self._over = False
        self._principal: tuple[int, Principal] | None = None
        self.failure: BaseException | None = None  # why it could not read on

    def begin(self) -> None:
        """Start to run."""
        self._load()

    # -- told from outside -------------------------------------------------------------------------------------------

    def stop(self, grace_s: float) -> None:
        """Begin no line any more; those under way have `grace_s` seconds, then they are cut. Idempotent."""
        if self._over or self._stopping:
            return
        self._stopping = True
        self._forget_waiting()
        self.parts.loop.call_later(grace_s, self._cut)
        self._look()

    def drop(self) -> None:
        """End at once, keep nothing. Idempotent."""
        if self._over:
            return
        self._recording.discard()
        self._forget_waiting()
        self._cut_lines()
        unrecorded, self._unrecorded = self._unrecorded, {}
        _recorded(list(unrecorded.values()))
        self._end(Outcome.STOPPED)

    def lost(self) -> None:
        """The shard is somebody else's."""
        self.drop()

    def enforce(self) -> None:
        """After a change of policy: obey it at once. Without a lease nothing is begun, but nothing is thrown away."""
        lease = self.parts.lease
        if not self._over and lease.valid and self._allowed() is None:
            self.drop()

    # -- lines -------------------------------------------------------------------------------------------------------

    def _allowed(self) -> Principal | None:
        """Who the lines are asked for now; None: nobody, for the organization or project is gone or the feature off."""
        lease, batch = self.parts.lease, self.batch
        generation = lease.generation
        if self._principal is not None and self._principal[0] == generation:
            return self._principal[1]
        organization = lease.organization(batch.organization_id)
        project = lease.project(batch.project_id)
        if organization is None or project is None or Feature.BATCH not in project.effective.on:
            return None
        principal = Principal(batch.key_id, organization, project)
        self._principal = (generation, principal)
        return principal

    def principal(self) -> Principal | None:
        """Who a line that begins now is asked for; None: it may not begin now."""
        return self._allowed() if self.parts.lease.valid and not self._recording.stuck else None

    def started(self, line: "_Line") -> None:
        """A line is under way."""
        self._waiting.discard(line)
        self._under_way.add(line)
        if not self._all_read and len(self._waiting) < _AHEAD_LINES // 2:
            self._load()

    def again(self, line: "_Line", pause_s: float) -> None:
        """A line is to be tried again after a pause."""
        self._under_way.discard(line)
        if self._stopping or self._over:
            self._look()
            return
        self._waiting.add(line)
        self.parts.loop.call_later(pause_s, line.offer)

    def done(self, line: "_Line", record: Record) -> None:
        """A line has its answer."""
        self._under_way.discard(line)
        self._unrecorded[record.number] = line.lane
        line.lane.leave(busy=False, answered=True)
        self._recording.add(record, awaited=line.lane.full)
        self._look()

    def _durable(self, group: list[Record]) -> None:
        _recorded([self._unrecorded.pop(record.number) for record in group])

    def _load(self) -> None:
        if self._loading or self._all_read or self._stopping or self._over:
            return
        self._loading = True
        future = self.parts.loop.run_in_executor(self.parts.executor, self._read_ahead)
        future.add_done_callback(self._loaded)

    def _read_ahead(self) -> list["_Line"]:
        """In a thread: the next lines that are not recorded yet."""
        found: list[_Line] = []
        size = 0
        for line in self._lines:
            if line.number in self._recorded or line.data is None:
                continue
            size += len(line.data)
            found.append(self._read(line.number, line.data))
            if len(found) >= _AHEAD_LINES or size >= _AHEAD_BYTES:
                return found
        self._all_read = True
        return found

    def _read(self, number: int, data: bytes) -> "_Line":
        line = read_line(data)
        body = bytes(line.body)
        lane = self.parts.gate.lane(model_of(body))
        handler = self.parts.handlers[self.parts.urls[line.url]]
        return _Line(
            self,
            number,
            custom_id=line.custom_id,
            body=body,
            handler=handler,
            lane=lane or self.parts.gate.anywhere,
        )

    def _loaded(self, future: "asyncio.Future[list[_Line]]") -> None:
        self._loading = False
        if self._over or future.cancelled():
            return
        error = future.exception()
        if error is not None:
            self.failure = error
            self.stop(_CUT_S)
            return
        if not self._stopping:
            lines = future.result()
            self._waiting.update(lines)
            by_lane: dict[Lane, list[Waiting]] = {}
            for line in lines:
                by_lane.setdefault(line.lane, []).append(line)
            for lane, some in by_lane.items():
                lane.offer(some)
        self._look()

    # -- the end -----------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """End when there is nothing left to do."""
        if self._over or self._under_way or self._waiting or self._loading:
            return
        if self._stopping or self._all_read:
            outcome = Outcome.DONE if self._all_read and not self._stopping else Outcome.STOPPED
            self._recording.drain(lambda: self._end(outcome))
        else:
            self._load()

    def _end(self, outcome: Outcome) -> None:
        if not self._over:
            self._over = True
            self._ended(outcome)

    def _forget_waiting(self) -> None:
        for line in self._waiting:
            line.dropped = True
        self._waiting.clear()

    def _cut(self) -> None:
        if not self._over:
            self._cut_lines()
            self._look()

    def _cut_lines(self) -> None:
        for line in tuple(self._under_way):
            line.cut()
        self._under_way.clear()


def _recorded(lanes: list[Lane]) -> None:
    """Tell each lane once how many of its answers are durable: nearly always there is one lane."""
    while lanes:
        first = lanes[0]
        others = [lane for lane in lanes if lane is not first]
        first.recorded(len(lanes) - len(others))
        lanes = others


class _Line(Waiting):
    """One line of the input."""

    __slots__ = (
        "_answer",
        "_body",
        "_collector",
        "_custom_id",
        "_handler",
        "_request_id",
        "_run",
        "_tries",
        "batch_id",
        "dropped",
        "lane",
        "number",
        "organization_id",
        "shard",
    )  # fmt: skip

    def __init__(
        self, run: ShardRun, number: int, *, custom_id: str, body: bytes, handler: LineHandler, lane: Lane
    ) -> None:
        self._run: Final = run
        self.number: Final = number
        self._custom_id: Final = custom_id
        self._body: Final = body
        self._handler: Final = handler
        self.lane: Final = lane
        self.organization_id = run.batch.organization_id
        self.batch_id = run.batch.id
        self.shard = run.shard.number
        self.dropped = False
        self._tries = 0
        self._collector: Collector | None = None
        self._request_id: Id | None = None
        self._answer: tuple[int, Content] | None = None

    def offer(self) -> None:
        """Wait for a turn (again)."""
        if not self.dropped:
            self.lane.offer([self])

    def start(self) -> None:
        """See `Waiting`."""
        run = self._run
        principal = run.principal()
        run.started(self)
        if principal is None:
            self.lane.leave(busy=False)
            run.again(self, _FIRST_PAUSE_S)
            return
        self._tries += 1
        self._request_id = self._answer = None
        self._collector = Collector(self._answered)
        self._request_id = self._handler.line(principal, self._body, self._collector)
        self._settle()  # it may have been refused at once

    def cut(self) -> None:
        """Stop the engine; the answer is not wanted any more."""
        collector, self._collector = self._collector, None
        if collector is not None:
            collector.cancel()
            self.lane.leave(busy=False)

    def _answered(self, status: int, body: Content) -> None:
        self._answer = (status, body)
        self._settle()

    def _settle(self) -> None:
        if self._collector is None or self._request_id is None or self._answer is None:
            return  # cut meanwhile, or not answered yet
        request_id, (status, body) = self._request_id, self._answer
        retry_after_s = self._collector.retry_after_s
        self._collector = None
        run = self._run
        if retry_after_s is not None and status in _PASSING:
            self._tries -= 1  # it was not taken; the batch's window is what ends that
        if status in _PASSING and self._tries < _TRIES:
            pause = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**self._tries) * _chance.uniform(0.5, 1.0)
            run.again(self, pause)
            self.lane.leave(busy=status in _BUSY or status == 502, retry_after_s=retry_after_s)
        else:
            run.done(self, Record(self.number, status == 200, answered(self._custom_id, request_id, status, body)))
