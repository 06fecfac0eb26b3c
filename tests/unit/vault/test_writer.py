"""Objects that are written piece by piece: kept whole or not at all, whatever happens on the way."""

import contextlib
import os
import resource
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.accounts import tables as accounts
from keepless.clock import DAY_MS
from keepless.content import Content, Purpose
from keepless.db import Database
from keepless.expiry.orphans import GRACE_MS
from keepless.ids import Id, Prefix, mint
from keepless.policy.data_class import DataClass
from keepless.vault.errors import LocationRedError, NotKeptError, StaleEpochError, StoreFailedError
from keepless.vault.locations import Finding, Light, Property
from keepless.vault.rows import Kept
from keepless.vault.states import Step
from keepless.vault.tables import intent, kept, kept_total
from keepless.vault.writer import LONGEST_LABEL, ObjectWriter
from tests.support.accounts import make_organization
from tests.support.vault import CrashError, Rig, make_rig

MARKER = b"marker-5b2e the customer's own words\n"


@pytest.fixture
def rig(database: Database, tmp_path: Path) -> Rig:
    return make_rig(database, tmp_path)


@pytest.fixture
def owner(database: Database) -> tuple[Id, Id]:
    return make_organization(database)


def count(rig: Rig, table: sa.Table) -> int:
    with rig.database.read() as tx:
        return tx.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def assert_nothing_kept(rig: Rig) -> None:
    assert count(rig, kept) == count(rig, intent) == 0
    assert list(rig.store.listed(2**62)) == []
    assert rig.store.leftovers(2**62) == []
    with rig.database.read() as tx:
        assert rig.log.size(tx) == 0


def write(writer: ObjectWriter, data: bytes, piece: int = 300_000) -> None:
    for at in range(0, len(data), piece):
        writer.write(Content(data[at : at + piece]))


def keep(rig: Rig, owner: tuple[Id, Id], data: bytes, label: bytes | None = None) -> Kept:
    with rig.vault.writing(owner[0]) as writer:
        write(writer, data)
        permit = rig.permit(*owner, DataClass.BATCH_INPUT)
        return writer.commit(permit, label=None if label is None else Content(label))


@pytest.mark.parametrize("size", [0, 1, 1_000_000, 3_500_000])
def test_what_was_written_is_read(rig: Rig, owner: tuple[Id, Id], size: int) -> None:
    data = os.urandom(size)
    row = keep(rig, owner, data, b"name.jsonl")
    assert rig.vault.read(row.id, owner[0], Purpose.CUSTOMER).reveal(Purpose.CUSTOMER) == data
    assert row.size == len(rig.store.get(row.blob))
    assert row.expires_at == rig.clock.now_ms() + 30 * DAY_MS
    assert count(rig, intent) == 0
    with rig.database.read() as tx:
        (total,) = tx.execute(sa.select(kept_total)).all()
        (entry,) = rig.log.entries(tx)
    assert (total.objects, total.bytes, entry.object_id) == (1, row.size, row.id)


def test_neither_content_nor_label_is_anywhere_on_disk(rig: Rig, owner: tuple[Id, Id], tmp_path: Path) -> None:
    with rig.vault.writing(owner[0]) as writer:
        write(writer, MARKER * 100_000)
        staged = [path for path in tmp_path.rglob("*#*") if path.is_file()]
        assert len(staged) == 1
        assert staged[0].stat().st_size > 2_000_000
        writer.commit(rig.permit(*owner, DataClass.BATCH_INPUT), label=Content(MARKER))
        rig.database.checkpoint()
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if MARKER[:12] in path.read_bytes()]
    with rig.database.read() as tx:
        assert MARKER[:12] not in tx.execute(sa.select(kept.c.label)).scalar_one()


def test_without_a_commit_nothing_is_kept(rig: Rig, owner: tuple[Id, Id]) -> None:
    with rig.vault.writing(owner[0]) as writer:
        write(writer, MARKER * 50_000)
    assert_nothing_kept(rig)
    with contextlib.suppress(RuntimeError), rig.vault.writing(owner[0]) as writer:
        write(writer, MARKER)
        raise RuntimeError
    assert_nothing_kept(rig)
    writer.abort()
    with pytest.raises(ValueError, match="no more"):
        writer.write(Content(b"x"))
    with pytest.raises(ValueError, match="ended"):
        writer.commit(rig.permit(*owner, DataClass.BATCH_INPUT))


def test_a_committed_writer_is_not_undone_by_leaving(rig: Rig, owner: tuple[Id, Id]) -> None:
    with contextlib.suppress(RuntimeError), rig.vault.writing(owner[0]) as writer:
        writer.write(Content(MARKER))
        row = writer.commit(rig.permit(*owner, DataClass.BATCH_INPUT))
        raise RuntimeError
    assert rig.vault.read(row.id, owner[0], Purpose.CUSTOMER).size == len(MARKER)


def test_a_policy_that_changed_meanwhile_is_decided_again_and_committed_with(rig: Rig, owner: tuple[Id, Id]) -> None:
    table = accounts.organization
    with rig.vault.writing(owner[0]) as writer:
        writer.write(Content(MARKER))
        stale = rig.permit(*owner, DataClass.BATCH_INPUT)
        with rig.database.write() as tx:
            tx.execute(table.update().values(epoch=table.c.epoch + 1))
        with pytest.raises(StaleEpochError):
            writer.commit(stale)
        assert count(rig, kept) == 0
        row = writer.commit(rig.permit(*owner, DataClass.BATCH_INPUT, epoch=2))
    assert rig.vault.read(row.id, owner[0], Purpose.CUSTOMER).reveal(Purpose.CUSTOMER) == MARKER


