"""Files that come in parts: whole in the end or gone, whoever else ends them and whenever the process dies."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from keepless.accounts import tables as accounts
from keepless.clock import DAY_MS
from keepless.content import Content, Purpose
from keepless.db import Database
from keepless.errors import Problem
from keepless.files.service import FileLimits
from keepless.files.tables import upload, upload_part
from keepless.files.uploads import LIFE_S, Uploads
from keepless.files.values import UPLOADED, Part, Upload, UploadState
from keepless.files.values import FilePurpose as For
from keepless.ids import Id
from keepless.policy.data_class import DataClass, Feature
from keepless.policy.schedule import row_of
from keepless.vault.states import Step
from keepless.vault.tables import kept
from tests.support.accounts import make_organization
from tests.support.files import Shelf, make_shelf
from tests.support.vault import CrashError, make_rig

NAME = Content(b"whole.jsonl")


@pytest.fixture
def shelf(database: Database, tmp_path: Path) -> Shelf:
    limits = FileLimits(file_bytes=5_000_000, files=20, files_bytes=50_000_000, part_bytes=3_000_000)
    return make_shelf(database, make_rig(database, tmp_path), limits)


@pytest.fixture
def uploads(shelf: Shelf, database: Database) -> Uploads:
    return Uploads(database, shelf.rig.clock, shelf.rig.vault, shelf.files, shelf.sweeper)


@pytest.fixture
def owner(database: Database) -> tuple[Id, Id]:
    return make_organization(database)


def classes(database: Database) -> list[DataClass]:
    with database.read() as tx:
        return sorted(tx.execute(sa.select(kept.c.data_class)).scalars())


def refused(act: Callable[[], Any]) -> Problem:
    with pytest.raises(Problem) as caught:
        act()
    return caught.value


def begin(uploads: Uploads, owner: tuple[Id, Id], size: int, **more: Any) -> Upload:
    return uploads.create(*owner, purpose=For.BATCH, size=size, name=NAME, **more)[0]


def add(uploads: Uploads, owner: tuple[Id, Id], one: Upload, data: bytes) -> Part:
    with uploads.adding(one.id, *owner) as writer:
        for at in range(0, len(data), 1_000_000):
            writer.write(Content(data[at : at + 1_000_000]))
        return writer.commit()[0]


def test_parts_become_one_file_in_the_order_that_was_asked_for(
    shelf: Shelf, uploads: Uploads, owner: tuple[Id, Id], database: Database
) -> None:
    first, second = b"1" * 2_500_000, b"2" * 1_700_000
    one = begin(uploads, owner, len(first + second), ends_after_s=7200)
    parts = [add(uploads, owner, one, data) for data in (first, second)]
    assert classes(database) == [DataClass.UPLOAD_PART] * 3
    with database.read() as tx:
        assert set(tx.execute(sa.select(kept.c.expires_at)).scalars()) == {one.expires_at}
    md5 = hashlib.md5(second + first).hexdigest()
    ended, file, row, name = uploads.complete(one.id, *owner, [parts[1].id, parts[0].id], md5=md5)
    assert (ended.state, ended.file_id, name) == (UploadState.COMPLETED, file.id, b"whole.jsonl")
    assert (row.expires_at or 0) - file.created_at == 7_200_000
    assert shelf.content(file) == second + first
    assert shelf.files.describe(file.id, *owner).name == b"whole.jsonl"
    assert classes(database) == [DataClass.BATCH_INPUT]
    assert list(shelf.rig.store.listed(2**62)) == [row.blob]


def test_an_upload_ends_after_an_hour_with_everything_of_it(
    shelf: Shelf, uploads: Uploads, owner: tuple[Id, Id], database: Database
) -> None:
    one = begin(uploads, owner, 5)
    shelf.rig.clock.advance_ms(1_800_000)
    part = add(uploads, owner, one, b"12345")
    shelf.rig.clock.advance_ms(1_800_000)
    shelf.rig.guard.check()
    for act in (
        lambda: add(uploads, owner, one, b"1"),
        lambda: uploads.complete(one.id, *owner, [part.id]),
        lambda: uploads.cancel(one.id, *owner),
    ):
        problem = refused(act)
        assert (problem.status, "expired" in problem.message) == (400, True)
    shelf.sweeper.sweep_once(confirm=True)
    assert classes(database) == []
    assert uploads.forget_ended() == 0
    shelf.rig.clock.advance_ms(DAY_MS)
    assert uploads.forget_ended() == 1
    with database.read() as tx:
        assert tx.execute(sa.select(upload.c.id)).all() == tx.execute(sa.select(upload_part.c.id)).all() == []
    assert one.expires_at - one.created_at == LIFE_S * 1000


def test_a_part_that_comes_after_the_cancellation_keeps_nothing(
    uploads: Uploads, owner: tuple[Id, Id], database: Database
) -> None:
    one = begin(uploads, owner, 5)
    with uploads.adding(one.id, *owner) as writer:
        writer.write(Content(b"12345"))
        assert uploads.cancel(one.id, *owner)[0].state is UploadState.CANCELLED
        assert refused(writer.commit).status == 400
    assert classes(database) == []


def test_what_is_completed_twice_at_once_becomes_one_file(
    shelf: Shelf, uploads: Uploads, owner: tuple[Id, Id], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = begin(uploads, owner, 5)
    part = add(uploads, owner, one, b"12345")
    wanted = uploads._wanted

    def meanwhile(*asked: Any) -> list[Part]:
        monkeypatch.undo()
        parts = wanted(*asked)
        monkeypatch.setattr(shelf.sweeper, "delete_object", lambda *_: None)  # it dies before it destroys the parts
        uploads.complete(one.id, *owner, [part.id])
        return parts

    monkeypatch.setattr(uploads, "_wanted", meanwhile)
    assert refused(lambda: uploads.complete(one.id, *owner, [part.id])).status == 400
    assert classes(database).count(DataClass.BATCH_INPUT) == 1
    assert len(shelf.files.page(*owner, limit=5)[0]) == 1


def test_a_crash_while_it_is_put_together_leaves_the_upload_pending(
    shelf: Shelf, uploads: Uploads, owner: tuple[Id, Id], database: Database
) -> None:
    one = begin(uploads, owner, 5)
    part = add(uploads, owner, one, b"12345")
    shelf.rig.crash.step = Step.BLOB
    with pytest.raises(CrashError):
        uploads.complete(one.id, *owner, [part.id])
    assert classes(database) == [DataClass.UPLOAD_PART] * 2
    assert shelf.content(uploads.complete(one.id, *owner, [part.id])[1]) == b"12345"


def test_other_projects_see_nothing(uploads: Uploads, owner: tuple[Id, Id], database: Database) -> None:
    one = begin(uploads, owner, 5)
    other = make_organization(database)
    for act in (
        lambda: uploads.adding(one.id, *other),
        lambda: uploads.complete(one.id, *other, [Id("part_x")]),
        lambda: uploads.cancel(one.id, *other),
    ):
        assert refused(act).status == 404


def test_limits_and_checks_are_named(uploads: Uploads, owner: tuple[Id, Id], database: Database) -> None:
    assert "limits.file_bytes" in refused(lambda: begin(uploads, owner, 5_000_001)).message
    one = begin(uploads, owner, 4_000_000)
    assert "limits.part_bytes" in refused(lambda: add(uploads, owner, one, b"x" * 3_000_001)).message
    assert refused(lambda: add(uploads, owner, one, b"")).param == "data"
    part = add(uploads, owner, one, b"x" * 10)
    assert "4000000" in refused(lambda: uploads.complete(one.id, *owner, [part.id])).message
    small = begin(uploads, owner, 10)
    mine = add(uploads, owner, small, b"x" * 10)
    assert refused(lambda: uploads.complete(small.id, *owner, [part.id])).param == "part_ids"
    assert refused(lambda: uploads.complete(small.id, *owner, [mine.id], md5="x")).param == "md5"
    assert DataClass.BATCH_INPUT not in classes(database)


def test_a_feature_that_is_turned_off_meanwhile_ends_it(
    uploads: Uploads, owner: tuple[Id, Id], database: Database
) -> None:
    one = begin(uploads, owner, 5)
    part = add(uploads, owner, one, b"12345")
    table = accounts.organization
    with database.write() as tx:
        tx.execute(table.update().values(epoch=table.c.epoch + 1, batch_off=True))
    for act in (
        lambda: begin(uploads, owner, 5),
        lambda: add(uploads, owner, one, b"1"),
        lambda: uploads.complete(one.id, *owner, [part.id]),
        lambda: uploads.complete(one.id, *owner, []),  # whatever else is wrong with it
    ):
        assert refused(act).code == "feature_disabled_by_data_controls"
    assert DataClass.BATCH_INPUT not in classes(database)
    assert NAME.reveal(Purpose.PROVE) == b"whole.jsonl"


@pytest.mark.parametrize("purpose", list(UPLOADED))
@pytest.mark.parametrize("batch", [True, False], ids=["batch", "no-batch"])
@pytest.mark.parametrize("fine_tuning", [True, False], ids=["fine-tuning", "no-fine-tuning"])
def test_one_control_governs_the_parts_and_what_they_become(
    shelf: Shelf,
    uploads: Uploads,
    owner: tuple[Id, Id],
    database: Database,
    *,
    purpose: For,
    batch: bool,
    fine_tuning: bool,
) -> None:
    table = accounts.organization
    with database.write() as tx:
        off = {"batch_off": not batch, "fine_tuning_off": not fine_tuning}
        tx.execute(table.update().values(epoch=table.c.epoch + 1, **off))
    if not {Feature.BATCH: batch, Feature.FINE_TUNING: fine_tuning}[row_of(UPLOADED[purpose]).feature]:
        assert refused(lambda: uploads.create(*owner, purpose=purpose, size=5, name=NAME)).status == 403
        assert classes(database) == []
        return
    one = uploads.create(*owner, purpose=purpose, size=5, name=NAME)[0]
    part = add(uploads, owner, one, b"12345")
    with database.read() as tx:
        rows = tx.execute(sa.select(kept.c.data_class, kept.c.expires_at)).all()
    assert {row_of(row.data_class).feature for row in rows} == {row_of(UPLOADED[purpose]).feature}
    assert {row.expires_at for row in rows} == {one.expires_at}  # an hour, whatever the class may last
    file = uploads.complete(one.id, *owner, [part.id])[1]
    assert classes(database) == [file.data_class] == [UPLOADED[purpose]]


def test_parts_have_no_more_together_than_was_announced_and_one_part(
    shelf: Shelf, uploads: Uploads, owner: tuple[Id, Id], database: Database
) -> None:
    one = begin(uploads, owner, 4_000_000)
    first = add(uploads, owner, one, b"1" * 3_000_000)
    add(uploads, owner, one, b"1" * 3_000_000)  # the answer was lost: sent again
    last = add(uploads, owner, one, b"2" * 1_000_000)
    before = classes(database)
    problem = refused(lambda: add(uploads, owner, one, b"1"))
    assert (problem.status, problem.code, problem.param) == (400, "invalid_value", "data")
    assert "7000000" in problem.message
    assert "4000000" in problem.message
    assert classes(database) == before
    shelf.rig.guard.check()
    file = uploads.complete(one.id, *owner, [first.id, last.id])[1]
    assert shelf.content(file) == b"1" * 3_000_000 + b"2" * 1_000_000


def test_parts_of_a_small_upload_are_bounded_by_its_own_size(uploads: Uploads, owner: tuple[Id, Id]) -> None:
    one = begin(uploads, owner, 5)
    for _ in range(2):
        add(uploads, owner, one, b"12345")
    assert refused(lambda: add(uploads, owner, one, b"1")).param == "data"


def test_parts_that_come_at_once_are_counted_together(
    uploads: Uploads, owner: tuple[Id, Id], database: Database
) -> None:
    one = begin(uploads, owner, 5)
    writers = [uploads.adding(one.id, *owner) for _ in range(4)]
    for writer in writers:
        writer.write(Content(b"12345"))
    with ThreadPoolExecutor(4) as several:
        assert sorted(several.map(lambda writer: told(writer.commit), writers)) == ["", "", "data", "data"]
    for writer in writers:
        writer.abort()
    with database.read() as tx:
        assert tx.execute(sa.select(sa.func.sum(upload_part.c.bytes))).scalar() == 10


def told(act: Callable[[], Any]) -> str:
    """What a call is refused for; empty when it is not."""
    try:
        act()
    except Problem as problem:
        return problem.param or ""
    return ""


def few(shelf: Shelf, database: Database, **limits: int) -> Uploads:
    """Uploads of the same shelf under narrower limits."""
    narrow = FileLimits(**{"file_bytes": 10, "files": 3, "files_bytes": 30, **limits})
    other = make_shelf(database, shelf.rig, narrow)
    return Uploads(database, shelf.rig.clock, shelf.rig.vault, other.files, shelf.sweeper)


@pytest.mark.parametrize(
    ("limits", "named"),
    [({"files_bytes": 25}, "25 (limits.files_bytes)"), ({"files": 2}, "2 (limits.files)")],
    ids=["bytes", "number"],
)
@pytest.mark.parametrize("how", ["cancelled", "expired", "completed"])
def test_uploads_that_are_open_count_as_files_until_they_end(
    shelf: Shelf, owner: tuple[Id, Id], database: Database, limits: dict[str, int], named: str, how: str
) -> None:
    uploads = few(shelf, database, **limits)
    shelf.keep(owner, b"x" * 10)
    one = begin(uploads, owner, 10)
    before = classes(database)
    problem = refused(lambda: begin(uploads, owner, 10))
    assert (problem.status, problem.param, named in problem.message) == (413, "bytes", True)
    assert classes(database) == before
    begin(uploads, make_organization(database), 10)
    if how == "cancelled":
        uploads.cancel(one.id, *owner)
    elif how == "expired":
        shelf.rig.clock.advance_ms(LIFE_S * 1000)
        shelf.rig.guard.check()
    else:  # it is a file now, and counts once
        file = uploads.complete(one.id, *owner, [add(uploads, owner, one, b"x" * 10).id])[1]
        assert refused(lambda: begin(uploads, owner, 10)).status == 413
        shelf.files.delete(file.id, *owner)
    begin(uploads, owner, 10)


def test_uploads_that_are_begun_at_once_do_not_exceed_the_limit_together(
    shelf: Shelf, owner: tuple[Id, Id], database: Database
) -> None:
    uploads = few(shelf, database)
    with ThreadPoolExecutor(6) as several:
        answers = list(several.map(lambda _: told(lambda: begin(uploads, owner, 10)), range(6)))
    assert sorted(answers) == ["", "", "", "bytes", "bytes", "bytes"]
