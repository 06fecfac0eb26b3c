"""Usage and costs over HTTP, in OpenAI's shapes, and one request explained. Numbers, enums and ids only (PRODUCT 1).

What OpenAI counts and nothing here serves (images, moderations, tools' calls) answers its buckets, all empty: that is
what was used (ADR 0027).
"""

from keepless.admin.asks import NoBody, NoQuery
from keepless.admin.endpoint import Ask
from keepless.admin.services import Services
from keepless.admin.shapes import Explanation, Sketch
from keepless.admin.usage_asks import (
    CallsQuery,
    CompletionsQuery,
    CostsQuery,
    ImagesQuery,
    SearchesQuery,
    StorageQuery,
    UsageQuery,
    UsageSpan,
)
from keepless.governance.change import not_found
from keepless.governance.explained import explained
from keepless.ids import Id, Prefix
from keepless.usage import costs, results
from keepless.usage.results import Completions, Embeddings, Nothing, Speeches, Transcriptions, UsagePage
from keepless.usage.sums import Group, UsageQuestion, Width

__all__ = [
    "explain_request",
    "usage_audio_speeches",
    "usage_audio_transcriptions",
    "usage_code_interpreter_sessions",
    "usage_completions",
    "usage_costs",
    "usage_decisions",
    "usage_embeddings",
    "usage_file_search_calls",
    "usage_images",
    "usage_moderations",
    "usage_vector_stores",
    "usage_web_search_calls",
]


def usage_completions(services: Services, ask: Ask[CompletionsQuery, NoBody]) -> UsagePage[Completions]:
    """Tokens and requests of chat completions and responses, in buckets of time."""
    return results.completions(services.db, _question(services, ask.organization_id, ask.query))


def usage_embeddings(services: Services, ask: Ask[UsageQuery, NoBody]) -> UsagePage[Embeddings]:
    """Tokens and requests of embeddings, in buckets of time."""
    return results.embeddings(services.db, _question(services, ask.organization_id, ask.query))


def usage_audio_speeches(services: Services, ask: Ask[UsageQuery, NoBody]) -> UsagePage[Speeches]:
    """Characters that were spoken, in buckets of time."""
    return results.speeches(services.db, _question(services, ask.organization_id, ask.query))


def usage_audio_transcriptions(services: Services, ask: Ask[UsageQuery, NoBody]) -> UsagePage[Transcriptions]:
    """Seconds of sound that were transcribed or translated, in buckets of time."""
    return results.transcriptions(services.db, _question(services, ask.organization_id, ask.query))


def usage_images(services: Services, ask: Ask[ImagesQuery, NoBody]) -> UsagePage[Nothing]:
    """Images: none are made here, so every bucket is empty."""
    return results.nothing(services.db, _question(services, ask.organization_id, ask.query))


def usage_moderations(services: Services, ask: Ask[UsageQuery, NoBody]) -> UsagePage[Nothing]:
    """Moderations: none are served here, so every bucket is empty."""
    return results.nothing(services.db, _question(services, ask.organization_id, ask.query))


def usage_vector_stores(services: Services, ask: Ask[StorageQuery, NoBody]) -> UsagePage[Nothing]:
    """Vector stores: there are none here, so every bucket is empty."""
    return results.nothing(services.db, _question(services, ask.organization_id, ask.query))


def usage_code_interpreter_sessions(services: Services, ask: Ask[StorageQuery, NoBody]) -> UsagePage[Nothing]:
    """Code interpreter sessions: there are none here, so every bucket is empty."""
    return results.nothing(services.db, _question(services, ask.organization_id, ask.query))


def usage_file_search_calls(services: Services, ask: Ask[CallsQuery, NoBody]) -> UsagePage[Nothing]:
    """File searches: none are served here, so every bucket is empty."""
    return results.nothing(services.db, _question(services, ask.organization_id, ask.query))


def usage_web_search_calls(services: Services, ask: Ask[SearchesQuery, NoBody]) -> UsagePage[Nothing]:
    """Web searches: none are served here, so every bucket is empty."""
    return results.nothing(services.db, _question(services, ask.organization_id, ask.query))


def usage_decisions(services: Services, ask: Ask[CompletionsQuery, NoBody]) -> UsagePage[Nothing]:
    """Decisions: none are served here, so every bucket is empty."""
    return results.nothing(services.db, _question(services, ask.organization_id, ask.query))


def usage_costs(services: Services, ask: Ask[CostsQuery, NoBody]) -> UsagePage[costs.Costs]:
    """What was used at the prices of today, by day. A model without a price costs nothing."""
    asked = ask.query
    return costs.costs(
        services.db,
        _question(services, ask.organization_id, ask.query),
        costs.Prices(services.settings.models),
        by_line="line_item" in asked.group_by,
        lines=asked.line_items,
    )


def _question(services: Services, organization_id: Id, asked: UsageSpan | CostsQuery) -> UsageQuestion:
    """What any of the queries asks; a filter that only some of them have is found by its name."""
    # An end is exclusive; what was recorded in this very millisecond counts.
    end_ms = services.clock.now_ms() + 1 if asked.end_time is None else asked.end_time * 1000
    groups = {group.value for group in Group} - {Group.ENDPOINT.value}
    return UsageQuestion(
        organization_id=organization_id,
        start_ms=asked.start_time * 1000,
        end_ms=end_ms,
        width=Width(asked.bucket_width),
        group_by=frozenset(Group(name) for name in getattr(asked, "group_by", ()) if name in groups),
        project_ids=tuple(asked.project_ids),
        key_ids=tuple(getattr(asked, "api_key_ids", ())),
        models=tuple(getattr(asked, "models", ())),
        batch=getattr(asked, "batch", None),
        limit=asked.limit,
        page=asked.page,
        nobodys=bool(getattr(asked, "user_ids", ())),  # a key belongs to a project here, and to no user
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
