"""Rows of jobs without a vault, for tests of the tables."""

from typing import Any

from keepless.db import Database
from keepless.ids import Id, Prefix, mint
from keepless.policy.data_class import DataClass
from keepless.tuning import store
from keepless.tuning.values import Job, NewJob, TuningKind
from tests.support.accounts import make_organization
from tests.support.rows import kept_rows

NOW = 1_800_000_000_000


def new(database: Database, owner: tuple[Id, Id] | None = None, **more: Any) -> NewJob:
    organization_id, project_id = owner or make_organization(database)
    with database.write() as tx:
        work = {"data_class": DataClass.FINE_TUNING_WORK, "expires_at": None}
        (order_id,) = kept_rows(tx, 1, organization_id, project_id, **work)
    values: dict[str, Any] = {
        "organization_id": organization_id,
        "project_id": project_id,
        "key_id": mint(Prefix.API_KEY),
        "kind": TuningKind.TRAIN,
        "base_model": "tiny",
        "training_file_id": mint(Prefix.FILE),
        "order_object_id": order_id,
        "has_metadata": False,
        "seed": 7,
    }
    return NewJob(**(values | more))


def made(database: Database, what: NewJob, now_ms: int = NOW) -> Job:
    with database.write() as tx:
        return store.create(tx, what, now_ms)


def weights(database: Database, job: Job) -> Id:
    with database.write() as tx:
        kind = {"data_class": DataClass.MODEL_WEIGHTS, "expires_at": None}
        return kept_rows(tx, 1, job.organization_id, job.project_id, **kind)[0]
