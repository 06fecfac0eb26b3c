"""One that may answer for a model: an upstream with its promises, or the embedded engine.

Holds: `Target` (promises, engine, health, load) and `eligible`: may this caller's request go to exactly this one?
Leaves out: what the caller's policy is (policy, by way of the pipeline), choosing among several (router, tries).
"""

import time
from typing import Final

from keepless.config import ModelConfig, UpstreamConfig, UpstreamRetention
from keepless.errors import Code, ErrorType, Problem
from keepless.inference.backend import Backend
from keepless.inference.faults import Fault
from keepless.inference.health import Health, Standing

__all__ = ["DECLARED", "Target", "eligible", "region_of"]

DECLARED: Final = {
    UpstreamRetention.ZERO: "zero retention",
    UpstreamRetention.LOGS_30D: "logs for up to 30 days (logs_30d)",
    UpstreamRetention.UNKNOWN: "nothing about its retention (unknown)",
}
_SAID: Final = {
    UpstreamRetention.ZERO: b"",
    UpstreamRetention.LOGS_30D: b"; upstream=logs_30d",
    UpstreamRetention.UNKNOWN: b"; upstream=unknown",
}


class Target:
    """`upstream` None: the embedded engine, which runs here, in the deployment's own region, and keeps nothing."""

    __slots__ = (
        "backend", "bit", "failures", "full_at", "health", "in_flight", "index", "left", "model_id", "name", "next_at",
        "region", "retention", "said", "tries", "upstream", "weight",
    )  # fmt: skip

    def __init__(self, model: ModelConfig, index: int, backend: Backend, upstream: UpstreamConfig | None) -> None:
        self.model_id: Final = model.id
        self.index: Final = index
        self.bit: Final = 1 << index
        self.backend: Final = backend
        self.upstream: Final = upstream
        self.retention: Final = UpstreamRetention.ZERO if upstream is None else upstream.retention
        self.region: Final = None if upstream is None else upstream.region
        self.name: Final = None if upstream is None else upstream.upstream_model  # what it calls the model
        self.said: Final = _SAID[self.retention]  # of it, in the retention header
        self.weight: Final = 1 if upstream is None else upstream.weight
        self.full_at: Final = model.max_connections if upstream is None else upstream.max_connections or 0
        self.health: Final = Health(model.breaker_failures, model.breaker_seconds)
        self.in_flight = 0
        self.next_at = 0.0  # its turn among its route's, in virtual time (tries)
        self.tries = 0
        self.failures = 0
        self.left = 0  # tries after which another one was asked

    def take(self) -> None:
        """A request is sent to it; `leave` follows exactly once."""
        self.in_flight += 1
        self.tries += 1
        self.health.asked()

    def leave(self, fault: Fault | None, *, answered: bool = False) -> None:
        """A request at it is over: with a fault, `answered` to its end, or neither (the client left)."""
        self.in_flight -= 1
        health = self.health
        if answered:
            health.succeeded()
            return
        if fault is not None and fault.sick:
            self.failures += 1
            health.failed(time.monotonic())
        else:
            health.let_go()
        if fault is not None and fault.rest_s is not None:
            health.rest(time.monotonic(), fault.rest_s)

    @property
    def reachable(self) -> bool:
        """Whether it can be asked at all, whatever requests made of it."""
        return self.backend.healthy and not self.health.down

    @property
    def healthy(self) -> bool:
        """Whether it is asked like any other."""
        return self.reachable and not self.health.open

    def standing(self, now: float) -> Standing:
        """Whether to ask it now, seconds of the monotonic clock."""
        return self.health.standing(now)


def eligible(target: Target, *, zero_only: bool, region: str | None) -> Problem | None:
    """None when a caller's request may go to a target; otherwise the refusal, which names the control that decides.

    Pure, and asked at the very moment of sending, under the lease. `zero_only`: policy allows only what keeps nothing.
    `region`: where the organization is pinned to.
    """
    if target.upstream is None:
        return None
    if zero_only and target.retention is not UpstreamRetention.ZERO:
        return Problem(
            403,
            Code.UPSTREAM_RETENTION,
            f"The upstream of model `{target.model_id}` declares {DECLARED[target.retention]}. Zero data retention, "
            "inference logging turned off, or this request's own retention header allows only upstreams that declare "
            "zero retention. Choose another model, or ask an organization owner about Data Controls.",
            type=ErrorType.INVALID_REQUEST,
            param="model",
            retry=False,
        )
    if region is not None and target.region != region:
        return Problem(
            403,
            Code.UPSTREAM_REGION,
            f"The upstream of model `{target.model_id}` declares {region_of(target)}. This organization is pinned to "
            "another region by its Data Controls. Choose another model, or ask an organization owner about Data "
            "Controls.",
            type=ErrorType.INVALID_REQUEST,
            param="model",
            retry=False,
        )
    return None


def region_of(target: Target) -> str:
    """The region it declares, in words."""
    return f"region `{target.region}`" if target.region else "no region"
