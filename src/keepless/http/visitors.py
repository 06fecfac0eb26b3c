"""How often one address may try to sign in: counted in memory, by a token that means nothing outside this process.

Holds: `Visitors`. Leaves out: tries at one account (accounts.sessions), which hold for all processes together. An
address is personal data (DECISIONS 4): what is counted is its HMAC under a random key in memory, for a quarter of an
hour; nothing of it is stored or logged. With N serving processes an address has up to N times as many tries.
"""

import threading
from typing import Final

from starlette.requests import Request

from keepless.clock import Clock
from keepless.governance.sign_in import too_many_tries
from keepless.incidents.origin import Origins

__all__ = ["Visitors"]

_MOST: Final = 60
_WINDOW_S: Final = 900.0
_REMEMBERED: Final = 20_000


class Visitors:
    """Counts tries by address; thread-safe."""

    def __init__(self, origins: Origins, clock: Clock) -> None:
        self._origins: Final = origins
        self._clock: Final = clock
        self._lock: Final = threading.Lock()
        self._tries: dict[bytes, int] = {}
        self._began = clock.monotonic()

    def count(self, request: Request) -> None:
        """One more try from where this request comes from. Raises `Problem` 429 when there were too many."""
        peer = request.client.host if request.client is not None else ""
        forwarded = request.headers.get("x-forwarded-for")
        token = self._origins.visitor_of(peer, None if forwarded is None else forwarded.encode("latin-1"))
        with self._lock:
            now = self._clock.monotonic()
            if now - self._began >= _WINDOW_S:
                self._tries, self._began = {}, now
            if token not in self._tries and len(self._tries) >= _REMEMBERED:
                raise too_many_tries()  # a flood from everywhere; who has a link or a provider is not held up by it
            self._tries[token] = self._tries.get(token, 0) + 1
            if self._tries[token] > _MOST:
                raise too_many_tries()
