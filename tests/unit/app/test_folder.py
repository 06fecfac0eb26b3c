"""The data folder: private, one server at a time, one schema."""

import stat
from pathlib import Path

import pytest
import sqlalchemy as sa

from keepless.app.folder import FolderLock, bring_up_to_date, prepare
from keepless.app.migrations.new import TABLES, difference
from keepless.db import Database
from keepless.errors import ConfigError


def test_a_folder_is_made_for_this_user_alone(tmp_path: Path) -> None:
    folder = prepare(str(tmp_path / "a" / "b"))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_open_to_others_is_closed(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o755)
    assert stat.S_IMODE(prepare(str(tmp_path / "d")).stat().st_mode) == 0o700


def test_a_file_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(ConfigError, match="data folder"):
        prepare(str(tmp_path / "f"))


def test_the_second_server_is_refused_until_the_first_has_gone(tmp_path: Path) -> None:
    first = FolderLock(tmp_path)
    with pytest.raises(ConfigError, match="another server"):
        FolderLock(tmp_path)
    first.release()
    FolderLock(tmp_path).release()


def empty(url: str) -> Database:
    return Database(url.replace("postgresql://", "postgresql+psycopg://", 1))


def test_the_migrations_make_exactly_the_declared_tables(database_url: str) -> None:
    db = empty(database_url)
    bring_up_to_date(db)
    assert difference(db).is_empty()
    assert set(sa.inspect(db.engine).get_table_names()) == {*TABLES, "alembic_version"}
    bring_up_to_date(db)  # again: nothing to do
    db.close()


def test_data_of_a_newer_version_is_refused_and_left_alone(database_url: str) -> None:
    db = empty(database_url)
    bring_up_to_date(db)
    with db.write() as tx:
        tx.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigError, match="newer Keepless"):
        bring_up_to_date(db)
    with db.read() as tx:
        assert tx.scalar(sa.text("SELECT version_num FROM alembic_version")) == "9999"
    db.close()
