"""Pages of lists."""

from dataclasses import dataclass

import pytest

from keepless.admin.pages import cut, page, seconds
from keepless.errors import Problem
from keepless.ids import Id


@dataclass
class Item:
    id: Id


ITEMS = [Item(Id(f"i{number}")) for number in range(5)]


def same(item: Item) -> Item:
    return item


@pytest.mark.parametrize(
    ("after", "limit", "ids", "more"),
    [
        (None, 2, ["i0", "i1"], True),
        ("i1", 2, ["i2", "i3"], True),
        ("i1", 3, ["i2", "i3", "i4"], False),
        ("i4", 3, [], False),
        (None, 5, ["i0", "i1", "i2", "i3", "i4"], False),
    ],
)
def test_a_short_list_is_cut(after: str | None, limit: int, ids: list[str], more: bool) -> None:
    found = cut(ITEMS, after, limit, same)
    assert [item.id for item in found.data] == ids
    assert found.has_more is more
    assert (found.first_id, found.last_id) == ((ids[0], ids[-1]) if ids else (None, None))


def test_an_unknown_after_is_404() -> None:
    with pytest.raises(Problem) as caught:
        cut(ITEMS, "i9", 2, same)
    assert caught.value.status == 404


def test_one_more_than_shown_means_more() -> None:
    assert page(ITEMS[:3], 2, same).has_more
    assert not page(ITEMS[:2], 2, same).has_more


def test_instants() -> None:
    assert (seconds(None), seconds(1999)) == (None, 1)
