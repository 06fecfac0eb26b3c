"""Capturing one request: the steps that reliability incidents and abuse cases share.

Holds: `Incident` (what happened, with the sealed content), `Capture` and the Protocols of what it needs. Leaves
out: what asks for a capture (reliability, abuse), the decision itself (policy), keeping (vault).

`keep`: 1 decide under the policy that the request ran under -> 2 take a place under the cap (one transaction; a
crash after it loses a place, never exceeds the cap) -> 3 pack -> 4 `vault.put`, whose transaction compares the
epoch (commit point) -> stale: read the policy freshly and decide again, at most `ATTEMPTS` times -> else give the
place back. Everything that fails on the way fails closed: a `Discard` with its reason, and inference goes on.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

import sqlalchemy as sa

from keepless.accounts.principal import PolicyInForce
from keepless.content import Content
from keepless.errors import KeeplessError
from keepless.ids import Id
from keepless.incidents.container import HeaderValue, pack
from keepless.log import Event, emit, failure
from keepless.policy.controls import NO_REQUEST, RequestControls
from keepless.policy.data_class import DataClass
from keepless.policy.decide import Query, decide
from keepless.policy.decision import Discard, DiscardReason, Reason, Retain, Trigger
from keepless.usage.record import Endpoint, Phase
from keepless.vault.errors import PutRefusedError, StaleEpochError, StoreFailedError
from keepless.vault.rows import Kept

__all__ = ["ATTEMPTS", "Cap", "Capture", "Incident", "PolicyReader", "Vault"]

ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class Incident:
    """One request that something may be kept of. `policy` is what it ran under; None = it could not be read.

    `request_content` is the body as received, `answer_content` what was answered so far. The clock was read once, for
    the birth and the end of what is kept (`created_at_ms`, Unix ms). No header's value is taken along.
    """

    organization_id: Id
    project_id: Id
    key_id: Id
    model: Id
    endpoint: Endpoint
    request_id: Id
    created_at_ms: int
    policy: PolicyInForce | None
    request_content: Content
    answer_content: Content | None = None
    request: RequestControls = NO_REQUEST
    streamed: bool = False
    phase: Phase = Phase.ANSWER
    upstream_status: int = 0  # 0 = none came

    def facts(self) -> dict[str, HeaderValue]:
        """What the container says about the request besides its bytes."""
        return {
            "organization_id": self.organization_id,
            "project_id": self.project_id,
            "key_id": self.key_id,
            "model": self.model,
            "endpoint": self.endpoint,
            "request_id": self.request_id,
            "created_at_ms": self.created_at_ms,
            "streamed": self.streamed,
            "phase": self.phase,
            "upstream_status": self.upstream_status,
        }


class Vault(Protocol):
    """The part of the door that a capture needs."""

    def put(self, content: Content, permit: Retain) -> Kept:
        """Keep an object. Raises `PutRefusedError`; `StaleEpochError` when policy changed since the permit."""


class Cap(Protocol):
    """A bound on how much is captured, held across processes."""

    def take(self) -> bool:
        """Take a place; False when there is none (counted)."""

    def give_back(self) -> None:
        """The place was not used."""


PolicyReader = Callable[[Id, Id], PolicyInForce | None]  # organization, project -> what is in force now


class Capture:
    """Keeps one request when policy permits it. Blocking: call it from a worker thread."""

    def __init__(self, vault: Vault, policy_now: PolicyReader, *, max_bytes: int) -> None:
        self._vault: Final = vault
        self._policy_now: Final = policy_now
        self._max_bytes: Final = max_bytes

    def keep(
        self, incident: Incident, *, data_class: DataClass, trigger: Trigger, reason: Reason, cap: Cap
    ) -> Kept | Discard:
        """Keep a request under its policy, or say why not. Never raises for a policy, store or database."""
        answer = incident.answer_content
        size = incident.request_content.size + (0 if answer is None else answer.size)
        query = Query(
            organization_id=incident.organization_id,
            project_id=incident.project_id,
            data_class=data_class,
            trigger=trigger,
            reason=reason,
            effective=None if incident.policy is None else incident.policy.effective,
            epoch=0 if incident.policy is None else incident.policy.epoch,
            created_at_ms=incident.created_at_ms,
            request=incident.request,
            request_id=incident.request_id,
        )
        decision = decide(query)
        if isinstance(decision, Discard):
            return decision
        if size > self._max_bytes:
            return self._refused(incident, DiscardReason.TOO_LARGE)
        try:
            if not cap.take():
                return self._refused(incident, DiscardReason.CAPPED)
            kept = self._put(incident, query, decision)
            if isinstance(kept, Discard):
                cap.give_back()
                return kept
        except (KeeplessError, sa.exc.SQLAlchemyError) as error:
            return self._failed(incident, error)
        emit(Event.CAPTURE_STORED, object=kept.id, organization=incident.organization_id, reason=reason)
        return kept

    def _put(self, incident: Incident, query: Query, permit: Retain) -> Kept | Discard:
        content = pack(
            {**incident.facts(), "class": query.data_class, "reason": query.reason},
            incident.request_content,
            incident.answer_content,
        )
        for _ in range(ATTEMPTS):
            try:
                return self._vault.put(content, permit)
            except StaleEpochError:
                now = self._policy_now(incident.organization_id, incident.project_id)
                effective, epoch = (None, 0) if now is None else (now.effective, now.epoch)
                decision = decide(replace(query, effective=effective, epoch=epoch))
                if isinstance(decision, Discard):
                    return decision
                permit = decision
            except StoreFailedError as error:
                return self._failed(incident, error)
            except PutRefusedError as error:
                return self._refused(incident, error.reason)
        return self._refused(incident, DiscardReason.STALE_EPOCH)

    def _refused(self, incident: Incident, reason: DiscardReason) -> Discard:
        emit(Event.CAPTURE_REFUSED, organization=incident.organization_id, request=incident.request_id, reason=reason)
        return Discard(reason)

    @staticmethod
    def _failed(incident: Incident, error: Exception) -> Discard:
        """With where it failed: the blobs, the keyring or the database."""
        failure(Event.CAPTURE_FAILED, error, organization=incident.organization_id, request=incident.request_id)
        return Discard(DiscardReason.STORE_FAILED)
