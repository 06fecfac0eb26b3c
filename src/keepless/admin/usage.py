"""Usage over HTTP: sums in OpenAI's shape, and one request explained. Numbers, enums and ids only (PRODUCT 1)."""

from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa

from keepless.admin.asks import NoBody, NoQuery, UsageQuery
from keepless.admin.endpoint import Ask
from keepless.admin.services import Services
from keepless.admin.shapes import Explanation, Sketch
from keepless.governance.change import not_found
from keepless.ids import Id, Prefix
from keepless.policy.decision import DiscardReason, Reason, Trigger
from keepless.usage import totals
from keepless.usage.record import Outcome
from keepless.usage.totals import Group, UsagePage, UsageQuestion, Width
from keepless.vault.tables import kept, tombstone

__all__ = ["explain_request", "usage_completions"]

_WHY: Final = {
    Outcome.NONE: "Nothing was kept: policy did not allow anything of this request to be kept, whatever had happened.",
    Outcome.ON_ERROR: "Nothing was kept: policy allows a capture of a request that fails, and this one did not.",
    Outcome.STORED: "It was kept because the call asked for that. The object says what and until when.",
    Outcome.CAPTURED: "It was captured: policy allows that for its reason. The object says what and until when.",
}
_WHY_NOT: Final = {
    DiscardReason.NO_TRIGGER: "Nothing was kept: nothing happened that is a reason to keep.",
    DiscardReason.WRONG_TRIGGER: "Nothing was kept: what happened is no reason to keep this class.",
    DiscardReason.ZERO_DATA_RETENTION: "Nothing was kept: Zero Data Retention is on.",
    DiscardReason.OPTED_OUT: "Nothing was kept: inference logging is off.",
    DiscardReason.FEATURE_OFF: "Nothing was kept: the feature is off.",
    DiscardReason.REQUEST_FORBIDS: "Nothing was kept: the request itself forbade it.",
    DiscardReason.POLICY_UNREADABLE: "Nothing was kept: the policy could not be read, and then nothing is.",
    DiscardReason.CAPPED: "Nothing was kept: the cap on captures of this kind was reached.",
    DiscardReason.TOO_LARGE: "Nothing was kept: it was larger than a capture may be.",
    DiscardReason.STALE_EPOCH: "Nothing was kept: the policy kept changing while it was being written.",
    DiscardReason.LOCATION_RED: "Nothing was kept: the location does not keep its promises at the moment.",
    DiscardReason.STORE_FAILED: "Nothing was kept: the store failed.",
}


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
    found = totals.explain(services.db, request_id, ask.organization_id)
    if found is None:
        raise not_found()
    reason = _reason(services, found["object_id"])
    sketch = found["sketch"]
    return Explanation(
        id=request_id,
        created_at=found["at"] // 1000,
        kept=found["outcome"] in (Outcome.CAPTURED, Outcome.STORED),
        why=_WHY_NOT.get(found["discard"]) or _WHY.get(found["outcome"], _WHY[Outcome.NONE]),
        outcome=found["outcome"],
        discard=found["discard"],
        source=found["source"],
        epoch=found["epoch"],
        trigger=_trigger(found, reason),
        reason=reason,
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


def _reason(services: Services, object_id: Id | None) -> Reason | None:
    """Why an object came to be kept, also when it is gone by now."""
    if object_id is None:
        return None
    with services.db.read() as tx:
        for source, key in ((kept, kept.c.id), (tombstone, tombstone.c.object_id)):
            found = tx.execute(sa.select(source.c.reason).where(key == object_id)).scalar()
            if found is not None:
                return Reason(found)
    return None


def _trigger(found: Mapping[str, Any], reason: Reason | None) -> Trigger:
    if reason is Reason.ABUSE_CASE:
        return Trigger.ABUSE_CASE
    asked = found["outcome"] in (Outcome.CAPTURED, Outcome.REFUSED)
    return Trigger.RELIABILITY_ERROR if asked else Trigger.NONE
