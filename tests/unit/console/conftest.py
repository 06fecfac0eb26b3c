"""One console a test, on SQLite; one a module for tests that leave nothing that others would see."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from keepless.db import Database
from tests.support.console import Console, console


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Console]:
    db = Database(f"sqlite:///{tmp_path}/keepless.sqlite")
    db.create_all()
    with console(db, tmp_path) as found:
        yield found
    db.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    folder = tmp_path_factory.mktemp("console")
    db = Database(f"sqlite:///{folder}/keepless.sqlite")
    db.create_all()
    with console(db, folder) as found:
        yield found
    db.close()
