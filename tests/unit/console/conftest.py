"""One console a test, on SQLite."""

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
