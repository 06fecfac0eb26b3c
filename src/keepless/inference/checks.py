"""Active health checks: upstreams with a `health_path` are asked regularly, each process for itself.

Holds: `HealthChecks`. Leaves out: what follows from an answer (health), the connection (upstream, which has one of its
own for checks). No content is sent; of the answer only the status counts (2xx), and it has to come within 5 s.

The first check comes after a random part of the period, each further one after 0.8 to 1.2 periods, so that processes
and upstreams do not fall into step.
"""

import asyncio
import random
import time
from collections.abc import Iterable
from typing import Final

from keepless.inference.backend import Exchange, Failure
from keepless.inference.target import Target
from keepless.inference.upstream import UpstreamBackend

__all__ = ["HealthChecks"]

_PATIENCE_S: Final = 5.0
_DICE: Final = random.SystemRandom()


class HealthChecks:
    """The checks of one process. Use from its event loop."""

    def __init__(self, targets: Iterable[Target]) -> None:
        self._checks: Final = [
            _Check(target, target.backend)
            for target in targets
            if isinstance(target.backend, UpstreamBackend) and target.upstream and target.upstream.health_path
        ]

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Check from now on."""
        for check in self._checks:
            check.start(loop)

    def stop(self) -> None:
        """Check no more."""
        for check in self._checks:
            check.stop()


class _Check:
    """One upstream; the sink of its answers."""

    def __init__(self, target: Target, backend: UpstreamBackend) -> None:
        self._target: Final = target
        self._backend: Final = backend
        self._period_s: Final = 10.0 if target.upstream is None else target.upstream.health_seconds
        self._loop: asyncio.AbstractEventLoop | None = None
        self._next: asyncio.TimerHandle | None = None
        self._exchange: Exchange | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._next = loop.call_later(_DICE.uniform(0, self._period_s), self._ask)

    def stop(self) -> None:
        self._loop = None
        if self._next is not None:
            self._next.cancel()
        if self._exchange is not None:
            self._exchange.cancel()

    def on_head(self, status: int, content_type: bytes, retry_after_s: int | None) -> None:
        """See `Sink`."""
        self._found(up=200 <= status < 300)

    def on_data(self, data: bytes) -> None:
        """See `Sink`; what it says does not matter."""

    def on_end(self) -> None:
        """See `Sink`; its head has told."""

    def on_failure(self, failure: Failure) -> None:
        """See `Sink`."""
        self._found(up=False)

    def _ask(self) -> None:
        if self._loop is not None:
            self._exchange = self._backend.check(self)
            self._next = self._loop.call_later(min(_PATIENCE_S, self._period_s), self._give_up)

    def _give_up(self) -> None:
        self._found(up=False)

    def _found(self, *, up: bool) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is None or self._loop is None:
            return
        exchange.cancel()
        self._target.health.checked(time.monotonic(), up=up)
        if self._next is not None:
            self._next.cancel()
        self._next = self._loop.call_later(self._period_s * _DICE.uniform(0.8, 1.2), self._ask)