def test_it_begins_only_for_an_organization_and_a_location_that_stand(
    database: Database, rig: Rig, owner: tuple[Id, Id], tmp_path: Path
) -> None:
    with pytest.raises(StaleEpochError):
        rig.vault.writing(mint(Prefix.ORGANIZATION))
    red = make_rig(database, tmp_path / "red", check=lambda: ("us", [Finding(Property.VERSIONING, Light.RED)]))
    with pytest.raises(LocationRedError):
        red.vault.writing(owner[0])
    assert_nothing_kept(rig)
    assert_nothing_kept(red)


def test_the_door_takes_nothing_but_content_and_a_permit_of_the_owner(rig: Rig, owner: tuple[Id, Id]) -> None:
    with rig.vault.writing(owner[0]) as writer:
        for act in (lambda: writer.write(b"x"), lambda: writer.commit(None)):
            with pytest.raises(TypeError):
                act()
        with pytest.raises(ValueError, match="another"):
            writer.commit(rig.permit(mint(Prefix.ORGANIZATION), owner[1], DataClass.BATCH_INPUT))
        with pytest.raises(ValueError, match="label"):
            writer.commit(rig.permit(*owner, DataClass.BATCH_INPUT), label=Content(b"x" * (LONGEST_LABEL + 1)))
    assert_nothing_kept(rig)


def test_rows_of_the_caller_are_written_with_the_object_or_not_at_all(rig: Rig, owner: tuple[Id, Id]) -> None:
    def with_it(tx: Connection, row: Kept) -> None:
        tx.execute(accounts.project.update().where(accounts.project.c.id == owner[1]).values(name=row.id))

    def failing(tx: Connection, row: Kept) -> None:
        with_it(tx, row)
        raise StoreFailedError("no room")

    def name() -> str:
        with rig.database.read() as tx:
            return tx.execute(sa.select(accounts.project.c.name)).scalar_one()

    before = name()
    with rig.vault.writing(owner[0]) as writer, pytest.raises(StoreFailedError):
        writer.commit(rig.permit(*owner, DataClass.BATCH_INPUT), within=failing)
    assert name() == before
    assert_nothing_kept(rig)
    with rig.vault.writing(owner[0]) as writer:
        row = writer.commit(rig.permit(*owner, DataClass.BATCH_INPUT), within=with_it)
    assert name() == row.id
    second = rig.vault.put(Content(b"x"), rig.permit(*owner, DataClass.BATCH_INPUT), within=with_it)
    assert name() == second.id


@pytest.mark.parametrize("step", [Step.INTENT, Step.BLOB, Step.KEK_FILE, Step.KEK_ROW, Step.COMMIT])
def test_a_crash_leaves_the_whole_object_or_what_a_sweep_undoes(rig: Rig, owner: tuple[Id, Id], step: Step) -> None:
    rig.crash.step = step
    begun: list[ObjectWriter] = []

    def live() -> None:
        begun.append(rig.vault.writing(owner[0]))  # no `with`: nobody cleans up after a crash
        write(begun[0], MARKER * 40_000)
        begun[0].commit(rig.permit(*owner, DataClass.BATCH_INPUT))

    with pytest.raises(CrashError):
        live()
    rig.restart()
    if step is Step.COMMIT:
        assert rig.vault.read(begun[0].object_id, owner[0], Purpose.CUSTOMER).size == len(MARKER) * 40_000
        return
    assert count(rig, kept) == 0
    for blob in _intents(rig):
        assert rig.vault.strays.abandon(rig.store.name, blob)
    for leftover in rig.store.leftovers(2**62):
        rig.store.drop(leftover)
    assert_nothing_kept(rig)


def test_a_crash_while_pieces_come_leaves_a_leftover_only(rig: Rig, owner: tuple[Id, Id]) -> None:
    writer = rig.vault.writing(owner[0])
    write(writer, MARKER * 50_000)
    assert list(rig.store.listed(2**62)) == []
    (leftover,) = rig.store.leftovers(2**62)
    rig.store.drop(leftover)
    (blob,) = _intents(rig)
    assert rig.vault.strays.abandon(rig.store.name, blob)
    assert_nothing_kept(rig)


def _intents(rig: Rig) -> list[Id]:
    with rig.database.read() as tx:
        return list(tx.execute(sa.select(intent.c.blob)).scalars())


def test_who_takes_longer_than_the_grace_keeps_nothing(rig: Rig, owner: tuple[Id, Id]) -> None:
    with rig.vault.writing(owner[0]) as writer:
        writer.write(Content(MARKER))
        rig.clock.advance_ms(GRACE_MS + 1)
        rig.guard.check()
        (blob,) = _intents(rig)
        rig.vault.strays.abandon(rig.store.name, blob)
        with pytest.raises(StoreFailedError, match="orphan"):
            writer.commit(rig.permit(*owner, DataClass.BATCH_INPUT))
    assert list(rig.vault.strays.blobs(rig.store.name, 2**62)) == [blob]  # as an orphan, it goes with the next audit
    assert rig.vault.strays.destroy_blobs(rig.store.name, [blob]) == [blob]
    assert_nothing_kept(rig)


def test_a_disk_that_is_full_half_way_keeps_nothing(rig: Rig, owner: tuple[Id, Id]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with rig.vault.writing(owner[0]) as writer:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, hard))  # as a full disk, the kernel refuses to write on
        try:
            with pytest.raises(StoreFailedError):
                write(writer, MARKER * 100_000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert_nothing_kept(rig)


def test_what_was_streamed_expires_like_anything_else(rig: Rig, owner: tuple[Id, Id]) -> None:
    row = keep(rig, owner, MARKER)
    rig.clock.advance_ms(30 * DAY_MS)
    with pytest.raises(NotKeptError):
        rig.vault.read(row.id, owner[0], Purpose.CUSTOMER)
