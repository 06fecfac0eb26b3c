"""Fine-tunings as their owners' calls see them: one transaction, one policy, one answer for what is not theirs."""

import pytest
import sqlalchemy as sa

from keepless.accounts.repeats import REPEAT_MS
from keepless.accounts.tables import organization
from keepless.app.tunings import policy_reader
from keepless.content import Content, Purpose
from keepless.errors import Code, Problem
from keepless.files.values import FilePurpose
from keepless.ids import Id, Prefix, mint
from keepless.policy.data_class import DataClass
from keepless.tuning import book, store, transitions
from keepless.tuning.shown import Metadata
from keepless.tuning.tables import tuning_job
from keepless.tuning.values import AUTO, FailCode, Hyperparameters, TuningKind, TuningState
from keepless.vault.tables import intent, kept
from tests.support.tuning import BASE, Desk

S = TuningState


def refused(desk: Desk, *args: object, **named: object) -> Problem:
    with pytest.raises(Problem) as problem:
        desk.create(*args, **named)
    with desk.db.read() as tx:
        assert tx.execute(sa.select(tuning_job.c.id)).all() == []
        assert tx.execute(sa.select(intent)).all() == []
    assert desk.floor.kept(DataClass.FINE_TUNING_WORK) == 0
    return problem.value


def test_a_new_job_has_its_name_and_metadata_in_the_vault_alone(desk: Desk) -> None:
    file_id, validation = desk.dataset(), desk.dataset()
    seen = desk.create(file_id, name=b"MARKER-name", validation_file_id=validation, has_validation=True, seed=3)
    job = seen.job
    assert (job.state, job.kind, job.key_id) == (S.VALIDATING, TuningKind.TRAIN, desk.principal.key_id)
    assert (job.training_file_id, job.validation_file_id, job.seed) == (file_id, validation, 3)
    found = desk.book.get(job.id, desk.organization_id, desk.project_id)
    assert found.name.reveal(Purpose.CUSTOMER) == b"MARKER-name"
    assert found.metadata is None
    with desk.db.read() as tx:
        (row,) = tx.execute(sa.select(kept).where(kept.c.id == job.order_object_id)).all()
        assert row.data_class is DataClass.FINE_TUNING_WORK
        told = tx.execute(sa.select(tuning_job)).one()
    assert "MARKER" not in repr(told)


def test_what_cannot_be_asked_for_leaves_nothing(desk: Desk) -> None:
    assert refused(desk, mint(Prefix.FILE)).status == 404
    assert refused(desk, desk.dataset(purpose=FilePurpose.BATCH)).code is Code.INVALID_VALUE
    assert refused(desk, has_validation=True).param == "validation_file"
    gone = desk.dataset()
    desk.deployment.files.delete(gone, desk.organization_id, desk.project_id)
    assert refused(desk, gone).status == 404


def test_a_base_of_another_kind_is_refused_by_the_name_of_its_parameter(desk: Desk) -> None:
    asked: list[tuple[str, TuningKind]] = []

    def never(base: str, kind: TuningKind) -> bool:
        asked.append((base, kind))
        return False

    policy = policy_reader(desk.deployment)
    there = book.Book(desk.db, desk.clock, desk.deployment.vault, policy, [BASE], fits=never)
    for file, kind, named in (
        (desk.dataset(), TuningKind.TRAIN, {}),
        (desk.dataset(b"PK\x03\x04"), TuningKind.IMPORT, {"may_import": True, "base_param": "base_model"}),
    ):
        with pytest.raises(Problem) as problem:
            there.create(desk.principal, desk.order(file, **named), mint(Prefix.REQUEST))
        assert (problem.value.status, problem.value.param) == (400, named.get("base_param", "model"))
        assert asked[-1] == (BASE, kind)
    assert desk.floor.kept(DataClass.FINE_TUNING_WORK) == 0


def test_a_policy_that_changes_meanwhile_is_decided_again(desk: Desk) -> None:
    with desk.db.write() as tx:
        tx.execute(organization.update().values(epoch=organization.c.epoch + 1))
    assert desk.create().job.state is S.VALIDATING  # what the database says counts, not what the caller brought
    with desk.db.write() as tx:
        tx.execute(organization.update().values(epoch=organization.c.epoch + 1, fine_tuning_off=True))
    with pytest.raises(Problem) as problem:
        desk.create()
    assert (problem.value.status, problem.value.code) == (403, Code.FEATURE_DISABLED)


def test_only_its_own_project_sees_a_job(desk: Desk) -> None:
    job = desk.create().job
    other = mint(Prefix.PROJECT)
    for organization_id, project_id in ((desk.organization_id, other), (mint(Prefix.ORGANIZATION), None)):
        assert desk.book.page(organization_id, project_id, limit=5) == ([], False)
        for act in (desk.book.get, desk.book.cancel, desk.book.pause, desk.book.resume, desk.book.checkpoints):
            with pytest.raises(Problem) as problem:
                act(job.id, organization_id, project_id)
            assert problem.value.status == 404
    assert [one.job.id for one in desk.book.page(desk.organization_id, None, limit=5)[0]] == [job.id]


