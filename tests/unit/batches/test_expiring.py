"""Results that nobody has downloaded are announced three days before they end, once; nothing else is."""

import io
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from keepless.batches.expiring import Expiring, quiet_after
from keepless.clock import DAY_MS
from keepless.content import Content
from keepless.db import Database
from keepless.files.service import Intended
from keepless.files.values import File, FilePurpose
from keepless.ids import Id, Prefix, mint
from keepless.log import redirect
from keepless.policy.data_class import DataClass
from keepless.webhooks.events import EventType, mask_of
from keepless.webhooks.tables import webhook_delivery, webhook_endpoint
from tests.support.accounts import make_organization
from tests.support.files import Shelf, make_shelf
from tests.support.rows import plan
from tests.support.vault import make_rig


@pytest.fixture
def shelf(database: Database, tmp_path: Path) -> Shelf:
    return make_shelf(database, make_rig(database, tmp_path))


@pytest.fixture
def owner(database: Database) -> tuple[Id, Id]:
    made = make_organization(database)
    with database.write() as tx:
        tx.execute(
            webhook_endpoint.insert().values(
                id=mint(Prefix.WEBHOOK), organization_id=made[0], name="x", url="https://example.com/",
                events=mask_of([EventType.FILE_EXPIRING]), created_at=0, updated_at=0, salt=b"s" * 32, hint="abcd",
            )
        )  # fmt: skip
    return made


def result(shelf: Shelf, owner: tuple[Id, Id], data_class: DataClass = DataClass.BATCH_OUTPUT) -> File:
    with shelf.files.writing(*owner) as writer:
        writer.write(Content(b"a line\n"))
        return writer.commit(Intended(FilePurpose.BATCH_OUTPUT, data_class, Content(b"MARKER")))[0]


def told(database: Database) -> list[tuple[str, Id, Id]]:
    row = webhook_delivery.c
    with database.read() as tx:
        return [tuple(one) for one in tx.execute(sa.select(row.event_type, row.subject_id, row.organization_id))]


def test_results_are_announced_three_days_before_their_end_and_once(
    shelf: Shelf, owner: tuple[Id, Id], database: Database
) -> None:
    output, errors = result(shelf, owner), result(shelf, owner, DataClass.BATCH_ERROR)
    shelf.keep(owner)  # an input is the customer's own
    result(shelf, make_organization(database))  # whose owner has no endpoint
    expiring = Expiring(database, shelf.rig.clock, shelf.rig.vault)
    shelf.rig.clock.advance_ms(27 * DAY_MS - 1)
    assert expiring.announce_due() == 0
    shelf.rig.clock.advance_ms(1)
    assert expiring.announce_due() == 3
    assert expiring.announce_due() == 0
    event = EventType.FILE_EXPIRING
    assert sorted(told(database)) == sorted((event, one.id, owner[0]) for one in (output, errors))


def test_what_was_downloaded_or_has_ended_is_not_announced(
    shelf: Shelf, owner: tuple[Id, Id], database: Database
) -> None:
    expiring = Expiring(database, shelf.rig.clock, shelf.rig.vault)
    taken, deleted = result(shelf, owner), result(shelf, owner)
    expiring.downloaded(taken.id)
    shelf.files.delete(deleted.id, *owner)
    late = result(shelf, owner)
    shelf.rig.clock.advance_ms(30 * DAY_MS)
    assert expiring.announce_due() == 0
    assert told(database) == []
    assert late.data_class is DataClass.BATCH_OUTPUT


def test_a_note_that_cannot_be_written_spoils_no_download(
    shelf: Shelf, owner: tuple[Id, Id], database: Database
) -> None:
    taken = result(shelf, owner)
    with database.write() as tx:
        tx.execute(sa.text("ALTER TABLE file RENAME TO gone"))
    said = io.StringIO()
    redirect(said)
    try:
        Expiring(database, shelf.rig.clock, shelf.rig.vault).downloaded(taken.id)
    finally:
        redirect(sys.stderr)
    assert taken.id in said.getvalue()


def test_what_nobody_has_downloaded_is_found_by_an_index(
    shelf: Shelf, owner: tuple[Id, Id], database: Database
) -> None:
    found = [result(shelf, owner), result(shelf, owner, DataClass.BATCH_ERROR)]
    shelf.keep(owner)
    first, second = sorted(one.id for one in found)
    with database.read() as tx:
        if not database.sqlite:  # of so few rows it would read them all
            tx.exec_driver_sql("SET LOCAL enable_seqscan = off")
        text = plan(tx, quiet_after(first))
        assert [row.id for row in tx.execute(quiet_after(""))] == [first, second]
        assert [row.id for row in tx.execute(quiet_after(first))] == [second]
    assert text.count("file_quiet") == 2, text
    assert "SCAN file" not in text
