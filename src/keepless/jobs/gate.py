"""How fast lines of batches go to the engines, and whose turn it is.

Holds: `Gate` (one a worker process) with a `Lane` for each model; `Waiting`, what goes through. Leaves out: what a line
is (shard), interactive requests, which know nothing of this: batches have a concurrency of their own for each model.

1. Organizations take turns, one line each, whatever number of batches and lines they have; so do an organization's
   batches. Of a batch the lines of its first shard go first, so that few journals are written at once.
2. At most `most` lines of a model are under way. Each sign that its engine has enough (429, 503, it cannot be reached)
   halves that number and holds new lines back for a moment, with jitter; each answer lets it grow again by its share.
3. What a kill can cost: at most `most` lines under way, and of those that are answered but not yet durable no more
   than `most` or, where an engine is faster than that, what it answered in the last tenth of a second.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from keepless.ids import Id

__all__ = ["Gate", "Lane", "Waiting"]

_CUT_S: Final = 1.0  # many lines under way meet the same moment of an engine: one cut, not one each
_HOLD_S: Final = 0.5
_LONGEST_HOLD_S: Final = 30.0
_LATE_S: Final = 0.1
_MOST_LATE: Final = 8  # times `most`
_chance: Final = random.SystemRandom()


class Waiting(Protocol):
    """A line that waits for its turn."""

    organization_id: Id
    batch_id: Id
    shard: int
    dropped: bool  # it is not to be started any more

    def start(self) -> None:
        """Go. Afterwards `Lane.leave` is called, once."""


class _Shards:
    """Lines of one batch that wait, those of its first shard first."""

    def __init__(self) -> None:
        self._queues: Final[dict[int, deque[Waiting]]] = {}
        self._first = 0

    def __bool__(self) -> bool:
        return bool(self._queues)

    def add(self, line: Waiting) -> None:
        queue = self._queues.get(line.shard)
        if queue is None:
            queue = self._queues[line.shard] = deque()
            self._first = min(self._queues)
        queue.append(line)

    def next(self) -> Waiting | None:
        while self._queues:
            queue = self._queues[self._first]
            line = queue.popleft()
            if not queue:
                del self._queues[self._first]
                self._first = min(self._queues, default=0)
            if not line.dropped:
                return line
        return None


class _Turns:
    """Those who take turns, one line each: organizations, or the batches of one."""

    def __init__(self, whose: Callable[[Waiting], Id], below: Callable[[], "_Turns | _Shards"]) -> None:
        self._whose: Final = whose
        self._below: Final = below
        self._order: Final[deque[Id]] = deque()
        self._lines: Final[dict[Id, _Turns | _Shards]] = {}

    def __bool__(self) -> bool:
        return bool(self._order)

    def add(self, line: Waiting) -> None:
        who = self._whose(line)
        lines = self._lines.get(who)
        if lines is None:
            lines = self._lines[who] = self._below()
            self._order.append(who)
        lines.add(line)

    def next(self) -> Waiting | None:
        while self._order:
            who = self._order[0]
            lines = self._lines[who]
            line = lines.next()
            if lines:
                self._order.rotate(-1)
            else:
                del self._lines[who]
                self._order.popleft()
            if line is not None:
                return line
        return None


def _batches() -> _Turns:
    return _Turns(lambda line: line.batch_id, _Shards)


class Lane:
    """The lines of one model. On the event loop's thread only."""

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int) -> None:
        self._loop: Final = loop
        self.most: Final = most
        self.limit = float(most)
        self.running = 0
        self.unrecorded = 0  # answered, not yet durable
        self._lines: Final = _Turns(lambda line: line.organization_id, _batches)
        self._answered: Final[deque[float]] = deque()  # when the unrecorded were
        self._cut_at = float("-inf")
        self._held_until = float("-inf")
        self._in_a_row = 0  # cuts without an answer between them
        self._pumping = False

    def offer(self, lines: list[Waiting]) -> None:
        """Lines that may go from now on."""
        for line in lines:
            self._lines.add(line)
        self._pump()

    def leave(self, *, busy: bool, retry_after_s: float | None = None, answered: bool = False) -> None:
        """A line has ended its way. `busy`: its engine has enough for now. `answered`: `recorded` follows."""
        self.running -= 1
        if answered:
            self.unrecorded += 1
            self._answered.append(self._loop.time())
        if busy:
            self._cut(retry_after_s or 0.0)
        else:
            self._in_a_row = 0
            self.limit = min(float(self.most), self.limit + 1 / self.limit)
        self._pump()

    def recorded(self, answers: int = 1) -> None:
        """So many answers are durable, or will never be."""
        self.unrecorded -= answers
        for _ in range(answers):
            self._answered.popleft()  # groups are written in order, more or less
        self._pump()

    @property
    def full(self) -> bool:
        """Whether no line may begin until some of the answers are durable."""
        return self.unrecorded >= _MOST_LATE * self.most

    def _cut(self, retry_after_s: float) -> None:
        now = self._loop.time()
        if now - self._cut_at >= _CUT_S:
            self._cut_at = now
            self._in_a_row += 1
            self.limit = max(1.0, self.limit / 2)
        hold = max(retry_after_s, min(_LONGEST_HOLD_S, _HOLD_S * 2 ** min(self._in_a_row, 8)))
        until = now + hold * _chance.uniform(0.5, 1.0)
        if until > self._held_until:
            self._held_until = until
            self._loop.call_at(until, self._let_go, until)

    def _let_go(self, until: float) -> None:
        """The end of a hold. Event loops count in milliseconds and may call one too early, and nobody calls again."""
        if until == self._held_until:
            self._held_until = float("-inf")
        self._pump()

    def _pump(self) -> None:
        if self._pumping:  # a line that ended at once: the loop below goes on
            return
        self._pumping = True
        try:
            while self._room and self._loop.time() >= self._held_until:
                line = self._lines.next()
                if line is None:
                    return
                self.running += 1
                line.start()
        finally:
            self._pumping = False

    @property
    def _room(self) -> bool:
        if self.running >= int(self.limit):
            return False
        if self.unrecorded < self.most:
            return True
        return not self.full and self._loop.time() - self._answered[0] < _LATE_S


class Gate:
    """A lane for each model. `anywhere` is for lines whose model is gone: they are refused at once.

    `tuned`: the lane's name and the concurrency of a tuned model; such lanes are made when they are needed.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        concurrency: Mapping[str, int],
        tuned: Callable[[str], tuple[str, int] | None] = lambda _: None,
    ) -> None:
        self._loop: Final = loop
        self._tuned: Final = tuned
        self._lanes: Final = {model: Lane(loop, most) for model, most in concurrency.items()}
        self.anywhere: Final = Lane(loop, 1)

    def lane(self, model: str) -> Lane | None:
        """The lane of a model; None when there is no such model. Any thread."""
        lane = self._lanes.get(model)
        if lane is None and (found := self._tuned(model)) is not None:
            name, most = found
            lane = self._lanes.setdefault(name, Lane(self._loop, most))
        return lane
