"""What is due, on both databases, and what it costs to ask."""

from collections.abc import Iterator

import pytest

from keepless.accounts.tables import organization, period, ratchet
from keepless.clock import DAY_MS
from keepless.db import Database
from keepless.expiry import due
from keepless.ids import Id, Prefix, mint
from keepless.policy.data_class import DataClass
from keepless.vault.states import Cause, PurgeState
from keepless.vault.tables import purge
from tests.support import rows
from tests.support.rows import NOW


@pytest.fixture
def owner(database: Database) -> tuple[Id, Id]:
    with database.write() as tx:
        organization_id = rows.organization(tx)
        return organization_id, rows.project(tx, organization_id)


def everything(database: Database, now_ms: int, limit: int = 500) -> dict[Id, Cause]:
    """Every due object with the cause of the first scope that names it."""
    found: dict[Id, Cause] = {}
    with database.read() as tx:
        for scope in due.scopes(tx, now_ms):
            for item in batches(tx, scope, limit):
                found.setdefault(item.id, scope.cause)
    return found


def batches(tx, scope: due.Scope, limit: int) -> Iterator[due.Due]:
    last = None
    while page := due.batch(tx, scope, after=last, limit=limit):
        assert len(page) <= limit
        yield from page
        last = page[-1]


def test_the_written_end_is_the_first_instant_that_is_due(database: Database, owner: tuple[Id, Id]) -> None:
    with database.write() as tx:
        ended = rows.kept_rows(tx, 3, *owner, expires_at=NOW)
        rows.kept_rows(tx, 3, *owner, expires_at=NOW + 1)
        rows.kept_rows(tx, 3, *owner, expires_at=None, data_class=DataClass.MODEL_WEIGHTS)
    assert everything(database, NOW - 1) == {}
    assert everything(database, NOW) == dict.fromkeys(ended, Cause.EXPIRED)


def test_batches_visit_every_due_object_once_oldest_first(database: Database, owner: tuple[Id, Id]) -> None:
    with database.write() as tx:
        for age in (3, 1, 2):
            rows.kept_rows(tx, 7, *owner, expires_at=NOW - age)
    with database.read() as tx:
        (scope,) = due.scopes(tx, NOW)
        seen = list(batches(tx, scope, 4))
    assert [item.at_ms for item in seen] == [NOW - 3] * 7 + [NOW - 2] * 7 + [NOW - 1] * 7
    assert len({item.id for item in seen}) == 21


@pytest.mark.parametrize("narrowed", [False, True], ids=["organization", "project"])
def test_a_shortened_period_ends_older_objects_of_its_class_at_once(
    database: Database, owner: tuple[Id, Id], narrowed: bool
) -> None:
    organization_id, project_id = owner
    with database.write() as tx:
        sibling = rows.project(tx, organization_id)
        key = {"organization_id": organization_id, "project_id": project_id if narrowed else ""}
        tx.execute(period.insert().values(key | {"data_class": DataClass.RELIABILITY_LOG, "days": 7}))
        mine = rows.kept_rows(tx, 2, *owner, created_at=NOW - 7 * DAY_MS)
        theirs = rows.kept_rows(tx, 2, organization_id, sibling, created_at=NOW - 7 * DAY_MS)
        rows.kept_rows(tx, 2, *owner, created_at=NOW - 7 * DAY_MS + 1)
        rows.kept_rows(tx, 2, *owner, created_at=NOW - 9 * DAY_MS, data_class=DataClass.ABUSE_LOG)
        stranger = rows.organization(tx)
        rows.kept_rows(tx, 2, stranger, rows.project(tx, stranger), created_at=NOW - 9 * DAY_MS)
    assert everything(database, NOW) == dict.fromkeys(mine if narrowed else mine + theirs, Cause.EXPIRED)


def test_a_ratchet_binds_only_what_was_there_before_it(database: Database, owner: tuple[Id, Id]) -> None:
    organization_id, _ = owner
    lengthened_at = NOW - 8 * DAY_MS
    with database.write() as tx:
        key = {"organization_id": organization_id, "project_id": "", "data_class": DataClass.RELIABILITY_LOG}
        tx.execute(ratchet.insert().values(key | {"created_before": lengthened_at, "days": 7}))
        bound = rows.kept_rows(tx, 1, *owner, created_at=lengthened_at - 1)
        rows.kept_rows(tx, 1, *owner, created_at=lengthened_at)
    assert set(everything(database, NOW)) == set(bound)


