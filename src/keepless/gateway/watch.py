"""Telling the detector of abuse what happens at the rate limits: which key was refused or admitted, from which origin.

Holds: `Watch`. Leaves out: what is a signal (incidents.abuse), what becomes of a suspicion (incidents.cases). Metadata
only; an address becomes a token before it is kept, and tokens are forgotten by a timer, busy or not (DECISIONS 4).
"""

import asyncio
from typing import Final

from keepless.accounts.principal import Principal
from keepless.gateway.parser import Request
from keepless.incidents.abuse import Detector
from keepless.incidents.origin import Origins

__all__ = ["FORGET_S", "Watch"]

FORGET_S: Final = 300.0


class Watch:
    """What the request path tells. All calls are on the event loop's thread."""

    def __init__(self, detector: Detector, origins: Origins) -> None:
        self._detector: Final = detector
        self._origins: Final = origins
        self._timer: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Forget regularly what is too old, from now on."""
        self._timer = loop.call_later(FORGET_S, self._forget, loop)

    def stop(self) -> None:
        """Stop forgetting."""
        if self._timer is not None:
            self._timer.cancel()

    def refused(self, principal: Principal, request: Request) -> None:
        """A request was answered 429."""
        # Some proxies add a field of their own behind the client's instead of adding to it: all of them are one list.
        named = [value for name, value in request.headers if name == b"x-forwarded-for"]
        origin = self._origins.token_of(request.peer, b",".join(named) if named else None)
        self._detector.refused(principal.organization.id, principal.key_id, origin)

    def admitted(self, principal: Principal) -> None:
        """A request was admitted."""
        self._detector.admitted(principal.organization.id, principal.key_id)

    def _forget(self, loop: asyncio.AbstractEventLoop) -> None:
        self._detector.forget()
        self.start(loop)
