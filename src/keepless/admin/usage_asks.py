"""What `usage/*` and `costs` accept: query strings as structs, with the names that OpenAI's client sends.

Filters and groups of what nothing here tells apart (users, tiers, sources, sizes, stores) are taken: a filter then fits
nothing, a group is null.
"""

from typing import Annotated, Final, Literal

import msgspec

from keepless.admin.asks import AnId, Instant

__all__ = [
    "CallsQuery",
    "CompletionsQuery",
    "CostsQuery",
    "ImagesQuery",
    "SearchesQuery",
    "StorageQuery",
    "UsageQuery",
    "UsageSpan",
]

_PRINTED: Final = r"^[^\x00-\x1f\x7f]*(?!\n)$"  # PostgreSQL takes no NUL
Model = Annotated[str, msgspec.Meta(max_length=96, pattern=_PRINTED, description="one line")]
LineItem = Annotated[str, msgspec.Meta(max_length=120, pattern=_PRINTED, description="one line")]
Cursor = Annotated[str, msgspec.Meta(pattern=r"^page_[0-9]{1,12}(?!\n)$", description="what next_page said")]
Buckets = Annotated[int, msgspec.Meta(ge=1, le=1440)]


class UsageSpan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A span of time in buckets; of some projects."""

    start_time: Instant
    end_time: Instant | None = None
    bucket_width: Literal["1m", "1h", "1d"] = "1d"
    project_ids: list[AnId] = []
    limit: Buckets | None = None
    page: Cursor | None = None


class _ByKey(UsageSpan, frozen=True, kw_only=True, forbid_unknown_fields=True):
    api_key_ids: list[AnId] = []
    user_ids: list[AnId] = []


class _ByModel(_ByKey, frozen=True, kw_only=True, forbid_unknown_fields=True):
    models: list[Model] = []


class UsageQuery(_ByModel, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OpenAI's `usage.embeddings`, `moderations`, `audio_speeches` and `audio_transcriptions`."""

    group_by: list[Literal["project_id", "user_id", "api_key_id", "model"]] = []


class CompletionsQuery(_ByModel, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OpenAI's `usage.completions` and `usage.decisions`."""

    group_by: list[Literal["project_id", "user_id", "api_key_id", "model", "batch", "service_tier", "api_source"]] = []
    batch: bool | None = None


class ImagesQuery(_ByModel, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OpenAI's `usage.images`."""

    group_by: list[Literal["project_id", "user_id", "api_key_id", "model", "size", "source"]] = []
    sizes: list[Literal["256x256", "512x512", "1024x1024", "1792x1792", "1024x1792"]] = []
    sources: list[Literal["image.generation", "image.edit", "image.variation"]] = []


class StorageQuery(UsageSpan, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OpenAI's `usage.vector_stores` and `usage.code_interpreter_sessions`."""

    group_by: list[Literal["project_id"]] = []


class CallsQuery(_ByKey, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OpenAI's `usage.file_search_calls`."""

    group_by: list[Literal["project_id", "user_id", "api_key_id", "vector_store_id"]] = []
    vector_store_ids: list[AnId] = []


class SearchesQuery(_ByModel, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OpenAI's `usage.web_search_calls`."""

    group_by: list[Literal["project_id", "user_id", "api_key_id", "model", "context_level", "api_source"]] = []
    context_levels: list[Literal["low", "medium", "high"]] = []


class CostsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OpenAI's `usage.costs`."""

    start_time: Instant
    end_time: Instant | None = None
    bucket_width: Literal["1d"] = "1d"
    group_by: list[Literal["project_id", "user_id", "line_item", "api_key_id", "api_source"]] = []
    project_ids: list[AnId] = []
    api_key_ids: list[AnId] = []
    line_items: list[LineItem] = []
    limit: Annotated[int, msgspec.Meta(ge=1, le=180)] | None = None
    page: Cursor | None = None
