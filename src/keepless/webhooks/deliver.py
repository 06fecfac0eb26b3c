"""The deliverer: the loop of a job worker that empties the outbox.

Holds: `Deliverer`. Leaves out: which rows (outbox), one attempt (send). It runs on the worker's event loop; what blocks
(database, keyring) runs in threads. At most `_AT_ONCE` connections are open at the same time.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Final

from keepless import log
from keepless.clock import Clock
from keepless.db import Database
from keepless.log import Event
from keepless.outbound.pinned import OutboundError
from keepless.outbound.urls import UrlError, target_of
from keepless.webhooks.events import payload
from keepless.webhooks.outbox import Claim, Outbox
from keepless.webhooks.send import Sender
from keepless.webhooks.signature import Secrets, headers_of

__all__ = ["Deliverer"]

_AT_ONCE: Final = 16
_LOOK_S: Final = 1.0


class Deliverer:
    """`chance` (0..1) spreads the attempts of many endpoints."""

    def __init__(
        self, db: Database, clock: Clock, secrets: Secrets, sender: Sender, chance: Callable[[], float] | None = None
    ) -> None:
        self._outbox: Final = Outbox(db, clock)
        self._clock: Final = clock
        self._secrets: Final = secrets
        self._sender: Final = sender
        self._chance: Final = chance or random.SystemRandom().random

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver what is due until told to stop; nothing ends the loop before."""
        while not stop.is_set():
            done = 0
            try:
                done = await self.deliver_due()
            except Exception as error:
                log.failure(Event.WEBHOOK_FAILED, error)
            if not done:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _LOOK_S)

    async def deliver_due(self) -> int:
        """Try what is due now, once; how many were tried."""
        claims = await asyncio.to_thread(self._outbox.claim, _AT_ONCE)
        await asyncio.gather(*map(self._attempt, claims))
        return len(claims)

    async def _attempt(self, claim: Claim) -> None:
        try:
            status = await self._post(claim)
        except (OutboundError, UrlError):
            status = 0
        except Exception as error:  # a fault of ours: the receiver is told later
            log.failure(Event.WEBHOOK_FAILED, error, endpoint=claim.endpoint_id)
            status = 0
        if 200 <= status < 300:
            await asyncio.to_thread(self._outbox.delivered, claim)
        else:
            await asyncio.to_thread(self._outbox.failed, claim, self._chance())

    async def _post(self, claim: Claim) -> int:
        target = target_of(claim.url, allow_private=self._sender.allow_private)
        body = payload(claim.event_id, claim.event_type, claim.subject_id, claim.created_at)
        secrets = await asyncio.to_thread(self._secrets_of, claim)
        headers = headers_of(secrets, claim.event_id, self._clock.now_ms(), body)
        return await self._sender.post(target, headers, body)

    def _secrets_of(self, claim: Claim) -> list[bytes]:
        secrets = [self._secrets.checked(claim.endpoint_id, claim.salt, claim.hint)]
        if claim.old_salt is not None and claim.old_until is not None and self._clock.now_ms() < claim.old_until:
            secrets.append(self._secrets.secret(claim.endpoint_id, claim.old_salt))
        return secrets
