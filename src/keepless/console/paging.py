"""Lists of bounded length, so that no page grows with what an organization has.

Holds: `paged` (a part of a list that is in memory anyway) and `offered` (what a menu offers). Leaves out: lists that
are read from the database by key.
"""

from collections.abc import Sequence
from typing import Final, Protocol, TypeVar

from keepless.ids import Id

__all__ = ["OFFERED", "SHOWN", "offered", "paged"]

SHOWN: Final = 50
OFFERED: Final = 200


class _Named(Protocol):
    @property
    def id(self) -> Id:
        """Its id."""


T = TypeVar("T", bound=_Named)


def paged(items: Sequence[T], after: Id | None) -> tuple[list[T], Id | None]:
    """The next items after one (the first ones, when there is none or it is gone), and after which the next page is."""
    at = next((number + 1 for number, one in enumerate(items) if one.id == after), 0)
    found = list(items[at : at + SHOWN])
    return found, found[-1].id if len(items) > at + SHOWN else None


def offered(items: Sequence[T], chosen: Id | None = None) -> list[T]:
    """The first ones, and the one that is chosen: what there is beyond them is reached by its own page."""
    found = list(items[:OFFERED])
    return found + [one for one in items[OFFERED:] if one.id == chosen]
