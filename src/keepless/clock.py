"""Time: the operating system's clock, UTC, guarded (DECISIONS 15).

Holds: `Clock`, what everything asks; `SystemClock`; `GuardedClock`, which never goes back behind the
latest instant it has been told of. Instants are integers, Unix milliseconds; durations say their unit in their name.
Leaves out: persisting the latest instant seen (`keepless.app.guard` does, in the catalogue's database).
"""

import time
from typing import Final

__all__ = ["DAY_MS", "STRAYED_MS", "Clock", "GuardedClock", "SystemClock", "day_end_ms", "day_of", "rfc3339"]

DAY_MS: Final = 86_400_000
STRAYED_MS: Final = 3_600_000  # by so much a clock may be wrong before anybody is asked (DECISIONS 15)
_STEADY: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_read_clock: Final = time.clock_gettime  # looked up once: a request reads it five times


class Clock:
    """What tells the time. Two readings: wall (an instant) and monotonic (for durations and leases)."""

    def now_ms(self) -> int:
        """The present instant, Unix milliseconds, UTC."""
        raise NotImplementedError

    def monotonic(self) -> float:
        """Seconds on a clock that never jumps; its zero means nothing."""
        raise NotImplementedError

    def strayed_ms(self) -> int:
        """How far it is ahead of every instant that was believed: of a guarded clock alone more than nothing."""
        return 0


class SystemClock(Clock):
    """The operating system's clock."""

    def now_ms(self) -> int:
        """See `Clock`."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """See `Clock`. Counts the time a suspended machine slept too, or a lease would outlive its second."""
        return _read_clock(_STEADY)


class GuardedClock(Clock):
    """A clock that does not go back behind `floor_ms`, the latest instant any process of this deployment has seen.

    An operating-system clock set back must not make expired objects readable again. One that jumped ahead and was set
    right must not be followed for ever: what a process has seen of a time that nobody believes it lets go (`believe`).
    """

    def __init__(self, inner: Clock, floor_ms: int = 0) -> None:
        self._inner = inner
        self.floor_ms = floor_ms
        self._believed_ms = floor_ms  # the latest instant that was kept: none of a clock that had jumped

    def now_ms(self) -> int:
        """The later of the wall clock and the floor; raises the floor."""
        now, floor = self._inner.now_ms(), self.floor_ms
        if now <= floor:
            return floor
        self.floor_ms = now
        return now

    def monotonic(self) -> float:
        """See `Clock`."""
        return self._inner.monotonic()

    def strayed_ms(self) -> int:
        """See `Clock`. What the wall clock says now is believed here: whether it has jumped others watch."""
        return max(0, self.floor_ms - max(self._inner.now_ms(), self._believed_ms))

    def believe(self, kept_ms: int) -> None:
        """The wall clock is credible, and `kept_ms` the latest instant kept of it: no floor far beyond both."""
        self._believed_ms = kept_ms
        if self.strayed_ms() > STRAYED_MS:
            self.floor_ms = max(self._inner.now_ms(), kept_ms)


def day_of(instant_ms: int) -> int:
    """The UTC day of an instant, as days since 1970-01-01."""
    return instant_ms // DAY_MS


def day_end_ms(day: int) -> int:
    """The first instant after a UTC day."""
    return (day + 1) * DAY_MS


def rfc3339(instant_ms: int) -> str:
    """RFC 3339, whole seconds, `Z`."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(instant_ms // 1000))
