"""The usage record of a request that was on its way.

Holds: `record_of`. Leaves out: requests refused before (gateway), writing (usage.ledger).
"""

import time
from typing import Final

from keepless.config import UpstreamRetention
from keepless.errors import Code
from keepless.ids import Id
from keepless.inference.asking import Ask, Tokens
from keepless.policy.decision import Discard
from keepless.usage.record import Outcome, Record, Route, Sketch

__all__ = ["record_of"]

_EMBEDDED: Final = Route.EMBEDDED
_UPSTREAM: Final = Route.UPSTREAM


def record_of(
    ask: Ask,
    *,
    at_ms: int,
    status: int,
    code: Code | None,
    tokens: Tokens,
    first: int,
    bytes_out: int,
    outcome: Outcome,
    discard: Discard | None,
    object_id: Id | None,
    upstream: UpstreamRetention | None,
    sketch: Sketch | None,
) -> Record:
    """One row. `first` is `time.perf_counter_ns()` at the engine's first byte, 0 = none came.

    `upstream`: what the engine that answered (or failed last) promises to keep; None = none was asked.
    """
    principal, route = ask.principal, ask.route
    organization = principal.organization
    return Record(
        request_id=ask.request_id,
        at_ms=at_ms,
        status=status,
        endpoint=ask.endpoint,
        organization_id=organization.id,
        project_id=principal.project.id,
        key_id=principal.key_id,
        model=route.model_id,
        code=code,
        prompt_tokens=tokens.prompt,
        completion_tokens=tokens.completion,
        cached_tokens=tokens.cached,
        audio_ms=tokens.audio_ms,
        latency_us=(time.perf_counter_ns() - ask.began) // 1000,
        first_byte_us=(first - ask.began) // 1000 if first else 0,
        bytes_in=ask.bytes_in,
        bytes_out=bytes_out,
        streamed=ask.stream,
        batch=ask.batch,
        epoch=organization.epoch,
        outcome=outcome,
        discard=None if discard is None else discard.reason,
        source=None if discard is None else discard.source,
        object_id=object_id,
        route=_EMBEDDED if route.embedded else _UPSTREAM,
        upstream=upstream,
        sketch=sketch,
    )
