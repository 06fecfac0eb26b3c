"""Pages of lists in OpenAI's shape: `after` and `limit`, with `first_id`, `last_id` and `has_more`.

Long lists are read by key, `limit + 1` items (never by offset), so that a page costs what it shows; short ones are
cut here. What was deleted between two pages is still a place to go on from (accounts.places).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from keepless.accounts import places
from keepless.admin.shapes import Page
from keepless.db import Database
from keepless.governance.change import not_found
from keepless.ids import Id, trusted

__all__ = ["Owner", "cut", "cut_by_age", "page", "seconds"]

T = TypeVar("T")
Shape = TypeVar("Shape")


class HasId(Protocol):
    """A record with an id."""

    @property
    def id(self) -> str:
        """Its id."""


class HasAge(Protocol):
    """A record with an id and the instant of its creation."""

    @property
    def id(self) -> Id:
        """Its id."""

    @property
    def created_at_ms(self) -> int:
        """When it was made."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose list it is; of one project, when it is given."""

    db: Database
    organization_id: Id
    project_id: Id | None = None


Record = TypeVar("Record", bound=HasId)
Aged = TypeVar("Aged", bound=HasAge)


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


def cut_by_age(
    owner: Owner,
    records: Sequence[Aged],
    after: str | None,
    limit: int,
    shape: Callable[[Aged], Shape],
    *,
    newest_first: bool = False,
) -> Page[Shape]:
    """As `cut`, of records in the order of their creation (turned round here), also after one that is gone by now."""
    listed = list(records)[::-1] if newest_first else list(records)
    if after is None or any(one.id == after for one in listed):
        return cut(listed, after, limit, shape)
    with owner.db.read() as tx:
        place = places.found(tx, trusted(after), owner.organization_id, owner.project_id)
    if place is None:
        raise not_found()
    stood = (place.created_at, place.id)
    rest = [one for one in listed if newest_first is ((one.created_at_ms, one.id) < stood)]
    return page(rest[: limit + 1], limit, shape)


def seconds(instant_ms: int | None) -> int | None:
    """An instant as Unix seconds, None staying None."""
    return None if instant_ms is None else instant_ms // 1000
