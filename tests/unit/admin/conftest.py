"""One platform a test, on SQLite; what depends on the database asks for `anywhere`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from keepless.db import Database
from tests.support.platform import Platform, platform
from tests.support.sqlite import fresh


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Platform]:
    """A platform on SQLite."""
    db = fresh(tmp_path)
    with platform(db, tmp_path) as found:
        yield found
    db.close()


@pytest.fixture
def anywhere(database: Database, tmp_path: Path) -> Iterator[Platform]:
    """A platform on SQLite and on PostgreSQL."""
    with platform(database, tmp_path) as found:
        yield found
