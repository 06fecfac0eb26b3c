"""How fast lines of batches go to the engines, and whose turn it is.

Holds: `Gate` (one a worker process) with a `Lane` for each model; `Waiting`, what goes through. Leaves out: what a line
is (shard), interactive requests, which know nothing of this: batches have a concurrency of their own for each model.

1. Organizations take turns, one line each, whatever number of batches and lines they have.
2. At most `most` lines of a model are under way. Each sign that its engine has enough (429, 503, it cannot be reached)
   halves that number and holds new lines back for a moment, with jitter; each answer lets it grow again by its share.
3. Lines under way and lines answered but not yet durable are together at most twice `most`: what a kill can cost.
"""

import asyncio
import random
from collections import deque
from collections.abc import Mapping
from typing import Final, Protocol

from keepless.ids import Id

__all__ = ["Gate", "Lane", "Waiting"]

_CUT_S: Final = 1.0  # many lines under way meet the same moment of an engine: one cut, not one each
_HOLD_S: Final = 0.5
_LONGEST_HOLD_S: Final = 30.0
_chance: Final = random.SystemRandom()


class Waiting(Protocol):
    """A line that waits for its turn."""

    organization_id: Id
    dropped: bool  # it is not to be started any more

    def start(self) -> None:
        """Go. Afterwards `Lane.leave` is called, once."""


class Lane:
    """The lines of one model. On the event loop's thread only."""

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int) -> None:
        self._loop: Final = loop
        self.most: Final = most
        self.limit = float(most)
        self.running = 0
        self.unrecorded = 0  # answered, not yet durable
        self._turns: deque[Id] = deque()  # organizations that have lines here
        self._lines: dict[Id, deque[Waiting]] = {}
        self._cut_at = float("-inf")
        self._held_until = float("-inf")
        self._in_a_row = 0  # cuts without an answer between them
        self._pumping = False

    def offer(self, lines: list[Waiting]) -> None:
        """Lines that may go from now on."""
        for line in lines:
            queue = self._lines.get(line.organization_id)
            if queue is None:
                queue = self._lines[line.organization_id] = deque()
                self._turns.append(line.organization_id)
            queue.append(line)
        self._pump()

    def leave(self, *, busy: bool, retry_after_s: float | None = None, answered: bool = False) -> None:
        """A line has ended its way. `busy`: its engine has enough for now. `answered`: `recorded` follows."""
        self.running -= 1
        self.unrecorded += answered
        if busy:
            self._cut(retry_after_s or 0.0)
        else:
            self._in_a_row = 0
            self.limit = min(float(self.most), self.limit + 1 / self.limit)
        self._pump()

    def recorded(self) -> None:
        """An answer is durable, or will never be."""
        self.unrecorded -= 1
        self._pump()

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
                line = self._next()
                if line is None:
                    return
                self.running += 1
                line.start()
        finally:
            self._pumping = False

    @property
    def _room(self) -> bool:
        return self.running < int(self.limit) and self.running + self.unrecorded < 2 * self.most

    def _next(self) -> Waiting | None:
        while self._turns:
            organization_id = self._turns[0]
            queue = self._lines[organization_id]
            line = None
            while queue and line is None:
                line = queue.popleft()
                if line.dropped:
                    line = None
            if queue:
                self._turns.rotate(-1)
            else:
                del self._lines[organization_id]
                self._turns.popleft()
            if line is not None:
                return line
        return None


class Gate:
    """A lane for each model. `anywhere` is for lines whose model is gone: they are refused at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop, concurrency: Mapping[str, int]) -> None:
        self._lanes: Final = {model: Lane(loop, most) for model, most in concurrency.items()}
        self.anywhere: Final = Lane(loop, 1)

    def lane(self, model: str) -> Lane | None:
        """The lane of a model; None when there is no such model."""
        return self._lanes.get(model)
