"""Pages of lists."""

from dataclasses import dataclass

import pytest

from keepless.accounts import places
from keepless.accounts.tables import api_key
from keepless.admin.pages import Owner, cut, cut_by_age, page, seconds
from keepless.db import Database
from keepless.errors import Problem
from keepless.ids import Id, Prefix, mint
from tests.unit.accounts.test_directory import populate


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


@dataclass
class Dated:
    id: Id
    created_at_ms: int


@pytest.mark.parametrize("newest_first", [False, True], ids=["oldest first", "newest first"])
def test_a_page_goes_on_after_what_is_gone(database: Database, newest_first: bool) -> None:
    own, below, keys = populate(database)
    with database.write() as tx:
        places.leave(tx, api_key, keys[1:2], 9)
    left = [Dated(keys[0], 0), Dated(keys[2], 2)]
    turned = {"newest_first": newest_first}
    for owner in (Owner(database, own), Owner(database, own, below[0])):
        found = cut_by_age(owner, left, keys[1], 9, dated, **turned)
        assert [one.id for one in found.data] == [keys[0] if newest_first else keys[2]]
        whole = cut_by_age(owner, left, None, 1, dated, **turned)
        assert (whole.has_more, whole.data[0].id) == (True, keys[2] if newest_first else keys[0])
        rest = cut_by_age(owner, left, str(whole.last_id), 1, dated, **turned)
        assert (rest.has_more, len(rest.data)) == (False, 1)
    for owner in (Owner(database, mint(Prefix.ORGANIZATION)), Owner(database, own, below[1])):
        with pytest.raises(Problem) as caught:
            cut_by_age(owner, left, keys[1], 9, dated, **turned)
        assert caught.value.status == 404


def dated(one: Dated) -> Dated:
    return one
