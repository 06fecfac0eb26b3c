"""One console a test, on SQLite; one a module for tests that leave nothing that others would see."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.console import Console, console
from tests.support.sqlite import fresh


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Console]:
    db = fresh(tmp_path)
    with console(db, tmp_path) as found:
        yield found
    db.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    folder = tmp_path_factory.mktemp("console")
    db = fresh(folder)
    with console(db, folder) as found:
        yield found
    db.close()
