"""SQL of accounts: small functions on a connection, one fact each; transactions belong to the caller.

Holds: reading and writing organizations, projects, keys, members, periods and ratchets; `touch`, by which every
process learns of a change; `prepare`, which makes the one row it needs. Leaves out: who may do it, log entries and
waiting (governance, fence).

LOCK ORDER (PostgreSQL; SQLite has one writer at a time): organization row -> rows below it (project, key, member,
period, ratchet) -> rows of the vault (kek, kept, totals, purge) -> the `change` row -> the head of the log.
Everything that changes something of an organization takes that organization's row first (`lock_organization`), so the
rows below it need no order among themselves; rows locked before may be written after `touch`, new locks may not be
taken except the log's.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from keepless.accounts.principal import Limits, PolicyInForce
from keepless.accounts.tables import change, model_limit, organization, period, project, ratchet
from keepless.errors import ConfigError
from keepless.ids import Id
from keepless.policy.controls import Controls, effective
from keepless.policy.data_class import DataClass, Feature
from keepless.policy.period import Ratchet

__all__ = [
    "SCHEMA_VERSION",
    "WHOLE_ORGANIZATION",
    "control_values",
    "controls_of",
    "generation_of",
    "in_force",
    "limits_of",
    "lock_organization",
    "model_limits_of",
    "periods_of",
    "policy_in_force",
    "prepare",
    "projects_of",
    "ratchets_of",
    "replace_model_limits",
    "replace_periods",
    "replace_ratchets",
    "touch",
    "update_organization",
    "update_project",
]

SCHEMA_VERSION: Final = 1
WHOLE_ORGANIZATION: Final = Id("")  # in `period` and `ratchet`: set by the organization itself
Days = Mapping[DataClass, int]
_GENERATION: Final = sa.select(change.c.generation)  # asked many times a second: made once
_OFF: Final = {
    Feature.INFERENCE_LOGGING: "inference_logging_off",
    Feature.BATCH: "batch_off",
    Feature.FINE_TUNING: "fine_tuning_off",
}


def prepare(tx: Connection, *, now_ms: int) -> None:
    """Make the one `change` row when there is none. Raises ConfigError for a database of a newer version."""
    version = tx.scalar(sa.select(change.c.schema_version))
    if version is None:
        tx.execute(change.insert().values(id=1, generation=0, schema_version=SCHEMA_VERSION, clock_floor=now_ms))
    elif version > SCHEMA_VERSION:
        raise ConfigError("the database was written by a newer Keepless: start that version, or restore an older copy")


def touch(tx: Connection) -> int:
    """Take the next generation; the rows changed in this transaction are stamped with it. Locks the `change` row.

    The lock is held until the commit, so generations become visible in their order: who has read generation g has
    seen every change up to g.
    """
    statement = change.update().values(generation=change.c.generation + 1).returning(change.c.generation)
    return int(tx.execute(statement).scalar_one())


def generation_of(tx: Connection) -> int:
    """The generation as this transaction sees it."""
    return int(tx.execute(_GENERATION).scalar_one())


def lock_organization(tx: Connection, organization_id: Id) -> Row[Any] | None:
    """The organization's row, locked against every other change and every write of content; None when there is none.

    `FOR NO KEY UPDATE`: it conflicts with the `FOR SHARE` of who compares the epoch, not with foreign keys.
    """
    query = sa.select(organization).where(organization.c.id == organization_id, organization.c.deleted_at.is_(None))
    return tx.execute(query.with_for_update(key_share=True)).one_or_none()


def update_organization(tx: Connection, organization_id: Id, generation: int, **values: Any) -> None:
    """Write columns of an organization and stamp it."""
    where = organization.c.id == organization_id
    tx.execute(organization.update().where(where).values(generation=generation, **values))


def update_project(tx: Connection, project_id: Id, generation: int, **values: Any) -> None:
    """Write columns of a project and stamp it."""
    tx.execute(project.update().where(project.c.id == project_id).values(generation=generation, **values))


def projects_of(tx: Connection, organization_id: Id) -> dict[Id, Row[Any]]:
    """Every project of an organization that is not archived."""
    query = sa.select(project).where(project.c.organization_id == organization_id, project.c.archived_at.is_(None))
    return {row.id: row for row in tx.execute(query)}


def periods_of(tx: Connection, organizations: sa.sql.ColumnElement[bool]) -> dict[tuple[Id, Id], dict[DataClass, int]]:
    """The periods that were set, as (organization, project or `WHOLE_ORGANIZATION`) -> class -> days."""
    found: dict[tuple[Id, Id], dict[DataClass, int]] = defaultdict(dict)
    for row in tx.execute(sa.select(period).where(organizations)):
        found[row.organization_id, row.project_id][DataClass(row.data_class)] = row.days
    return found


def controls_of(row: Row[Any], days: Days) -> Controls:
    """The controls in a row of `organization` or `project`."""
    off = frozenset(feature for feature, column in _OFF.items() if getattr(row, column))
    return Controls(bool(row.zero_data_retention), off, dict(days))


def control_values(controls: Controls) -> dict[str, bool]:
    """The columns of `organization` or `project` that hold these controls (periods have their own table)."""
    switches = {column: feature in controls.off for feature, column in _OFF.items()}
    return {"zero_data_retention": controls.zero_data_retention, **switches}


def limits_of(row: Row[Any]) -> Limits:
    """The rate limits in a row of `organization` or `project`."""
    return Limits(row.requests_per_minute, row.requests_per_day, row.tokens_per_minute)


def model_limits_of(tx: Connection, condition: sa.sql.ColumnElement[bool]) -> dict[Id, dict[str, Limits]]:
    """The limits of single models that were set, as project -> model -> limits."""
    found: dict[Id, dict[str, Limits]] = defaultdict(dict)
    for row in tx.execute(sa.select(model_limit).where(condition)):
        found[row.project_id][row.model] = limits_of(row)
    return found


def replace_model_limits(tx: Connection, organization_id: Id, project_id: Id, model: str, limits: Limits) -> None:
    """Set exactly these limits for one model of a project."""
    where = (model_limit.c.project_id == project_id, model_limit.c.model == model)
    tx.execute(model_limit.delete().where(*where))
    if not limits.none_set:
        own = {"organization_id": organization_id, "project_id": project_id, "model": model}
        tx.execute(
            model_limit.insert().values(
                **own,
                requests_per_minute=limits.requests_per_minute,
                requests_per_day=limits.requests_per_day,
                tokens_per_minute=limits.tokens_per_minute,
            )
        )


def replace_periods(tx: Connection, organization_id: Id, project_id: Id, days: Days) -> None:
    """Set exactly these periods for an organization (`WHOLE_ORGANIZATION`) or project."""
    tx.execute(
        period.delete().where(period.c.organization_id == organization_id, period.c.project_id == project_id),
    )
    rows = [
        {"organization_id": organization_id, "project_id": project_id, "data_class": data_class, "days": number}
        for data_class, number in days.items()
    ]
    if rows:
        tx.execute(period.insert(), rows)


def ratchets_of(tx: Connection, organization_id: Id, project_id: Id) -> dict[DataClass, list[Ratchet]]:
    """The shorter periods that older objects remain bound by, of one level alone."""
    query = sa.select(ratchet).where(ratchet.c.organization_id == organization_id, ratchet.c.project_id == project_id)
    found: dict[DataClass, list[Ratchet]] = defaultdict(list)
    for row in tx.execute(query.order_by(ratchet.c.created_before)):
        found[DataClass(row.data_class)].append(Ratchet(row.created_before, row.days))
    return found


def replace_ratchets(
    tx: Connection, organization_id: Id, project_id: Id, data_class: DataClass, ratchets: Iterable[Ratchet]
) -> None:
    """Set exactly these ratchets for one class of one level."""
    own = (
        ratchet.c.organization_id == organization_id,
        ratchet.c.project_id == project_id,
        ratchet.c.data_class == data_class,
    )
    tx.execute(ratchet.delete().where(*own))
    rows = [
        {
            "organization_id": organization_id,
            "project_id": project_id,
            "data_class": data_class,
            "created_before": r.created_before_ms,
            "days": r.days,
        }
        for r in ratchets
    ]
    if rows:
        tx.execute(ratchet.insert(), rows)


def in_force(tx: Connection, organization_row: Row[Any], project_row: Row[Any] | None) -> PolicyInForce:
    """What is in force for an organization or one of its projects, from rows of this transaction."""
    periods = periods_of(tx, period.c.organization_id == organization_row.id)
    own = controls_of(organization_row, periods.get((organization_row.id, WHOLE_ORGANIZATION), {}))
    below = None
    if project_row is not None:
        below = controls_of(project_row, periods.get((organization_row.id, project_row.id), {}))
    return PolicyInForce(effective(own, below), int(organization_row.epoch))


def policy_in_force(tx: Connection, organization_id: Id, project_id: Id) -> PolicyInForce | None:
    """What is in force now, read freshly (after a stale epoch); None when either is gone: then nothing may be kept.

    The epoch is read first: should the policy change in between, the epoch is the old one and no write passes with it.
    """
    organization_row = tx.execute(
        sa.select(organization).where(organization.c.id == organization_id, organization.c.deleted_at.is_(None))
    ).one_or_none()
    project_row = tx.execute(
        sa.select(project).where(
            project.c.id == project_id, project.c.organization_id == organization_id, project.c.archived_at.is_(None)
        )
    ).one_or_none()
    if organization_row is None or project_row is None:
        return None
    return in_force(tx, organization_row, project_row)
