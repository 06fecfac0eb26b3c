"""Tiles: canonical paths only, and a stranger can rebuild the signed root from them."""

import pytest

from keepless.db import Database
from keepless.receipts import merkle
from keepless.receipts.tiles import TilePath, parse_path, tile, tile_path
from tests.support.log import make_log
from tests.unit.receipts.test_log import append, entries

PATHS = {
    "0/000": TilePath(0, 0),
    "0/000.p/1": TilePath(0, 0, 1),
    "1/999.p/255": TilePath(1, 999, 255),
    "0/x001/000": TilePath(0, 1000),
    "0/x001/x234/067": TilePath(0, 1_234_067),
    "7/000.p/3": TilePath(7, 0, 3),
}
NOT_PATHS = [
    "",
    "0",
    "0/",
    "0/0",
    "0/00",
    "0/0000",
    "00/000",
    "8/000",
    "63/000",
    "-1/000",
    "0/x000/000",
    "0/001/000",
    "0/x001/x000",
    "0/000.p/0",
    "0/000.p/01",
    "0/000.p/256",
    "0/000.p/",
    "0/000/",
    "0/000\n",
    "entries/000",
    "0/\u0661\u0661\u0661",
]


@pytest.mark.parametrize("path", PATHS)
def test_paths_and_tiles_are_one_to_one(path: str) -> None:
    assert parse_path(path) == PATHS[path]
    assert tile_path(PATHS[path]) == path


@pytest.mark.parametrize("path", NOT_PATHS)
def test_no_other_spelling_names_a_tile(path: str) -> None:
    assert parse_path(path) is None


def test_the_signed_root_is_rebuilt_from_tiles(database: Database) -> None:
    log = make_log(database)
    append(database, log, entries(300))
    append(database, log, entries(300))
    head, _ = log.signed_head()
    frontier = merkle.Frontier()
    for path in ("0/000", "0/001", "0/002.p/88"):
        data = tile(database, log, path)
        assert data is not None
        for at in range(0, len(data), 32):
            frontier.append(data[at : at + 32])
    assert (frontier.size, frontier.root()) == (head.size, head.root)
    upper = tile(database, log, "1/000.p/2")
    first = tile(database, log, "0/000")
    assert upper is not None
    assert first is not None
    whole = merkle.Frontier()
    for at in range(0, len(first), 32):
        whole.append(first[at : at + 32])
    assert upper[:32] == whole.root()


@pytest.mark.parametrize("path", ["0/003", "0/002", "0/002.p/89", "1/000", "1/000.p/3", "2/000.p/1", "x"])
def test_what_has_not_grown_yet_is_not_there(database: Database, path: str) -> None:
    log = make_log(database)
    append(database, log, entries(600))
    assert tile(database, log, path) is None
