"""Where something stood that is gone: for its owner, for a day, and the same whoever removes it first."""

import pytest

from keepless.accounts import places
from keepless.accounts.places import KEPT_MS, Place
from keepless.accounts.tables import api_key, organization
from keepless.db import Database
from keepless.files.tables import file
from keepless.ids import Id, Prefix, mint
from tests.unit.accounts.test_directory import populate

NOW = 1_800_000_000_000


def test_its_owner_finds_the_place_and_nobody_else(database: Database) -> None:
    own, below, keys = populate(database)
    with database.write() as tx:
        places.leave(tx, api_key, keys[1:], NOW)
        places.leave(tx, api_key, [keys[1]], NOW + KEPT_MS)  # known already
        places.leave(tx, api_key, [mint(Prefix.API_KEY)], NOW)
        places.leave(tx, organization, [own], NOW)
        places.leave(tx, file, [], NOW)
    other, elsewhere = mint(Prefix.ORGANIZATION), mint(Prefix.PROJECT)
    with database.read() as tx:
        assert places.found(tx, keys[1], own) == places.found(tx, keys[1], own, below[0]) == Place(keys[1], 1)
        assert places.of_project(tx, keys[2], below[0]) == Place(keys[2], 2)
        assert places.found(tx, own, own) == Place(own, 1)
        for found in (
            places.found(tx, keys[0], own),
            places.found(tx, keys[1], other),
            places.found(tx, keys[1], own, elsewhere),
            places.of_project(tx, keys[1], elsewhere),
            places.found(tx, own, other),
        ):
            assert found is None


@pytest.mark.parametrize(("later_ms", "gone"), [(KEPT_MS - 1, 0), (KEPT_MS, 2)])
def test_it_is_known_for_a_day(database: Database, later_ms: int, gone: int) -> None:
    own, _, keys = populate(database)
    with database.write() as tx:
        places.leave(tx, api_key, keys[:2], NOW)
        places.leave(tx, api_key, keys[2:], NOW + KEPT_MS)
    assert places.forget(database, NOW + later_ms) == gone
    with database.read() as tx:
        left: list[Id] = [one for one in keys if places.found(tx, one, own) is not None]
    assert left == keys[gone:]
