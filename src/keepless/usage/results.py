"""The sums of usage in OpenAI's shapes, one function for each of its `usage/*` that something here can answer.

Holds: the shapes of buckets and results, `completions`, `embeddings`, `speeches`, `transcriptions`, `nothing`. Leaves
out: summing (sums), money (costs), HTTP. What was not grouped by is null. Users, tiers and sources are not told apart
here: they are null always.
"""

from collections.abc import Callable, Sequence
from typing import Final, Generic, Literal, TypeVar

import msgspec

from keepless.config import Endpoint
from keepless.db import Database
from keepless.usage.sums import Of, Spans, Sum, UsageQuestion, summed

__all__ = [
    "Bucket",
    "Completions",
    "Embeddings",
    "Nothing",
    "Speeches",
    "Transcriptions",
    "UsagePage",
    "completions",
    "embeddings",
    "nothing",
    "paged",
    "speeches",
    "transcriptions",
]

R = TypeVar("R")
_COMPLETIONS: Final = (Endpoint.CHAT, Endpoint.RESPONSES)
_HEARD: Final = (Endpoint.TRANSCRIPTIONS, Endpoint.TRANSLATIONS)


class Bucket(msgspec.Struct, Generic[R], kw_only=True):
    """The sums of one span of time. Unix seconds, `end_time` exclusive."""

    start_time: int
    end_time: int
    results: list[R]
    object: Literal["bucket"] = "bucket"


class UsagePage(msgspec.Struct, Generic[R], kw_only=True):
    """Some buckets and where to go on."""

    data: list[Bucket[R]]
    has_more: bool
    next_page: str | None
    object: Literal["page"] = "page"


class _Grouped(msgspec.Struct, kw_only=True):
    num_model_requests: int
    project_id: str | None
    api_key_id: str | None
    model: str | None
    user_id: None = None


class Completions(_Grouped, kw_only=True):
    """Chat completions and responses."""

    input_tokens: int
    output_tokens: int
    input_cached_tokens: int
    input_audio_tokens: int = 0
    output_audio_tokens: int = 0
    batch: bool | None = None
    service_tier: None = None
    api_source: None = None
    object: Literal["organization.usage.completions.result"] = "organization.usage.completions.result"


class Embeddings(_Grouped, kw_only=True):
    """Embeddings."""

    input_tokens: int
    object: Literal["organization.usage.embeddings.result"] = "organization.usage.embeddings.result"


class Speeches(_Grouped, kw_only=True):
    """Texts that were spoken."""

    characters: int
    object: Literal["organization.usage.audio_speeches.result"] = "organization.usage.audio_speeches.result"


class Transcriptions(_Grouped, kw_only=True):
    """Sound that was transcribed or translated. Seconds are rounded up, each result by itself."""

    seconds: int
    object: Literal["organization.usage.audio_transcriptions.result"] = "organization.usage.audio_transcriptions.result"


class Nothing(msgspec.Struct, kw_only=True):
    """Of what is not served here there is no result."""


def completions(db: Database, asked: UsageQuestion) -> UsagePage[Completions]:
    """Sums over completions. Raises `Problem` 400 as `summed` does."""

    def shape(of: Of, one: Sum) -> Completions:
        return Completions(
            input_tokens=one.prompt_tokens,
            output_tokens=one.completion_tokens,
            input_cached_tokens=one.cached_tokens,
            num_model_requests=one.requests,
            project_id=of.project_id,
            api_key_id=of.key_id,
            model=of.model,
            batch=of.batch,
        )

    return paged(summed(db, asked, _COMPLETIONS, gaps=True), lambda sums: [shape(*one) for one in sums])


def embeddings(db: Database, asked: UsageQuestion) -> UsagePage[Embeddings]:
    """Sums over embeddings. Raises `Problem` 400 as `summed` does."""

    def shape(of: Of, one: Sum) -> Embeddings:
        return Embeddings(
            input_tokens=one.prompt_tokens,
            num_model_requests=one.requests,
            project_id=of.project_id,
            api_key_id=of.key_id,
            model=of.model,
        )

    return paged(summed(db, asked, (Endpoint.EMBEDDINGS,)), lambda sums: [shape(*one) for one in sums])


def speeches(db: Database, asked: UsageQuestion) -> UsagePage[Speeches]:
    """Sums over what was spoken. Raises `Problem` 400 as `summed` does."""

    def shape(of: Of, one: Sum) -> Speeches:
        return Speeches(
            characters=one.prompt_tokens,
            num_model_requests=one.requests,
            project_id=of.project_id,
            api_key_id=of.key_id,
            model=of.model,
        )

    return paged(summed(db, asked, (Endpoint.SPEECH,)), lambda sums: [shape(*one) for one in sums])


def transcriptions(db: Database, asked: UsageQuestion) -> UsagePage[Transcriptions]:
    """Sums over what was heard. Raises `Problem` 400 as `summed` does."""

    def shape(of: Of, one: Sum) -> Transcriptions:
        return Transcriptions(
            seconds=-(-one.audio_ms // 1000),
            num_model_requests=one.requests,
            project_id=of.project_id,
            api_key_id=of.key_id,
            model=of.model,
        )

    return paged(summed(db, asked, _HEARD), lambda sums: [shape(*one) for one in sums])


def nothing(db: Database, asked: UsageQuestion) -> UsagePage[Nothing]:
    """The buckets of what is not served here, all empty. Raises `Problem` 400 as `summed` does."""
    return paged(summed(db, asked, ()), lambda _: [])


def paged(found: Spans, shape: Callable[[Sequence[tuple[Of, Sum]]], list[R]]) -> UsagePage[R]:
    """The page of these spans."""
    return UsagePage(
        data=[Bucket(start_time=span.start, end_time=span.end, results=shape(span.sums)) for span in found.spans],
        has_more=found.next_page is not None,
        next_page=found.next_page,
    )
