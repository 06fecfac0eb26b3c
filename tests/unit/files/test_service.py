"""Files: kept with their rows or not at all, seen by their project alone, gone when their object is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.accounts import tables as accounts
from keepless.clock import DAY_MS
from keepless.content import Content, Purpose
from keepless.db import Database
from keepless.errors import Problem
from keepless.files import store
from keepless.files.service import FileLimits
from keepless.files.tables import file
from keepless.files.values import UPLOADED, File, FilePurpose
from keepless.ids import Id, Prefix, mint
from keepless.policy.controls import RequestControls
from keepless.policy.data_class import DataClass
from keepless.policy.hold import HoldAuthority, HoldReason
from keepless.vault.errors import StoreFailedError
from keepless.vault.tables import kept, legal_hold
from tests.support.accounts import make_organization
from tests.support.files import Shelf, intended, make_shelf
from tests.support.vault import make_rig


@pytest.fixture
def shelf(database: Database, tmp_path: Path) -> Shelf:
    return make_shelf(database, make_rig(database, tmp_path))


@pytest.fixture
def owner(database: Database) -> tuple[Id, Id]:
    return make_organization(database)


def rows(database: Database, table: sa.Table = file) -> int:
    with database.read() as tx:
        return tx.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def refused(act: Callable[[], Any]) -> Problem:
    with pytest.raises(Problem) as caught:
        act()
    return caught.value


def set_controls(database: Database, **values: bool) -> None:
    table = accounts.organization
    with database.write() as tx:
        tx.execute(table.update().values(epoch=table.c.epoch + 1, **values))


def other_project(database: Database, organization_id: Id) -> Id:
    project_id = mint(Prefix.PROJECT)
    row = {"id": project_id, "organization_id": organization_id, "name": "", "created_at": 0, "generation": 0}
    with database.write() as tx:
        tx.execute(accounts.project.insert().values(row))
    return project_id


def test_what_was_kept_is_described_read_and_deleted(shelf: Shelf, owner: tuple[Id, Id], database: Database) -> None:
    one = shelf.keep(owner, b"one\ntwo\n", "my file")
    it = shelf.files.describe(one.id, *owner)
    assert (it.file, it.name) == (one, b"my file")
    assert it.ends_at == shelf.rig.clock.now_ms() + 30 * DAY_MS
    assert (one.size, one.created_at) == (8, shelf.rig.clock.now_ms())
    assert shelf.content(one) == b"one\ntwo\n"
    shelf.files.delete(one.id, *owner)
    for act in (
        lambda: shelf.files.describe(one.id, *owner),
        lambda: shelf.content(one),
        lambda: shelf.files.delete(one.id, *owner),
    ):
        assert refused(act).status == 404
    assert rows(database) == 0
    assert list(shelf.rig.store.listed(2**62)) == []


@pytest.mark.parametrize("purpose", list(UPLOADED))
def test_the_class_and_end_follow_the_purpose(shelf: Shelf, owner: tuple[Id, Id], purpose: FilePurpose) -> None:
    one = shelf.keep(owner, purpose=purpose)
    ends = {FilePurpose.BATCH: shelf.rig.clock.now_ms() + 30 * DAY_MS, FilePurpose.FINE_TUNE: None}
    assert (one.data_class, shelf.files.describe(one.id, *owner).ends_at) == (UPLOADED[purpose], ends[purpose])


def test_an_earlier_end_and_a_shorter_period_act_at_once(
    shelf: Shelf, owner: tuple[Id, Id], database: Database
) -> None:
    soon, late = shelf.keep(owner, ends_after_s=3600), shelf.keep(owner, ends_after_s=2_592_000)
    assert shelf.files.describe(soon.id, *owner).ends_at == soon.created_at + 3_600_000
    key = {"organization_id": owner[0], "project_id": "", "data_class": DataClass.BATCH_INPUT, "days": 2}
    with database.write() as tx:
        tx.execute(accounts.period.insert().values(key))
    assert shelf.files.describe(late.id, *owner).ends_at == late.created_at + 2 * DAY_MS
    shelf.rig.clock.advance_ms(3_600_000)
    assert refused(lambda: shelf.content(soon)).status == 404
    assert [it.file for it in shelf.files.page(*owner, limit=10)[0]] == [late]


def test_rows_of_what_ended_do_not_stay(shelf: Shelf, owner: tuple[Id, Id], database: Database) -> None:
    shelf.keep(owner, ends_after_s=3600)
    lives = shelf.keep(owner)
    assert shelf.files.forget_dead() == 0
    shelf.rig.clock.advance_ms(3_600_000)
    shelf.sweeper.sweep_once(confirm=True)
    assert rows(database) == 2
    assert shelf.files.forget_dead() == 1
    assert shelf.files.describe(lives.id, *owner).file == lives


def test_other_projects_and_organizations_see_nothing(shelf: Shelf, owner: tuple[Id, Id], database: Database) -> None:
    one = shelf.keep(owner)
    stranger = make_organization(database)
    beside = (owner[0], other_project(database, owner[0]))
    for who in (stranger, beside):
        for act in (
            lambda who=who: shelf.files.describe(one.id, *who),
            lambda who=who: shelf.files.open(one.id, *who, Purpose.CUSTOMER),
            lambda who=who: shelf.files.delete(one.id, *who),
            lambda who=who: shelf.files.page(*who, limit=5, after=one.id),
        ):
            assert refused(act).status == 404
        assert shelf.files.page(*who, limit=5) == ([], False)
    assert [it.file for it in shelf.files.page(owner[0], None, limit=5)[0]] == [one]
    shelf.files.delete(one.id, owner[0], None)


def test_pages_leave_out_the_dead_and_nothing_else(shelf: Shelf, owner: tuple[Id, Id]) -> None:
    made = []
    for n in range(12):
        made.append(shelf.keep(owner, ends_after_s=3600 if n % 3 == 0 else None, name=str(n)))
        shelf.rig.clock.advance_ms(n % 2)
    shelf.rig.clock.advance_ms(3_600_000)
    living = [one.id for n, one in enumerate(made) if n % 3]
    for oldest_first in (True, False):
        seen: list[Id] = []
        more, after = True, None
        while more:
            page, more = shelf.files.page(*owner, limit=3, after=after, oldest_first=oldest_first)
            assert len(page) <= 3
            seen += [it.file.id for it in page]
            after = seen[-1]
        place = {one.id: (one.created_at, one.id) for one in made}
        assert seen == sorted(living, key=place.__getitem__, reverse=not oldest_first)
    assert shelf.files.page(*owner, limit=20, purpose=FilePurpose.FINE_TUNE) == ([], False)
    assert len(shelf.files.page(*owner, limit=20, purpose=FilePurpose.BATCH)[0]) == 8


@pytest.mark.parametrize("oldest_first", [True, False], ids=["oldest first", "newest first"])
def test_a_file_deleted_between_two_pages_is_a_place_for_its_owner(
    shelf: Shelf, owner: tuple[Id, Id], database: Database, oldest_first: bool
) -> None:
    made = []
    for _ in range(7):
        made.append(shelf.keep(owner).id)
        shelf.rig.clock.advance_ms(1)
    listed = made if oldest_first else made[::-1]
    stranger = make_organization(database)
    beside = (owner[0], other_project(database, owner[0]))
    seen: list[Id] = []
    more, after = True, None
    while more:
        page, more = shelf.files.page(*owner, limit=3, after=after, oldest_first=oldest_first)
        for it in page:
            shelf.files.delete(it.file.id, *owner)
            seen.append(it.file.id)
        after = seen[-1]
        for who in (stranger, beside):
            assert refused(lambda who=who, at=after: shelf.files.page(*who, limit=5, after=at)).status == 404
    assert seen == listed
    assert refused(lambda: shelf.files.page(*owner, limit=5, after=mint(Prefix.FILE))).status == 404


def test_what_a_feature_that_is_off_has_left_is_the_owners(
    shelf: Shelf, owner: tuple[Id, Id], database: Database
) -> None:
    batch, tuning = shelf.keep(owner), shelf.keep(owner, purpose=FilePurpose.FINE_TUNE)
    set_controls(database, batch_off=True)
    for act in (
        lambda: shelf.keep(owner),
        lambda: shelf.files.check(*owner, intended()),
        lambda: shelf.files.describe(batch.id, *owner),
        lambda: shelf.content(batch),
        lambda: shelf.files.delete(batch.id, *owner),
        lambda: shelf.files.page(*owner, limit=5, purpose=FilePurpose.BATCH),
    ):
        problem = refused(act)
        assert (problem.status, problem.code, problem.retry) == (403, "feature_disabled_by_data_controls", False)
        assert "turned off by your organization." in problem.message
    assert [it.file for it in shelf.files.page(*owner, limit=5)[0]] == [tuning]
    assert {it.file for it in shelf.files.page(owner[0], None, limit=5)[0]} == {batch, tuning}
    set_controls(database, zero_data_retention=True)
    for act in (lambda: shelf.files.page(*owner, limit=5), lambda: shelf.keep(owner)):
        assert "turned off by Zero Data Retention of your organization." in refused(act).message
    shelf.files.delete(batch.id, owner[0], None)
    assert len(shelf.files.page(owner[0], None, limit=5)[0]) == 1


def test_a_policy_that_changes_during_an_upload_is_asked_again(
    shelf: Shelf, owner: tuple[Id, Id], database: Database
) -> None:
    with shelf.files.writing(*owner) as writer:
        writer.write(Content(b"x"))
        set_controls(database, inference_logging_off=True)
        one, row = writer.commit(intended())
    assert (row.epoch, shelf.content(one)) == (2, b"x")
    with shelf.files.writing(*owner) as writer:
        writer.write(Content(b"x"))
        set_controls(database, batch_off=True)
        assert refused(lambda: writer.commit(intended())).status == 403
    assert rows(database, kept) == 1


@pytest.mark.parametrize("controls", [RequestControls(keep_nothing=True), RequestControls(zero_upstream=True)])
def test_a_request_that_forbids_keeping_keeps_nothing(
    shelf: Shelf, owner: tuple[Id, Id], database: Database, controls: RequestControls
) -> None:
    wanted = intended()
    wanted = type(wanted)(wanted.purpose, wanted.data_class, wanted.name, request=controls)
    with shelf.files.writing(*owner) as writer:
        writer.write(Content(b"x"))
        problem = refused(lambda: writer.commit(wanted))
    assert (problem.status, problem.code) == (400, "retention_conflict")
    assert rows(database, kept) == rows(database) == 0


def test_limits_are_named(database: Database, tmp_path: Path, owner: tuple[Id, Id]) -> None:
    rig = make_rig(database, tmp_path)
    shelf = make_shelf(database, rig, FileLimits(file_bytes=10, files=2, files_bytes=15))
    with shelf.files.writing(*owner) as writer:
        writer.write(Content(b"x" * 10))
        problem = refused(lambda: writer.write(Content(b"x")))
        assert (problem.status, "10 bytes (limits.file_bytes)" in problem.message) == (413, True)
    shelf.keep(owner, b"x" * 10)
    problem = refused(lambda: shelf.keep(owner, b"x" * 6))
    assert (problem.status, "15 (limits.files_bytes)" in problem.message) == (413, True)
    shelf.keep(owner, b"x")
    problem = refused(lambda: shelf.keep(owner, b"x"))
    assert (problem.status, "2 (limits.files)" in problem.message) == (413, True)
    assert rows(database, kept) == rows(database) == 2
    shelf.keep(make_organization(database), b"x")


def test_what_belongs_to_a_file_is_written_with_it_or_not_at_all(
    shelf: Shelf, owner: tuple[Id, Id], database: Database
) -> None:
    def failing(tx: Connection, one: File) -> None:
        assert store.get(tx, one.id, *owner) == one
        raise StoreFailedError("no room")

    with shelf.files.writing(*owner) as writer, pytest.raises(StoreFailedError):
        writer.commit(intended(), within=failing)
    assert rows(database, kept) == rows(database) == 0


def test_a_hold_wins_over_delete(shelf: Shelf, owner: tuple[Id, Id], database: Database) -> None:
    one = shelf.keep(owner)
    with database.write() as tx:
        tx.execute(
            legal_hold.insert().values(
                id=mint(Prefix.HOLD),
                organization_id=owner[0],
                reason=HoldReason.LITIGATION,
                authority=HoldAuthority.COURT_ORDER,
                reference="1",
                placed_by="okey_x",
                placed_at=0,
                review_at=1,
            )
        )
    problem = refused(lambda: shelf.files.delete(one.id, *owner))
    assert (problem.status, "hold_" in problem.message) == (423, True)
    assert shelf.content(one)


def test_a_store_that_does_not_answer_leaves_a_delete_that_can_be_repeated(
    shelf: Shelf, owner: tuple[Id, Id], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = shelf.keep(owner)
    with monkeypatch.context() as down:
        down.setattr(shelf.rig.store, "delete", lambda _: [])
        assert refused(lambda: shelf.files.delete(one.id, *owner)).code == "deletion_pending"
        assert refused(lambda: shelf.files.describe(one.id, *owner)).status == 404
        assert shelf.files.forget_dead() == 0
    shelf.files.delete(one.id, *owner)
    assert refused(lambda: shelf.files.delete(one.id, *owner)).status == 404
    assert rows(database) == 0
