"""What the connections of one server share.

Holds: `Serving` (limits, handlers, counters, the coarse clock), `Served`, what the server asks of each
connection. Leaves out: what a connection does (connection) and who moves the clock (server).
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from starlette.types import ASGIApp

from keepless.config import Limits
from keepless.errors import Problem
from keepless.gateway.leaving import Turn
from keepless.gateway.parser import Request
from keepless.gateway.reply import FastHandler
from keepless.ids import Id

__all__ = ["Gate", "OnRefused", "Served", "Serving"]

# Whose request it is (an organization). Raises the problem of one whose body is not worth waiting for.
Gate = Callable[[Request], object]
OnRefused = Callable[[Problem, Id, int], None]  # the problem, the request id told to the client, bytes received


class Served(Protocol):
    """What the server asks of a connection."""

    def check(self, now: float) -> None:
        """End what takes too long. `now` in seconds of the loop's clock."""

    def drain(self) -> None:
        """Close if nothing is in work; otherwise the answer in work is the last one."""

    def cut(self) -> None:
        """Close at once."""


class Serving:
    """What the connections of one server share."""

    def __init__(
        self,
        fast: Mapping[bytes, FastHandler],
        app: ASGIApp,
        limits: Limits,
        *,
        upload_bytes: int | None = None,
        body_limits: Mapping[bytes, int] | None = None,
        on_refused: OnRefused | None = None,
        gate: Gate | None = None,
        state: Mapping[str, object] | None = None,
    ) -> None:
        self.fast = dict(fast)
        self.app = app
        self.limits = limits
        self.upload_bytes = upload_bytes or limits.body_bytes  # for what is not a fast path
        self._body_limits = dict(body_limits or {})
        self.on_refused = on_refused
        self.gate = gate
        self.held = 0  # bytes of bodies
        self.held_limit = limits.held_bytes
        self.shares: dict[object, int] = {}
        self.state = state
        self.loop = asyncio.get_running_loop()
        self.turn = Turn(self.loop)
        self.connections: set[Served] = set()
        self.empty = asyncio.Event()
        self.draining = False
        self.now = self.loop.time()  # seconds; moved by the periodic scan, exact enough for time-outs
        self.date = b""
        self.accepted = 0
        self.requests = 0
        self.refused = 0

    def limit_of(self, path: bytes) -> int:
        """The largest body of a fast path."""
        return self._body_limits.get(path, self.limits.body_bytes)
