"""Jobs, events and models as rows, on both databases: theirs only, page by page, gone with what they are about."""

from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from keepless.db import Database
from keepless.ids import Id, Prefix, mint
from keepless.tuning import store, transitions
from keepless.tuning.tables import tuned_model, tuning_event, tuning_fault, tuning_job
from keepless.tuning.values import (
    AUTO,
    EventCode,
    FailCode,
    Hyperparameters,
    Job,
    Metrics,
    NewJob,
    TuningKind,
    TuningState,
)
from keepless.vault.tables import kept
from tests.unit.tuning.rig import NOW, made, new, weights


def a_job() -> Job:
    names: dict[str, Any] = dict.fromkeys(Job.__dataclass_fields__)
    return Job(**(names | {"step": 0, "total": 0, "begun_step": 0, "hyperparameters": AUTO}))


def succeeded(database: Database, what: NewJob, now_ms: int = NOW) -> Job:
    job = made(database, replace(what, kind=TuningKind.IMPORT), now_ms)
    object_id = weights(database, job)
    with database.write() as tx:
        assert transitions.succeed(tx, job, object_id, now_ms, rank=8, tokens=0)
    return job


def forgotten(database: Database, object_id: Id) -> None:
    with database.write() as tx:
        tx.execute(kept.delete().where(kept.c.id == object_id))


def test_a_new_job_is_what_was_asked_for(database: Database) -> None:
    what = new(database, asked=Hyperparameters(3, 4, 0.5, 8, 32), validation_file_id=mint(Prefix.FILE))
    job = made(database, what)
    with database.read() as tx:
        assert store.get(tx, job.id, what.organization_id, what.project_id) == job
    assert (job.state, job.created_at, job.finished_at) == (TuningState.VALIDATING, NOW, None)
    assert job.hyperparameters == what.asked
    same = [name for name in NewJob.__dataclass_fields__ if name != "asked"]
    assert [getattr(job, name) for name in same] == [getattr(what, name) for name in same]


def test_another_projects_job_is_not_found(database: Database) -> None:
    job, other = made(database, new(database)), new(database)
    with database.read() as tx:
        assert store.get(tx, job.id, other.organization_id, other.project_id) is None
        assert store.get(tx, job.id, job.organization_id, other.project_id) is None
        assert store.listing(tx, other.organization_id, None, limit=10) == []
        assert store.listing(tx, other.organization_id, None, limit=10, after=job.id) == []
        assert store.of_model(tx, job.hexadecimal, other.organization_id, None) is None


def test_pages_hold_every_job_once_the_newest_first(database: Database) -> None:
    first = new(database)
    owner = (first.organization_id, first.project_id)
    ids = [made(database, new(database, owner), NOW + at // 3).id for at in range(7)]
    with database.read() as tx:
        whole = [one.id for one in store.listing(tx, *owner, limit=100)]
        pages: list[Id] = []
        while page := store.listing(tx, *owner, limit=3, after=pages[-1] if pages else None):
            pages += [one.id for one in page]
    assert pages == whole
    assert set(whole) == set(ids)
    assert whole[0] == ids[-1]


def test_a_job_whose_name_is_gone_is_gone(database: Database) -> None:
    job, other = made(database, new(database)), made(database, new(database))
    with database.write() as tx:
        transitions.tell(tx, job.id, EventCode.CREATED, NOW)
        transitions.fail(tx, job.id, FailCode.INTERNAL, NOW)
        assert store.forget(tx, NOW) == []
    forgotten(database, job.order_object_id)
    with database.write() as tx:
        assert store.get(tx, job.id) is None
        assert store.forget(tx, NOW) == [job.id]
        for one in (tuning_event, tuning_fault):
            assert tx.execute(sa.select(one).where(one.c.job_id == job.id)).all() == []
        assert list(tx.scalars(sa.select(tuning_job.c.id))) == [other.id]


def test_a_page_goes_on_after_a_job_that_is_gone(database: Database) -> None:
    first = new(database)
    owner = (first.organization_id, first.project_id)
    jobs = [made(database, new(database, owner), NOW + at) for at in range(3)]
    forgotten(database, jobs[1].order_object_id)
    other = made(database, new(database))
    with database.write() as tx:
        assert store.forget(tx, NOW) == [jobs[1].id]
        assert [one.id for one in store.listing(tx, *owner, limit=9, after=jobs[1].id)] == [jobs[0].id]
        assert store.listing(tx, other.organization_id, None, limit=9, after=jobs[1].id) == []


def test_events_come_in_their_order_from_both_ends(database: Database) -> None:
    job = made(database, new(database))
    with database.write() as tx:
        for step in range(1, 8):
            transitions.tell(tx, job.id, EventCode.METRICS, NOW, step=step, total=7, metrics=Metrics(1.0 / step, 0.5))
        transitions.tell(tx, job.id, EventCode.METRICS, NOW, step=3, total=7, metrics=Metrics(9.0))
    with database.read() as tx:
        newest = store.events_of(tx, job.id, limit=3)
        assert [one.number for one in newest] == [8, 7, 6]
        assert store.number_of(tx, job.id, newest[-1].id) == 6
        assert [one.number for one in store.events_of(tx, job.id, limit=9, before=6)] == [5, 4, 3, 2, 1]
        assert [one.number for one in store.events_of(tx, job.id, limit=9, after=6)] == [7, 8]
        curve = store.curve_of(tx, job.id)
    assert [step for step, _ in curve] == [1, 2, 3, 4, 5, 6, 7]
    assert curve[2][1].loss == 9.0  # done again: the last time counts


def test_a_model_is_found_by_its_digits_and_its_owner(database: Database) -> None:
    what, other = new(database), new(database)
    job = succeeded(database, what)
    own = (what.organization_id, what.project_id)
    with database.read() as tx:
        found = store.tuned_model(tx, job.hexadecimal, *own)
        assert found is not None
        assert (found.base_model, found.job_id, found.rank) == ("tiny", job.id, 8)
        assert store.tuned_models(tx, *own) == store.tuned_models(tx) == [found]
        assert store.models_of_file(tx, job.training_file_id) == [found]
        assert store.tuned_model(tx, job.hexadecimal, other.organization_id, other.project_id) is None
        assert store.tuned_model(tx, job.hexadecimal, what.organization_id, other.project_id) is None
        assert store.tuned_model(tx, "0" * 12, *own) is None


def test_a_model_whose_weights_are_gone_is_gone(database: Database) -> None:
    what = new(database)
    job = succeeded(database, what)
    with database.read() as tx:
        found = store.tuned_model(tx, job.hexadecimal, what.organization_id)
    assert found is not None
    forgotten(database, found.object_id)
    with database.write() as tx:
        assert store.tuned_model(tx, job.hexadecimal, what.organization_id) is None
        assert store.tuned_models(tx) == []
        assert store.forget_models(tx) == 1
        assert tx.execute(sa.select(tuned_model)).all() == []


def test_a_model_that_is_being_deleted_is_not_served(database: Database) -> None:
    what = new(database)
    job = succeeded(database, what)
    with database.write() as tx:
        tx.execute(tuned_model.update().values(deleting_at=NOW))
        assert store.tuned_model(tx, job.hexadecimal, what.organization_id) is None
        assert store.forget_models(tx) == 0  # whoever ends it still needs it
        assert store.any_model(tx, job.hexadecimal, what.organization_id, None) is not None
