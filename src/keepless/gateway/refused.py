"""The usage record of a request that was refused before it was on its way: every request leaves a row.

Holds: `refused`. Leaves out: requests on their way (inference.metering).
"""

import time

from keepless.accounts.principal import Principal
from keepless.errors import Problem
from keepless.ids import Id
from keepless.usage.record import Endpoint, Record, Sketch

__all__ = ["refused"]


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
