"""What the door asks of accounts: the epoch, the policy an object is read under, the holds that cover it.

Holds: those questions in SQL, on the caller's transaction. Leaves out: snapshots for the request path (accounts.lease);
the door reads the database itself, because what it decides must hold at the instant of its transaction.

PostgreSQL: whoever bumps an epoch or places a hold updates the organization's row; the door takes it FOR SHARE, so that
a put or a deletion stands either before or after the change, never across it. SQLite's write transaction is exclusive.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.accounts import tables as accounts
from keepless.ids import Id
from keepless.policy.controls import Controls, Effective, effective
from keepless.policy.data_class import DataClass, Feature
from keepless.policy.hold import Hold, covers
from keepless.policy.period import Ratchet
from keepless.vault.rows import Kept
from keepless.vault.tables import legal_hold

__all__ = ["InForce", "epoch_of", "holds_of", "in_force", "is_held", "lock_organizations"]

_FEATURE_COLUMNS: Final = {
    "inference_logging_off": Feature.INFERENCE_LOGGING,
    "batch_off": Feature.BATCH,
    "fine_tuning_off": Feature.FINE_TUNING,
}


_ORGANIZATION: Final = accounts.organization.c
# Made once: it is asked in every transaction that keeps something.
_EPOCH: Final = (
    sa.select(_ORGANIZATION.epoch, _ORGANIZATION.region)
    .where(_ORGANIZATION.id == sa.bindparam("whose"), _ORGANIZATION.deleted_at.is_(None))
    .with_for_update(read=True)
)


@dataclass(frozen=True, slots=True)
class InForce:
    """The policy that an object is read under. `alive`: its organization is not deleted."""

    alive: bool
    effective: Effective
    days: int | None
    ratchets: tuple[Ratchet, ...]


def epoch_of(tx: Connection, organization_id: Id) -> tuple[int, str | None] | None:
    """An organization's epoch and pinned region, its row locked FOR SHARE; None when it is gone."""
    row = tx.execute(_EPOCH, {"whose": organization_id}).one_or_none()
    return None if row is None else (row.epoch, row.region)


def lock_organizations(tx: Connection, organization_ids: Iterable[Id]) -> None:
    """Lock organizations' rows FOR SHARE: no hold can be placed and no epoch bumped until this transaction ends."""
    column = accounts.organization.c.id
    query = sa.select(column).where(column.in_(sorted(set(organization_ids)))).order_by(column)
    tx.execute(query.with_for_update(read=True)).all()


def in_force(tx: Connection, organization_id: Id, project_id: Id, data_class: DataClass) -> InForce | None:
    """What is in force now for one class; None when the organization or project cannot be read."""
    organization, project = accounts.organization, accounts.project
    top = tx.execute(sa.select(organization).where(organization.c.id == organization_id)).mappings().one_or_none()
    found = tx.execute(
        sa.select(project).where(project.c.id == project_id, project.c.organization_id == organization_id)
    )
    own = found.mappings().one_or_none()
    if top is None or own is None:
        return None
    days = {
        row.project_id: row.days
        for row in tx.execute(
            sa.select(accounts.period.c.project_id, accounts.period.c.days).where(
                accounts.period.c.organization_id == organization_id,
                accounts.period.c.project_id.in_(("", project_id)),
                accounts.period.c.data_class == data_class,
            )
        )
    }
    shorter = tx.execute(
        sa.select(accounts.ratchet.c.created_before, accounts.ratchet.c.days).where(
            accounts.ratchet.c.organization_id == organization_id,
            accounts.ratchet.c.project_id.in_(("", project_id)),
            accounts.ratchet.c.data_class == data_class,
        )
    )
    folded = effective(_controls(top, data_class, days.get("")), _controls(own, data_class, days.get(project_id)))
    ratchets = tuple(Ratchet(row.created_before, row.days) for row in shorter)
    return InForce(top["deleted_at"] is None, folded, folded.days[data_class], ratchets)


def _controls(values: Mapping[Any, Any], data_class: DataClass, days: int | None) -> Controls:
    return Controls(
        zero_data_retention=bool(values["zero_data_retention"]),
        off=frozenset(feature for column, feature in _FEATURE_COLUMNS.items() if values[column]),
        retention_days={} if days is None else {data_class: days},
    )


def holds_of(tx: Connection, organization_ids: Iterable[Id]) -> list[Hold]:
    """Every hold that is placed and not released in some organizations."""
    query = sa.select(legal_hold).where(
        legal_hold.c.organization_id.in_(sorted(set(organization_ids))), legal_hold.c.released_at.is_(None)
    )
    return [
        Hold(
            id=row.id,
            organization_id=row.organization_id,
            project_id=row.project_id,
            data_class=row.data_class,
            object_id=row.object_id,
            created_from_ms=row.created_from,
            created_to_ms=row.created_to,
        )
        for row in tx.execute(query)
    ]


def is_held(row: Kept, holds: Iterable[Hold]) -> bool:
    """Whether any of the holds covers an object."""
    return any(
        covers(
            hold,
            organization_id=row.organization_id,
            project_id=row.project_id,
            data_class=row.data_class,
            object_id=row.id,
            created_at_ms=row.created_at,
        )
        for hold in holds
    )
