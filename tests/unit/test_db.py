"""The database: bounded tables, transactions, and bytes that are gone after a delete."""

import enum

import pytest
import sqlalchemy as sa

from keepless.db import (
    Database,
    EnumText,
    Holds,
    IdText,
    among,
    bounded,
    insert_many,
    metadata,
    table,
    update_many,
)
from keepless.ids import Id, Prefix, mint


class Colour(enum.StrEnum):
    RED = "red"


probe = table(
    "probe",
    sa.Column("id", IdText, primary_key=True),
    sa.Column("colour", EnumText(Colour)),
    sa.Column("blob", sa.LargeBinary(64)),
    holds=Holds.CONTROL,
)


def test_write_commits_and_reads_back_typed(database: Database) -> None:
    key = mint(Prefix.OBJECT)
    with database.write() as tx:
        tx.execute(probe.insert().values(id=key, colour=Colour.RED))
    with database.read() as tx:
        row = tx.execute(sa.select(probe)).one()
    assert type(row.id) is Id and row.id == key and row.colour is Colour.RED


def test_a_raising_block_writes_nothing(database: Database) -> None:
    def write_and_fail() -> None:
        with database.write() as tx:
            tx.execute(probe.insert().values(id=mint(Prefix.OBJECT)))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    with database.read() as tx:
        assert tx.scalar(sa.select(sa.func.count()).select_from(probe)) == 0


def test_errors_hide_parameters(database: Database) -> None:
    key = mint(Prefix.OBJECT)
    with database.write() as tx:
        tx.execute(probe.insert().values(id=key, blob=b"MARKER"))
    with pytest.raises(sa.exc.IntegrityError) as caught, database.write() as tx:
        tx.execute(probe.insert().values(id=key, blob=b"MARKER"))
    assert "MARKER" not in str(caught.value)


@pytest.mark.parametrize(
    ("type_", "fits"),
    [
        (sa.Text(), False),
        (sa.String(), False),
        (sa.String(4000), False),
        (sa.JSON(), False),
        (sa.LargeBinary(), False),
        (sa.String(200), True),
        (sa.LargeBinary(80), True),
        (sa.BigInteger(), True),
        (IdText(), True),
    ],
)
def test_only_bounded_columns(type_: sa.types.TypeEngine[object], fits: bool) -> None:
    assert bounded(type_) is fits
    if not fits:
        with pytest.raises(TypeError, match="no bound"):
            table("bad", sa.Column("x", type_), holds=Holds.CONTROL)
    assert "bad" not in metadata.tables


def test_a_table_must_say_what_it_holds() -> None:
    with pytest.raises(TypeError, match="declare what it holds"):
        table("bad", sa.Column("x", sa.Integer), holds="anything")
    assert "bad" not in metadata.tables


def test_every_declared_table_is_bounded() -> None:
    for declared in metadata.tables.values():
        assert isinstance(declared.info["holds"], Holds)
        assert all(bounded(column.type) for column in declared.columns)


def test_deleted_bytes_leave_the_sqlite_files(tmp_path) -> None:
    db = Database(f"sqlite:///{tmp_path}/x.sqlite")
    db.create_all()
    marker = b"MARKER-7f3a-MARKER"
    with db.write() as tx:
        tx.execute(probe.insert(), [{"id": mint(Prefix.OBJECT), "blob": marker} for _ in range(500)])
    assert any(marker in f.read_bytes() for f in tmp_path.iterdir())
    with db.write() as tx:
        tx.execute(probe.delete())
    assert db.checkpoint()
    assert not any(marker in f.read_bytes() for f in tmp_path.iterdir())
    db.close()


def test_a_text_that_is_no_member_is_not_read_as_one(database: Database) -> None:
    key = mint(Prefix.OBJECT)
    with database.write() as tx:
        insert_many(tx, probe, ("id", "colour"), [(str(key), "green")])
    with database.read() as tx, pytest.raises(ValueError, match="green"):
        tx.execute(sa.select(probe)).one()


@pytest.mark.parametrize("count", [0, 1, 3, 700])
def test_many_rows_are_updated_and_found_by_their_keys(database: Database, count: int) -> None:
    keys = [mint(Prefix.OBJECT) for _ in range(count)]
    other = mint(Prefix.OBJECT)
    with database.write() as tx:
        insert_many(tx, probe, ("id",), [(str(key),) for key in [*keys, other]])
        news = [(str(key), "red", b"%d" % at) for at, key in enumerate(keys)]
        update_many(tx, probe, "id", ("colour", "blob"), [*news, (str(mint(Prefix.OBJECT)), "red", b"")])
    with database.read() as tx:
        found = tx.execute(sa.select(probe).where(among(tx, probe.c.id, [*keys, mint(Prefix.OBJECT)]))).all()
        assert sorted(found) == sorted((key, Colour.RED, b"%d" % at) for at, key in enumerate(keys))
        assert tx.execute(sa.select(probe).where(probe.c.id == other)).one() == (other, None, None)
