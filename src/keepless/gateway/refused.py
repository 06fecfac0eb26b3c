"""The usage record of a request that was refused before it was on its way: every request leaves a row.

Holds: `refused` and `on_refused` (for the server, which refuses what is not HTTP). Leaves out: requests on their way
(inference.metering).
"""

import time
from collections.abc import Callable

from keepless.accounts.principal import Principal
from keepless.clock import Clock
from keepless.errors import Problem
from keepless.ids import Id
from keepless.usage.ledger import Ledger
from keepless.usage.record import Endpoint, Phase, Record, Sketch

__all__ = ["on_refused", "refused"]


def refused(
    problem: Problem,
    request_id: Id,
    *,
    at_ms: int,
    endpoint: Endpoint,
    principal: Principal | None,
    model: Id | None,
    bytes_in: int,
    bytes_out: int,
    began: int,
    sketch: Sketch | None,
) -> Record:
    """One row. `began` is `time.perf_counter_ns()` at the request's arrival."""
    return Record(
        request_id=request_id,
        at_ms=at_ms,
        status=problem.status,
        endpoint=endpoint,
        organization_id=None if principal is None else principal.organization.id,
        project_id=None if principal is None else principal.project.id,
        key_id=None if principal is None else principal.key_id,
        model=model,
        code=problem.code,
        latency_us=(time.perf_counter_ns() - began) // 1000,
        bytes_in=bytes_in,
        bytes_out=bytes_out,
        epoch=0 if principal is None else principal.organization.epoch,
        sketch=sketch,
    )


def on_refused(ledger: Ledger, clock: Clock) -> Callable[[Problem, Id, int], None]:
    """What the server calls for a request that it refused itself."""

    def record(problem: Problem, request_id: Id, bytes_in: int) -> None:
        ledger.add(
            refused(
                problem,
                request_id,
                at_ms=clock.now_ms(),
                endpoint=Endpoint.OTHER,
                principal=None,
                model=None,
                bytes_in=bytes_in,
                bytes_out=0,
                began=time.perf_counter_ns(),
                sketch=Sketch(phase=Phase.HEAD),
            )
        )

    return record
