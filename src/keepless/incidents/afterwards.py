"""After the answer: from the event loop, ask for a capture in a worker thread and say what became of it.

Holds: `Afterwards` (one a process), `Cases` (what it asks of abuse cases), `could_keep`, `described`. Leaves out:
the steps of a capture (capture), which failures have a reason (inference.faults).

`ask` decides under the policy that the request ran under before any thread is troubled: most failures end there.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Final, Protocol

from keepless import log
from keepless.accounts.principal import PolicyInForce
from keepless.clock import Clock, rfc3339
from keepless.content import Content
from keepless.ids import Id, trusted
from keepless.incidents.answered import Answered
from keepless.incidents.capture import Incident
from keepless.incidents.reliability import Reliability
from keepless.inference.asking import Ask
from keepless.policy.controls import RequestControls
from keepless.policy.data_class import DataClass, Feature
from keepless.policy.decide import Query, decide
from keepless.policy.decision import Discard, DiscardReason, Reason, Trigger
from keepless.usage.record import Phase
from keepless.vault.rows import Kept

__all__ = ["Afterwards", "Cases", "Conclude", "could_keep", "described"]

_AT_ONCE: Final = 16  # a store that is slow must not hold the answers of everybody who fails meanwhile

_LOGGING: Final = Feature.INFERENCE_LOGGING  # looked up once: a member of an enum costs ten times a name

Conclude = Callable[[Kept | Discard], None]


class Cases(Protocol):
    """Confirmed abuse cases."""

    def watches(self, key_id: Id) -> bool:
        """Whether a confirmed case names this key now. Neither blocks nor asks the database."""

    def consider(self, incident: Incident) -> Kept | Discard:
        """Keep the request, or say why not. Blocks. Never raises for a policy, store or database."""


class Afterwards:
    """Asks for captures. `pending` is how many are being decided or stored now."""

    def __init__(self, clock: Clock, executor: Executor, reliability: Reliability, cases: Cases | None = None) -> None:
        self._clock: Final = clock
        self._executor: Final = executor
        self._reliability: Final = reliability
        self._cases: Final = cases
        self.pending = 0

    def watches(self, key_id: Id) -> bool:
        """Whether a confirmed abuse case names this key."""
        return self._cases is not None and self._cases.watches(key_id)

    def ask(
        self,
        asked: Ask,
        policy: PolicyInForce | None,
        *,
        reason: Reason | None,
        answer: Answered | None,
        phase: Phase,
        upstream_status: int,
        conclude: Conclude,
    ) -> None:
        """Ask for a capture and have `conclude` called, now or later, on this loop with what became of it.

        `reason` None: not because it failed, but because a case names its key. `answer` None: too large to be kept.
        """
        created_at_ms = self._clock.now_ms()
        decision = decide(_query(asked, policy, reason, created_at_ms))
        if isinstance(decision, Discard):
            conclude(decision)
        elif answer is None:
            conclude(Discard(DiscardReason.TOO_LARGE))
        elif self.pending >= _AT_ONCE:
            conclude(Discard(DiscardReason.CAPPED))
        else:
            incident = Incident(
                organization_id=asked.principal.organization.id,
                project_id=asked.principal.project.id,
                key_id=asked.principal.key_id,
                model=trusted(asked.route.model.id),
                endpoint=asked.endpoint,
                request_id=asked.request_id,
                created_at_ms=created_at_ms,
                policy=policy,
                request_content=asked.received,
                answer_content=Content(answer.whole()) if answer.size else None,
                request=asked.controls,
                streamed=asked.stream,
                phase=phase,
                upstream_status=upstream_status,
            )
            self.pending += 1
            work = partial(self._consider, incident, reason)
            future = asyncio.get_running_loop().run_in_executor(self._executor, work)
            future.add_done_callback(partial(self._done, conclude, asked.request_id))

    def _consider(self, incident: Incident, reason: Reason | None) -> Kept | Discard:
        if reason is not None:
            return self._reliability.consider(incident, reason)
        return Discard(DiscardReason.NO_TRIGGER) if self._cases is None else self._cases.consider(incident)

    def _done(self, conclude: Conclude, request_id: Id, future: "asyncio.Future[Kept | Discard]") -> None:
        self.pending -= 1
        error = future.exception()
        if error is not None:
            log.failure(log.Event.CAPTURE_FAILED, error, request_id=request_id)
        conclude(future.result() if error is None else Discard(DiscardReason.STORE_FAILED))


def could_keep(policy: PolicyInForce | None, controls: RequestControls) -> bool:
    """Whether `decide` would permit the capture of a request if it failed (a test holds the two together)."""
    return (
        policy is not None and _LOGGING in policy.effective.on and not (controls.keep_nothing or controls.zero_upstream)
    )


def described(kept: Kept) -> bytes:
    """The retention header's value for an object that is kept (CONTRACT.md)."""
    expires = "never" if kept.expires_at is None else rfc3339(kept.expires_at)
    return f"class={kept.data_class}; object={kept.id}; epoch={kept.epoch}; expires={expires}".encode("ascii")


def _query(asked: Ask, policy: PolicyInForce | None, reason: Reason | None, created_at_ms: int) -> Query:
    failed = reason is not None
    return Query(
        organization_id=asked.principal.organization.id,
        project_id=asked.principal.project.id,
        data_class=DataClass.RELIABILITY_LOG if failed else DataClass.ABUSE_LOG,
        trigger=Trigger.RELIABILITY_ERROR if failed else Trigger.ABUSE_CASE,
        reason=reason or Reason.ABUSE_CASE,
        effective=None if policy is None else policy.effective,
        epoch=0 if policy is None else policy.epoch,
        created_at_ms=created_at_ms,
        request=asked.controls,
        request_id=asked.request_id,
    )
