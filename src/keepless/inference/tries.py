"""Several upstreams for one model: who is asked, who is next, and what is told when nobody is left.

Holds: `Tries`, made for one request to a model of several upstreams (a model of one costs nothing of this). Leaves out:
what policy permits (`refusal`, asked here for exactly each upstream, and by the engine again at the moment of sending),
sending (pipeline), what a failure means (faults).

Order among the upstreams that policy permits and that have not been asked yet:
1. those that are well, before those that are avoided (of these, whose pause ends first); one whose own health check
   fails is not asked at all;
2. those with a free connection, and not more than about twice as much in flight, by weight, as the others have on
   average (one that is slow or stuck is passed over);
3. weighted fair turns: each upstream has its next turn in virtual time, `1 / weight` after its last one. One that was
   away starts at the present, it does not catch up.

Another one is asked only before the first byte of an answer, for the failures that `faults` lists, each upstream at
most once, at most `tries` of them, and not after `retry_seconds`. So a try that a retry mended is never an incident.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Final

from keepless.config import UpstreamRetention
from keepless.errors import Code, ErrorType, Problem
from keepless.inference.faults import Elsewhere, Fault
from keepless.inference.health import Standing
from keepless.inference.router import Route
from keepless.inference.target import DECLARED, Target, region_of
from keepless.policy.decision import Reason

__all__ = ["Tries"]

_RETRY_AFTER: Final = {"retry-after": "1"}
_WEAKER: Final = {UpstreamRetention.ZERO: 0, UpstreamRetention.LOGS_30D: 1, UpstreamRetention.UNKNOWN: 2}


class Tries:
    """The tries of one request. `began`: `time.perf_counter_ns()` at its arrival."""

    __slots__ = ("_began", "_reason", "_refusal", "_route", "_seen_by", "_tried")

    def __init__(self, route: Route, refusal: Callable[[Target], Fault | None], began: int) -> None:
        self._route: Final = route
        self._refusal: Final = refusal
        self._began: Final = began
        self._tried = 0  # one bit for each
        self._reason: Reason | None = None  # why an earlier try failed, if that degrades reliability
        self._seen_by = UpstreamRetention.ZERO  # the weakest promise of those that failed after they saw the request

    def first(self) -> Target | Fault:
        """Whom to ask, or why nobody."""
        return self._choose() or self._nobody(None)

    def after(self, target: Target, fault: Fault, *, begun: bool) -> Target | Fault:
        """Whom to ask instead of one that failed, or what to tell. `begun`: some of an answer has come."""
        if fault.seen and _WEAKER[target.retention] > _WEAKER[self._seen_by]:
            self._seen_by = target.retention
        reason = self._reason = fault.reason or self._reason
        if not begun and self._may_go_on(fault):
            found = self._choose()
            if found is not None:
                target.left += 1
                return found
            fault = self._nobody(fault)
        return fault if fault.reason is reason else dataclasses.replace(fault, reason=reason)

    @property
    def said(self) -> bytes:
        """What the retention header adds: who saw the request without answering it, when he may keep it."""
        return b"" if self._seen_by is UpstreamRetention.ZERO else b"; tried=" + self._seen_by.value.encode("ascii")

    def _may_go_on(self, fault: Fault) -> bool:
        model = self._route.model
        if fault.elsewhere is Elsewhere.NO or (fault.elsewhere is Elsewhere.IF_CONFIGURED and not model.retry_timeouts):
            return False
        elapsed_s = (time.perf_counter_ns() - self._began) / 1e9
        return self._tried.bit_count() < model.tries and elapsed_s < model.retry_seconds

    def _choose(self) -> Target | None:
        route, now = self._route, time.monotonic()
        in_flight = sum(target.in_flight for target in route.targets)
        weights = sum(target.weight for target in route.targets)
        best: Target | None = None
        least: tuple[float, ...] = ()
        for target in route.targets:
            if self._tried & target.bit:
                continue
            standing = target.standing(now)
            if standing is Standing.DOWN or self._refusal(target) is not None:
                continue
            until = target.health.until if standing else 0.0
            full = target.in_flight >= target.full_at
            others, weight = in_flight - target.in_flight, target.weight
            slow = target.in_flight > 2 * (others + 1) * weight / (weights - weight) + 2
            order = (standing, until, full, slow, max(target.next_at, route.virtual_time))
            if best is None or order < least:
                best, least = target, order
        if best is not None:
            self._tried |= best.bit
            route.virtual_time = least[-1]
            best.next_at = least[-1] + 1 / best.weight
        return best

    def _nobody(self, fault: Fault | None) -> Fault:
        """What to tell when nobody is left: who may not, who might but does not answer."""
        refused = [(target, refusal) for target in self._route.targets if (refusal := self._refusal(target))]
        if len(refused) == len(self._route.targets):
            return _forbidden(self._route, [(target, refusal.problem) for target, refusal in refused])
        idle = [target for target, _ in refused if target.healthy]
        if fault is not None and not idle:
            return fault
        permitted = [target for target in self._route.targets if target not in [refused_ for refused_, _ in refused]]
        return _unavailable(self._route, permitted, idle, fault)


def _forbidden(route: Route, refused: list[tuple[Target, Problem]]) -> Fault:
    """403: policy permits none of them."""
    for _, problem in refused:
        if problem.status != 403:
            return Fault(problem, None)  # not about this upstream: the key is gone, or policy cannot be read
    retention = any(problem.code is Code.UPSTREAM_RETENTION for _, problem in refused)
    declared = "; ".join(
        f"upstream {target.index} declares "
        + (DECLARED[target.retention] if problem.code is Code.UPSTREAM_RETENTION else region_of(target))
        for target, problem in refused
    )
    needed = "zero retention" if retention else "the region to which this organization is pinned"
    if retention and any(problem.code is Code.UPSTREAM_REGION for _, problem in refused):
        needed += ", in the region to which this organization is pinned"
    problem = Problem(
        403,
        Code.UPSTREAM_RETENTION if retention else Code.UPSTREAM_REGION,
        f"No upstream of model `{route.model.id}` may be sent this request: {declared}. Data Controls, or this "
        f"request's own retention header, allow only upstreams that declare {needed}. Choose another model, or ask an "
        "organization owner about Data Controls.",
        type=ErrorType.INVALID_REQUEST,
        param="model",
        retry=False,
    )
    return Fault(problem, None)


def _unavailable(route: Route, permitted: list[Target], idle: list[Target], fault: Fault | None) -> Fault:
    """503: those that policy permits do not answer; others might, but may not be asked."""
    text = f"No upstream of model `{route.model.id}` that may be sent this request is available: {_listed(permitted)}."
    if idle:
        text += f" Available, but not permitted by Data Controls or this request: {_listed(idle)}."
    code = Code.ENGINE_UNAVAILABLE if fault is None else fault.problem.code
    problem = Problem(503, code, text + " Please try again shortly.", type=ErrorType.SERVER, headers=_RETRY_AFTER)
    return Fault(problem, None if fault is None else fault.reason)


def _listed(targets: list[Target]) -> str:
    return ", ".join(
        f"upstream {target.index} ({DECLARED[target.retention]}, {region_of(target)})" for target in targets
    )
