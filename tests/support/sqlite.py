"""SQLite databases for tests: made once, then copied, because their tables cost more than most tests."""

from pathlib import Path

from keepless.db import Database, metadata

_made: dict[int, bytes] = {}


def fresh(folder: Path) -> Database:
    """A database with every table that has been imported, and nothing in them: `keepless.sqlite` in a folder."""
    file, tables = folder / "keepless.sqlite", len(metadata.tables)
    if tables not in _made:
        first = Database(f"sqlite:///{file}")
        first.create_all()
        first.close()
        _made[tables] = file.read_bytes()
    file.write_bytes(_made[tables])
    return Database(f"sqlite:///{file}")
