"""Usage over HTTP: sums in OpenAI's shape, and one request explained. Numbers, enums and ids only (PRODUCT 1)."""

from keepless.admin.asks import NoBody, NoQuery, UsageQuery
from keepless.admin.endpoint import Ask
from keepless.admin.services import Services
from keepless.admin.shapes import Explanation, Sketch
from keepless.governance.change import not_found
from keepless.governance.explained import explained
from keepless.ids import Prefix
from keepless.usage import totals
from keepless.usage.totals import Group, UsagePage, UsageQuestion, Width

__all__ = ["explain_request", "usage_completions"]


def usage_completions(services: Services, ask: Ask[UsageQuery, NoBody]) -> UsagePage:
    """Tokens and requests of chat completions and responses, in buckets of time."""
    asked = ask.query
    # An end is exclusive; what was recorded in this very millisecond counts.
    end_ms = services.clock.now_ms() + 1 if asked.end_time is None else asked.end_time * 1000
    return totals.completions(
        services.db,
        UsageQuestion(
            organization_id=ask.organization_id,
            start_ms=asked.start_time * 1000,
            end_ms=end_ms,
            width=Width(asked.bucket_width),
            group_by=frozenset(Group(name) for name in asked.group_by),
            project_ids=tuple(asked.project_ids),
            key_ids=tuple(asked.api_key_ids),
            models=tuple(asked.models),
            batch=asked.batch,
            limit=asked.limit,
            page=asked.page,
        ),
    )


def explain_request(services: Services, ask: Ask[NoQuery, NoBody]) -> Explanation:
    """Why a request was or was not kept. Raises `Problem` 404."""
    request_id = ask.id("id", Prefix.REQUEST)
    found = explained(services.db, request_id, ask.organization_id)
    if found is None:
        raise not_found()
    sketch = found["sketch"]
    return Explanation(
        id=request_id,
        created_at=found["at"] // 1000,
        kept=found["kept"],
        why=found["why"],
        outcome=found["outcome"],
        discard=found["discard"],
        source=found["source"],
        epoch=found["epoch"],
        trigger=found["trigger"],
        reason=found["reason"],
        object_id=found["object_id"],
        route=found["route"],
        upstream_retention=found["upstream"],
        endpoint=found["endpoint"],
        model=found["model"],
        status=found["status"],
        code=found["code"],
        project_id=found["project_id"],
        api_key_id=found["key_id"],
        prompt_tokens=found["prompt_tokens"],
        completion_tokens=found["completion_tokens"],
        audio_ms=found["audio_ms"],
        latency_us=found["latency_us"],
        sketch=None if sketch is None else Sketch(**sketch),
    )