def test_pages_pass_over_what_is_not_served(desk: Desk) -> None:
    own = (desk.organization_id, desk.project_id)
    ids = [desk.create(name=f"n{at}".encode()).job.id for at in range(4)]
    desk.deployment.sweeper.delete_object(desk.organization_id, desk.job(ids[1]).order_object_id)
    first, more = desk.book.page(*own, limit=2)
    assert ([one.job.id for one in first], more) == ([ids[3], ids[2]], True)
    rest, more = desk.book.page(*own, limit=2, after=ids[2])
    assert ([one.job.id for one in rest], more) == ([ids[0]], False)


def test_the_same_call_again_makes_nothing_new(desk: Desk) -> None:
    file_id = desk.dataset()
    asked = Hyperparameters(r=8, alpha=16)
    first = desk.create(file_id, asked=asked, repeat_key=b"MARKER").job
    with desk.db.write() as tx:  # what was left to us is decided meanwhile
        transitions.queue(tx, first.id, 12, asked.chosen(12), desk.clock.now_ms())
    assert desk.create(file_id, asked=asked, repeat_key=b"MARKER").job.id == first.id
    assert desk.floor.kept(DataClass.FINE_TUNING_WORK) == 1
    for differs in ({"name": b"other"}, {"seed": first.seed + 1}, {"asked": Hyperparameters(r=16, alpha=16)}):
        with pytest.raises(Problem, match="invalid_value"):
            desk.create(file_id, **({"asked": asked, "repeat_key": b"MARKER"} | differs))
    with desk.db.write() as tx:
        assert tx.execute(sa.select(intent)).all() == []
        assert "MARKER" not in repr(tx.execute(sa.select(tuning_job)).all())
        assert store.forget_repeats(tx, desk.clock.now_ms() + REPEAT_MS) == 1
    assert desk.create(file_id, asked=asked, repeat_key=b"MARKER").job.id != first.id


def test_what_is_deleted_is_not_found_again(desk: Desk) -> None:
    file_id = desk.dataset()
    first = desk.create(file_id, repeat_key=b"once").job
    desk.ending.delete_job(first.id, desk.organization_id, desk.project_id)
    assert desk.create(file_id, repeat_key=b"once").job.id != first.id


def test_a_search_opens_so_many_and_says_when_they_are_not_all(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    own, file_id = (desk.organization_id, desk.project_id), desk.dataset()
    ids = [desk.create(file_id, metadata=Content(b'{"n":"%d","a":"b"}' % (at % 2))).job.id for at in range(5)]
    desk.create(file_id)
    monkeypatch.setattr(book, "_AT_ONCE", 2)
    even, none = Metadata(Content(b'{"n":"0"}')), Metadata(None)
    found, more = desk.book.page(*own, limit=2, wanted=even)
    assert ([one.job.id for one in found], more) == ([ids[4], ids[2]], True)
    found, more = desk.book.page(*own, limit=2, after=ids[2], wanted=even)
    assert ([one.job.id for one in found], more) == ([ids[0]], False)
    assert [one.metadata for one in desk.book.page(*own, limit=9, wanted=none)[0]] == [None]
    monkeypatch.setattr(book, "_SEARCHED", 4)
    assert len(desk.book.page(*own, limit=1, wanted=even)[0]) == 1
    with pytest.raises(Problem) as problem:
        desk.book.page(*own, limit=5, wanted=even)
    assert (problem.value.status, problem.value.param) == (400, "metadata")


def test_paused_resumed_cancelled(desk: Desk) -> None:
    own = (desk.organization_id, desk.project_id)
    job = desk.create().job
    with pytest.raises(Problem, match="invalid_value"):
        desk.book.pause(job.id, *own)  # its files are being checked
    with desk.db.write() as tx:
        transitions.queue(tx, job.id, 12, AUTO.chosen(12), desk.clock.now_ms())
    assert desk.book.pause(job.id, *own).job.state is S.PAUSED
    assert desk.book.pause(job.id, *own).job.state is S.PAUSED
    assert desk.book.resume(job.id, *own).job.state is S.QUEUED
    with pytest.raises(Problem, match="invalid_value"):
        desk.book.resume(job.id, *own)
    assert desk.book.cancel(job.id, *own).job.state is S.CANCELLED
    assert desk.book.cancel(job.id, *own).job.state is S.CANCELLED
    events, _ = desk.book.events(job.id, *own, limit=10)
    assert [one.code.value for one in reversed(events)] == ["created", "validated", "paused", "resumed", "cancelled"]
    assert desk.book.news(job.id, *own, after=3)[1] is False


def test_a_dataset_that_is_deleted_ends_the_jobs_that_need_it(desk: Desk) -> None:
    file_id, other = desk.dataset(), desk.dataset()
    first, second = desk.create(file_id).job, desk.create(other).job
    third = desk.create(other, validation_file_id=file_id, has_validation=True).job
    desk.book.input_deleted(file_id)
    told: dict[Id, TuningState] = {one.id: desk.job(one.id).state for one in (first, second, third)}
    assert told == {first.id: S.FAILED, second.id: S.VALIDATING, third.id: S.FAILED}
    assert desk.job(first.id).fail_code is FailCode.FILE_GONE
