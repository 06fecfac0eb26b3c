"""How one upstream has been doing, as this process saw it: the circuit breaker and what health checks said.

Holds: `Health`, a state machine that is told what happened and when (seconds of a monotonic clock). Leaves out: asking
(checks), choosing (router), what a failure is (faults).

Two kinds of evidence, kept apart because they bind differently:
- *Requests*, which customers make. After `failures` in a row the circuit opens for a pause; when that is over one
  request is let through as a probe; its failure opens the circuit again for twice as long, up to a minute. 429 with a
  `retry-after` makes an upstream rest for that long. All this only steers: it never refuses a request, or a customer
  whose requests break engines could stop everybody else's.
- *Checks*, which we make (`health_path`). Two misses in a row mean down, one success up again, with one probe at once.
"""

import random
from collections.abc import Callable
from enum import IntEnum
from typing import Final

__all__ = ["Health", "Standing"]

_LONGEST_S: Final = 60.0
_MISSES: Final = 2
_DICE: Final = random.SystemRandom()


class Standing(IntEnum):
    """Whom to ask first; the lower the better."""

    WELL = 0
    AVOIDED = 1  # its circuit is open, its probe is under way, or it asked for a rest
    DOWN = 2  # its own health check fails


class Health:
    """See the module. `spread` gives a factor for each pause, so that processes do not probe in step."""

    __slots__ = (
        "_failed", "_failures", "_first_pause_s", "_misses", "_open", "_pause_s", "_probing", "_spread", "down",
        "until",
    )  # fmt: skip

    def __init__(
        self, failures: int, pause_s: float, spread: Callable[[], float] = lambda: _DICE.uniform(0.8, 1.2)
    ) -> None:
        self._failures: Final = failures
        self._first_pause_s: Final = pause_s
        self._spread: Final = spread
        self._pause_s = pause_s
        self._failed = 0  # in a row
        self._misses = 0
        self._open = False
        self._probing = False
        self.down = False
        self.until = 0.0  # avoided until then

    def standing(self, now: float) -> Standing:
        """Whether to ask it now."""
        if self.down:
            return Standing.DOWN
        return Standing.AVOIDED if self._probing or now < self.until else Standing.WELL

    @property
    def open(self) -> bool:
        """Whether its circuit is open (or a probe is about to close it)."""
        return self._open

    def asked(self) -> None:
        """A request is sent to it: with an open circuit, that is the probe."""
        if self._open:
            self._probing = True

    def succeeded(self) -> None:
        """A request was answered to its end. One that was sent before the circuit opened proves nothing."""
        if not self._open or self._probing:
            self._failed = 0
            self._pause_s = self._first_pause_s
            self._open = self._probing = False
            self.until = 0.0

    def failed(self, now: float) -> None:
        """A request failed through it. What was under way when the circuit opened does not lengthen the pause."""
        self._failed += 1
        if self._probing or (not self._open and self._failed >= self._failures):
            self._open, self._probing = True, False
            self.until = now + self._pause_s * self._spread()
            self._pause_s = min(2 * self._pause_s, _LONGEST_S)

    def let_go(self) -> None:
        """A request ended without a lesson: the client left, or it was never sent."""
        self._probing = False

    def rest(self, now: float, seconds: float) -> None:
        """It is at its limits and said for how long."""
        self.until = max(self.until, now + min(seconds, _LONGEST_S))

    def checked(self, now: float, *, up: bool) -> None:
        """What a health check said."""
        if not up:
            self._misses += 1
            self.down = self.down or self._misses >= _MISSES
            return
        self._misses = 0
        if self.down:
            self.down = False
            self.until = min(self.until, now)  # it was started again: the next request may find out
