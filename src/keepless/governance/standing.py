"""What an organization has set at every level, read in one transaction, and what it still keeps.

Holds: `Standing`, `standing_of`, and the look at what exists: `kept_by_class`, `residual`. Leaves out: changing
(controls).

Everything here costs by the number of projects, never by the number of kept objects: counts come from `kept_total`, the
newest and oldest object of a class from the ends of an index. What is held is counted one by one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from keepless.accounts.store import WHOLE_ORGANIZATION, controls_of, periods_of
from keepless.accounts.tables import period, project
from keepless.clock import DAY_MS
from keepless.governance.change import not_found
from keepless.ids import Id
from keepless.policy.controls import Controls, Effective, effective
from keepless.policy.data_class import DataClass
from keepless.vault.tables import kept, kept_total, legal_hold

__all__ = ["KeptCount", "Residual", "Standing", "held_of", "kept_by_class", "oldest_of", "residual", "standing_of"]

_NONE: Final = Controls()


@dataclass(frozen=True, slots=True)
class Standing:
    """What is set: by the organization, by each of its projects (archived ones too), and which of them is meant."""

    organization_id: Id
    epoch: int
    organization: Controls
    projects: dict[Id, Controls]
    project_id: Id | None = None

    @property
    def own(self) -> Controls:
        """What the level that is meant has set itself."""
        return self.organization if self.project_id is None else self.projects[self.project_id]

    @property
    def in_force(self) -> Effective:
        """What is in force at the level that is meant."""
        return self.for_project(self.project_id)

    @property
    def above(self) -> Effective | None:
        """What is in force above a project; None for the organization itself."""
        return None if self.project_id is None else effective(self.organization)

    def for_project(self, project_id: Id | None) -> Effective:
        """What is in force for one project (a project that is gone: for the organization)."""
        return effective(self.organization, None if project_id is None else self.projects.get(project_id, _NONE))

    def after(self, own: Controls, epoch: int) -> "Standing":
        """The same after the level that is meant has set `own`."""
        if self.project_id is None:
            return Standing(self.organization_id, epoch, own, self.projects)
        projects = {**self.projects, self.project_id: own}
        return Standing(self.organization_id, epoch, self.organization, projects, self.project_id)


@dataclass(frozen=True, slots=True)
class KeptCount:
    """How much of one class of one project is kept; bytes of ciphertext."""

    project_id: Id
    data_class: DataClass
    objects: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Residual:
    """What exists although its feature is off. `until_ms`: when the last of it has ended; None = nobody can say."""

    objects: int
    bytes: int
    until_ms: int | None


def standing_of(tx: Connection, row: Row[Any], project_id: Id | None) -> Standing:
    """Everything set under an organization's row. Raises `Problem` 404 for a project that is not one of its own."""
    days = periods_of(tx, period.c.organization_id == row.id)
    rows = tx.execute(sa.select(project).where(project.c.organization_id == row.id)).all()
    if project_id is not None and not any(r.id == project_id and r.archived_at is None for r in rows):
        raise not_found()
    own = controls_of(row, days.get((row.id, WHOLE_ORGANIZATION), {}))
    projects = {r.id: controls_of(r, days.get((row.id, r.id), {})) for r in rows}
    return Standing(row.id, int(row.epoch), own, projects, project_id)


def kept_by_class(tx: Connection, standing: Standing) -> list[KeptCount]:
    """What is kept at the level that is meant, by project and class."""
    query = sa.select(kept_total).where(
        kept_total.c.organization_id == standing.organization_id, kept_total.c.objects > 0
    )
    if standing.project_id is not None:
        query = query.where(kept_total.c.project_id == standing.project_id)
    return [KeptCount(row.project_id, DataClass(row.data_class), row.objects, row.bytes) for row in tx.execute(query)]


def oldest_of(tx: Connection, standing: Standing, counts: Iterable[KeptCount]) -> int | None:
    """When the oldest of these was created, Unix ms; None when there is none."""
    oldest = sa.func.min(kept.c.created_at)
    found = (tx.scalar(look(standing, count, oldest)) for count in counts for look in (_not_moved, _moved))
    return min((instant for instant in found if instant is not None), default=None)


def held_of(tx: Connection, standing: Standing, counts: Iterable[KeptCount]) -> int:
    """How many of these a legal hold keeps."""
    return sum(tx.scalar(_moved(standing, count, sa.func.count())) or 0 for count in counts)


def residual(tx: Connection, standing: Standing) -> Residual:
    """What is kept of classes whose feature is off, and by when it has ended at the latest."""
    counts = [c for c in kept_by_class(tx, standing) if not standing.for_project(c.project_id).allows(c.data_class)]
    ends = [_end(tx, standing, count) for count in counts]
    known = [end for end in ends if end is not None]
    until = max(known) if known and len(known) == len(ends) and not _held(tx, standing.organization_id) else None
    return Residual(sum(c.objects for c in counts), sum(c.bytes for c in counts), until)


def _end(tx: Connection, standing: Standing, count: KeptCount) -> int | None:
    """When the newest of a class ends, Unix ms; None = until deleted, or kept by a hold."""
    days = standing.for_project(count.project_id).days[count.data_class]
    newest = tx.scalar(_not_moved(standing, count, sa.func.max(kept.c.created_at)))
    return None if days is None or newest is None else int(newest) + days * DAY_MS


def _not_moved(standing: Standing, count: KeptCount, wanted: sa.Function[Any]) -> sa.Select[Any]:
    """Asked of one end of the index `kept_by_age`, which objects under a hold's KEK have left."""
    own = kept.c.organization_id == standing.organization_id
    return sa.select(wanted).where(own, *_of(count), kept.c.hold_id.is_(None))


def _moved(standing: Standing, count: KeptCount, wanted: sa.Function[Any]) -> sa.Select[Any]:
    """Asked of the index of held objects, so it costs what is held; whose they are follows from their hold."""
    own = kept.c.hold_id.in_(_holds(standing.organization_id))
    return sa.select(wanted).where(kept.c.hold_id.is_not(None), own, *_of(count))


def _of(count: KeptCount) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return kept.c.project_id == count.project_id, kept.c.data_class == count.data_class


def _holds(organization_id: Id) -> sa.Select[Any]:
    return sa.select(legal_hold.c.id).where(legal_hold.c.organization_id == organization_id)


def _held(tx: Connection, organization_id: Id) -> bool:
    """Whether a hold is in place, or was and has not let go of everything yet."""
    placed = _holds(organization_id).where(legal_hold.c.released_at.is_(None))
    moved = sa.select(kept.c.id).where(kept.c.hold_id.is_not(None), kept.c.hold_id.in_(_holds(organization_id)))
    return any(tx.execute(query.limit(1)).first() is not None for query in (placed, moved))
