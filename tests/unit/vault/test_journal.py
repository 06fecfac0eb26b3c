"""Journals on every kind of store: what was appended is there, what was not committed is not, and all of it goes."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.accounts import tables as accounts
from keepless.clock import DAY_MS
from keepless.content import Content, Purpose
from keepless.db import Database
from keepless.expiry.orphans import Orphans
from keepless.expiry.report import Report
from keepless.ids import Id, Prefix, mint
from keepless.policy.data_class import DataClass
from keepless.receipts.statement import EntryKind
from keepless.vault.blobs import FileBlobs, MemoryBlobs
from keepless.vault.errors import LocationRedError, NotKeptError, NotOpenedError, StaleEpochError, StoreFailedError
from keepless.vault.journal import Journal
from keepless.vault.rows import Kept
from keepless.vault.states import Cause, Step
from keepless.vault.tables import intent, kept, kept_total
from tests.support.accounts import make_organization
from tests.support.vault import CrashError, Rig, make_rig

EVER = 2**62
MARKER = b"marker-91d0 what a model answered"


@pytest.fixture(params=["file", "parts"])
def rig(database: Database, tmp_path: Path, request: pytest.FixtureRequest) -> Rig:
    return make_rig(database, tmp_path, store=None if request.param == "file" else MemoryBlobs())


@pytest.fixture
def owner(database: Database) -> tuple[Id, Id]:
    return make_organization(database)


def opened(rig: Rig, owner: tuple[Id, Id], **options: int) -> Journal:
    return rig.vault.journal(rig.permit(*owner, DataClass.BATCH_WORK, **options))


def append(journal: Journal, *records: bytes) -> None:
    journal.append([Content(record) for record in records])


def records(rig: Rig, journal: Journal) -> list[bytes]:
    found = rig.vault.journal_records(journal.object_id, journal.row.organization_id)
    return [record.reveal(Purpose.PROVE) for record in found]


def totals(rig: Rig) -> tuple[int, int]:
    with rig.database.read() as tx:
        row = tx.execute(sa.select(kept_total)).one()
    return row.objects, row.bytes


def size(rig: Rig, journal: Journal) -> int:
    with rig.database.read() as tx:
        return tx.execute(sa.select(kept.c.bytes).where(kept.c.id == journal.object_id)).scalar_one()


def destroy(rig: Rig, journal: Journal) -> None:
    with rig.database.write() as tx:
        shredding = rig.vault.shred(tx, [journal.object_id], Cause.JOB_ENDED)
    erased = rig.vault.erase(shredding.shredded)
    with rig.database.write() as tx:
        assert rig.vault.settle(tx, erased) == 1


def test_what_was_appended_is_read_in_order(rig: Rig, owner: tuple[Id, Id], tmp_path: Path) -> None:
    journal = opened(rig, owner)
    assert records(rig, journal) == []
    assert totals(rig) == (1, 1)
    append(journal, MARKER, b"", b"two")
    append(journal)
    append(journal, b"x" * 3_000_000, b"y" * 3_000_000)
    append(journal, b"three")
    assert records(rig, journal) == [MARKER, b"", b"two", b"x" * 3_000_000, b"y" * 3_000_000, b"three"]
    assert totals(rig) == (1, size(rig, journal))
    rig.database.checkpoint()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if MARKER[:12] in path.read_bytes()]
    with rig.database.read() as tx:
        (entry,) = rig.log.entries(tx)
    assert (entry.kind, entry.object_id) == (EntryKind.CAPTURED, journal.object_id)


def test_what_is_kept_with_a_journal_is_there_with_it_or_neither_is(rig: Rig, owner: tuple[Id, Id]) -> None:
    named: list[Id] = []
    permit = rig.permit(*owner, DataClass.BATCH_WORK)
    journal = rig.vault.journal(permit, within=lambda _, row: named.append(row.id))
    assert named == [journal.object_id]

    def refuse(tx: Connection, row: Kept) -> None:
        assert tx.scalar(sa.select(kept.c.id).where(kept.c.id == row.id)) == row.id
        raise NotKeptError("it may not be named")

    with pytest.raises(NotKeptError):
        rig.vault.journal(permit, within=refuse)
    assert list(rig.store.listed(EVER)) == [journal.row.blob]
    assert totals(rig) == (1, 1)


def test_a_journal_goes_with_all_its_parts(rig: Rig, owner: tuple[Id, Id]) -> None:
    journal, other = opened(rig, owner), opened(rig, owner)
    for _ in range(3):
        append(journal, MARKER)
    append(other, b"stays")
    assert sorted(rig.store.listed(EVER)) == sorted([journal.row.blob, other.row.blob])
    destroy(rig, journal)
    assert list(rig.store.listed(EVER)) == [other.row.blob]
    with pytest.raises(NotKeptError):
        records(rig, journal)
    with pytest.raises((NotKeptError, StoreFailedError)):
        append(journal, b"late")
    report = Report()
    for blob in list(rig.vault.strays.blobs(rig.store.name, EVER)):
        assert rig.vault.strays.destroy_blobs(rig.store.name, [blob]) == [blob]
    Orphans(rig.database, rig.clock, rig.vault).audit(report)
    assert report.clean
    assert records(rig, other) == [b"stays"]
    assert list(rig.store.listed(EVER)) == [other.row.blob]


def test_an_empty_journal_is_no_finding(rig: Rig, owner: tuple[Id, Id]) -> None:
    opened(rig, owner)
    rig.clock.advance_ms(DAY_MS)
    report = Report()
    Orphans(rig.database, rig.clock, rig.vault).audit(report)
    assert report.findings == []


def test_a_journal_expires_like_anything_else(rig: Rig, owner: tuple[Id, Id], database: Database) -> None:
    journal = opened(rig, owner)
    append(journal, MARKER)
    other, _ = make_organization(database)
    with pytest.raises(NotKeptError):
        rig.vault.journal_records(journal.object_id, other)
    rig.pass_days(30)
    with pytest.raises(NotKeptError):
        records(rig, journal)


def test_a_changed_policy_ends_it_and_another_one_goes_on(rig: Rig, owner: tuple[Id, Id], database: Database) -> None:
    journal = opened(rig, owner)
    append(journal, b"one")
    table = accounts.organization
    with database.write() as tx:
        tx.execute(table.update().values(epoch=table.c.epoch + 1))
    with pytest.raises(StaleEpochError):
        append(journal, b"two")
    with pytest.raises(StoreFailedError, match="no more"):
        append(journal, b"two")
    with pytest.raises(StaleEpochError):
        opened(rig, owner)
    assert records(rig, journal) == [b"one"]
    second = opened(rig, owner, epoch=2)
    append(second, b"two")
    assert records(rig, second) == [b"two"]


def test_it_takes_nothing_but_content_and_a_permit(rig: Rig, owner: tuple[Id, Id]) -> None:
    with pytest.raises(TypeError):
        rig.vault.journal(None)
    journal = opened(rig, owner)
    with pytest.raises(TypeError):
        journal.append([b"bytes"])
    append(journal, b"still open")


def test_a_location_that_turned_red_takes_nothing_more(rig: Rig, owner: tuple[Id, Id]) -> None:
    journal = opened(rig, owner)
    rig.clock.advance_ms(3 * 3_600_000)
    with pytest.raises(LocationRedError):
        append(journal, b"x")
    rig.guard.check()
    assert records(rig, journal) == []


@pytest.mark.parametrize("step", [Step.INTENT, Step.KEK_FILE, Step.KEK_ROW, Step.BLOB, Step.COMMIT])
def test_a_crash_while_it_is_opened_leaves_nothing_that_is_not_accounted_for(
    rig: Rig, owner: tuple[Id, Id], step: Step
) -> None:
    rig.crash.step = step
    with pytest.raises(CrashError):
        opened(rig, owner)
    rig.restart()
    with rig.database.read() as tx:
        intents = list(tx.execute(sa.select(intent.c.blob)).scalars())
        rows = list(tx.execute(sa.select(kept.c.blob)).scalars())
    assert len(rows) == (1 if step is Step.COMMIT else 0)
    for blob in intents:
        assert rig.vault.strays.abandon(rig.store.name, blob)
    assert list(rig.store.listed(EVER)) == rows


@pytest.mark.parametrize("step", [Step.GROUP, Step.COMMIT])
def test_a_kill_between_append_and_commit_loses_that_group_alone(rig: Rig, owner: tuple[Id, Id], step: Step) -> None:
    journal = opened(rig, owner)
    append(journal, b"one")
    rig.crash.step = step
    with pytest.raises(CrashError):
        append(journal, b"two", b"three")
    rig.restart()
    there = [b"one"] if step is Step.GROUP else [b"one", b"two", b"three"]
    assert records(rig, journal) == there
    second = opened(rig, owner)
    append(second, b"two", b"three")
    assert records(rig, second) == [b"two", b"three"]
    destroy(rig, journal)
    assert list(rig.store.listed(EVER)) == [second.row.blob]


def test_a_group_that_was_torn_is_noise(rig: Rig, owner: tuple[Id, Id]) -> None:
    journal = opened(rig, owner)
    append(journal, b"one")
    rig.store.append(journal.row.blob, size(rig, journal), 2, b"half of a gro")
    assert records(rig, journal) == [b"one"]


@pytest.mark.parametrize("committed", [True, False])
def test_a_connection_that_dies_during_the_commit(
    rig: Rig, owner: tuple[Id, Id], monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    journal = opened(rig, owner)
    write = rig.database.write

    @contextlib.contextmanager
    def dying() -> Iterator[sa.Connection]:
        with write() as tx:
            yield tx
            if not committed:
                raise sa.exc.OperationalError(None, None, Exception("gone"))
        raise sa.exc.OperationalError(None, None, Exception("gone"))

    monkeypatch.setattr(rig.database, "write", dying)
    if committed:
        append(journal, b"one")
    else:
        with pytest.raises(StoreFailedError):
            append(journal, b"one")
    monkeypatch.setattr(rig.database, "write", write)
    assert records(rig, journal) == ([b"one"] if committed else [])


def test_a_row_that_was_shortened_by_hand_does_not_open(rig: Rig, owner: tuple[Id, Id], database: Database) -> None:
    journal = opened(rig, owner)
    append(journal, b"one")
    before = size(rig, journal)
    append(journal, b"two")
    with database.write() as tx:
        tx.execute(kept.update().values(bytes=before))
    with pytest.raises(NotOpenedError):
        records(rig, journal)
    with database.write() as tx:
        tx.execute(kept.update().values(label=None))
    with pytest.raises(NotOpenedError):
        records(rig, journal)


def test_a_journal_is_not_read_as_an_object(rig: Rig, owner: tuple[Id, Id]) -> None:
    journal = opened(rig, owner)
    append(journal, b"one")
    with pytest.raises(NotOpenedError):
        rig.vault.read(journal.object_id, owner[0], Purpose.CUSTOMER)


def test_a_file_that_is_gone_is_not_made_anew(database: Database, tmp_path: Path, owner: tuple[Id, Id]) -> None:
    rig = make_rig(database, tmp_path)
    assert isinstance(rig.store, FileBlobs)
    journal = opened(rig, owner)
    assert rig.store.delete([journal.row.blob]) == [journal.row.blob]
    with pytest.raises(StoreFailedError):
        append(journal, b"one")
    assert list(rig.store.listed(EVER)) == []
    with pytest.raises(StoreFailedError):
        rig.store.append(mint(Prefix.JOURNAL), 5, 1, b"x")