def insert_purge(tx, organization_id: Id, classes: list[DataClass], **values: object) -> Id:
    row = {
        "id": mint(Prefix.PURGE),
        "organization_id": organization_id,
        "project_id": None,
        "classes": due.mask_of(classes),
        "epoch": 2,
        "created_at": NOW,
        "state": PurgeState.RUNNING,
        "objects": 0,
        "bytes": 0,
    } | values
    tx.execute(purge.insert().values(row))
    return row["id"]


def test_a_running_purge_covers_its_classes_under_earlier_epochs(database: Database, owner: tuple[Id, Id]) -> None:
    organization_id, project_id = owner
    with database.write() as tx:
        sibling = rows.project(tx, organization_id)
        condemned = rows.kept_rows(tx, 2, *owner)
        also = rows.kept_rows(tx, 2, organization_id, sibling, data_class=DataClass.ABUSE_LOG)
        rows.kept_rows(tx, 2, *owner, epoch=2)
        rows.kept_rows(tx, 2, *owner, data_class=DataClass.BATCH_INPUT)
        insert_purge(tx, organization_id, [DataClass.RELIABILITY_LOG, DataClass.ABUSE_LOG])
    assert everything(database, NOW) == dict.fromkeys(condemned + also, Cause.CONTROLS)
    with database.write() as tx:
        tx.execute(purge.update().values(project_id=project_id))
    assert everything(database, NOW) == dict.fromkeys(condemned, Cause.CONTROLS)
    with database.write() as tx:
        tx.execute(organization.update().values(deleted_at=NOW))
    assert everything(database, NOW) == dict.fromkeys(condemned, Cause.ACCOUNT)
    with database.write() as tx:
        tx.execute(purge.update().values(state=PurgeState.PARTIAL))
    assert everything(database, NOW) == {}


def test_what_a_hold_keeps_is_out_of_the_way(database: Database, owner: tuple[Id, Id]) -> None:
    organization_id, _ = owner
    with database.write() as tx:
        rows.kept_rows(tx, 2, *owner, expires_at=NOW - 1, created_at=NOW - 9 * DAY_MS, hold_id="hold_x")
        insert_purge(tx, organization_id, [DataClass.RELIABILITY_LOG])
        key = {"organization_id": organization_id, "project_id": "", "data_class": DataClass.RELIABILITY_LOG}
        tx.execute(period.insert().values(key | {"days": 1}))
    assert everything(database, NOW) == {}


def test_classes_survive_the_bit_mask() -> None:
    for data_class in DataClass:
        assert due.classes_of(due.mask_of([data_class])) == (data_class,)
    assert due.classes_of(due.mask_of(DataClass)) == tuple(DataClass)
    assert due.mask_of([DataClass.ABUSE_LOG] * 2) == due.mask_of([DataClass.ABUSE_LOG])


def test_no_question_reads_what_is_not_due(database: Database, owner: tuple[Id, Id]) -> None:
    organization_id, project_id = owner
    with database.write() as tx:
        rows.kept_rows(tx, 4000, *owner)
        rows.kept_rows(tx, 4000, *owner, created_at=NOW - 9 * DAY_MS, data_class=DataClass.BATCH_INPUT)
        rows.kept_rows(tx, 3, *owner, expires_at=NOW)
        for days, data_class in enumerate(DataClass, 1):
            key = {"organization_id": organization_id, "project_id": "", "data_class": data_class}
            tx.execute(period.insert().values(key | {"days": days}))
            tx.execute(ratchet.insert().values(key | {"days": days, "created_before": NOW}))
        tx.exec_driver_sql("ANALYZE")
    ends = due.Scope(Cause.EXPIRED, NOW)
    ages = due.Scope(Cause.EXPIRED, NOW - DAY_MS, organization_id, project_id, DataClass.RELIABILITY_LOG)
    after = due.Due(mint(Prefix.OBJECT), NOW - 2 * DAY_MS)
    with database.read() as tx:
        for statement, index in [
            (due.statement(ends), "kept_by_end"),
            (due.statement(ends, after=after), "kept_by_end"),
            (due.statement(ages), "kept_by_age"),
            (due.statement(ages, after=after), "kept_by_age"),
            (due.shortened_statement(period, NOW), "kept_by_age"),
            (due.shortened_statement(ratchet, NOW), "kept_by_age"),
        ]:
            plan = rows.plan(tx, statement)
            assert index in plan
            assert "SCAN kept USING" not in plan.replace(f"SCAN kept USING COVERING INDEX {index}", "")
            assert "Seq Scan on kept " not in plan
            assert "TEMP B-TREE" not in plan
