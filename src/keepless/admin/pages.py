"""Pages of lists in OpenAI's shape: `after` and `limit`, with `first_id`, `last_id` and `has_more`.

Long lists are read by key, `limit + 1` items (never by offset), so that a page costs what it shows; short ones are
cut here.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from keepless.admin.shapes import Page
from keepless.governance.change import not_found

__all__ = ["cut", "page", "seconds"]

T = TypeVar("T")
Shape = TypeVar("Shape")


class HasId(Protocol):
    """A record with an id."""

    @property
    def id(self) -> str:
        """Its id."""


Record = TypeVar("Record", bound=HasId)


def page(found: Sequence[T], limit: int, shape: Callable[[T], Shape]) -> Page[Shape]:
    """The page of what was found with a limit of one more than shown."""
    data = [shape(item) for item in found[:limit]]
    ids: list[Any] = [getattr(item, "id", None) for item in data]
    return Page(
        data=data,
        has_more=len(found) > limit,
        first_id=ids[0] if ids else None,
        last_id=ids[-1] if ids else None,
    )


def cut(records: Sequence[Record], after: str | None, limit: int, shape: Callable[[Record], Shape]) -> Page[Shape]:
    """The page after `after` of a short list read as a whole. Raises `Problem` 404 for an `after` not in it."""
    start = 0
    if after is not None:
        start = next((i for i, record in enumerate(records, 1) if record.id == after), -1)
        if start < 0:
            raise not_found()
    return page(records[start : start + limit + 1], limit, shape)


def seconds(instant_ms: int | None) -> int | None:
    """An instant as Unix seconds, None staying None."""
    return None if instant_ms is None else instant_ms // 1000
