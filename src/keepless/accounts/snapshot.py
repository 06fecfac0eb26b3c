"""What one process knows of all accounts, as one immutable value; and how it is brought up to date.

Holds: `Snapshot` and `read`, which reads what changed since the snapshot's generation and makes the next snapshot.
Leaves out: when it is read and how long it may be acted on (lease).

One read is one transaction with one consistent view (PostgreSQL: REPEATABLE READ; SQLite's reads are). Because
`touch` holds the lock on the `change` row until its commit, who reads generation g sees every row stamped up to g. An
organization of which anything that makes policy has changed is read whole, with its projects, periods and limits; keys
are read one by one. A key whose own end has come leaves the snapshot without a change in the database.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.accounts.principal import AdminPrincipal, OrganizationState, PolicyInForce, Principal, ProjectState
from keepless.accounts.store import (
    WHOLE_ORGANIZATION,
    controls_of,
    generation_of,
    limits_of,
    model_limits_of,
    periods_of,
)
from keepless.accounts.tables import admin_key, api_key, model_limit, organization, period, project
from keepless.accounts.tuned import ReadTuned, Tuned, none_at_all
from keepless.ids import Id
from keepless.policy.controls import effective

__all__ = ["EMPTY", "KeyPlace", "Snapshot", "read", "without_ended"]


@dataclass(frozen=True, slots=True)
class KeyPlace:
    """What an API key opens."""

    key_id: Id
    organization_id: Id
    project_id: Id


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the request path asks accounts. Revoked, archived and deleted things are not in it.

    `principals` and `policies` are filled as keys are used, from the other maps; they are the only parts that change.
    """

    generation: int
    organizations: Mapping[Id, OrganizationState]
    projects: Mapping[Id, tuple[Id, ProjectState]]  # with the organization it belongs to
    keys: Mapping[bytes, KeyPlace]
    admins: Mapping[bytes, AdminPrincipal]
    ends: Mapping[bytes, int] = field(default_factory=dict)  # of the keys that end by themselves; Unix ms
    tuned: Mapping[str, Tuned] = field(default_factory=dict)  # models, by their digits
    principals: dict[bytes, Principal] = field(default_factory=dict, compare=False)
    policies: dict[Id, PolicyInForce] = field(default_factory=dict, compare=False)  # of projects

    def principal(self, digest: bytes) -> Principal | None:
        """What an API key stands for; None for an unknown one or one whose project or organization is gone."""
        found = self.principals.get(digest)
        if found is not None:
            return found
        place = self.keys.get(digest)
        if place is None:
            return None
        owner = self.organizations.get(place.organization_id)
        below = self.projects.get(place.project_id)
        if owner is None or below is None:
            return None
        return self.principals.setdefault(digest, Principal(place.key_id, owner, below[1]))

    def policy(self, organization_id: Id, project_id: Id) -> PolicyInForce | None:
        """What is in force for a project; None when one of the two is gone, or it is another organization's."""
        owner, below = self.organizations.get(organization_id), self.projects.get(project_id)
        if owner is None or below is None or below[0] != organization_id:
            return None
        found = self.policies.get(project_id)
        if found is None:
            found = self.policies.setdefault(project_id, PolicyInForce(below[1].effective, owner.epoch))
        return found


EMPTY: Final = Snapshot(-1, {}, {}, {}, {})


def read(tx: Connection, present: Snapshot, read_tuned: ReadTuned = none_at_all) -> Snapshot:
    """The next snapshot; the same object when nothing has changed.

    Tuned models are looked at every time, since their weights may end by themselves, which takes no generation; with
    each new generation they are read whole.
    """
    generation = generation_of(tx)
    tuned = read_tuned(tx, present.tuned if generation == present.generation else {})
    if generation == present.generation:
        return present if tuned is present.tuned else replace(present, tuned=tuned)
    if generation < present.generation:
        present = EMPTY  # the database was restored from an older copy: nothing known may be trusted
    seen = present.generation
    organizations, projects = _policies(tx, seen, present)
    keys, admins, ends = dict(present.keys), dict(present.admins), dict(present.ends)
    for row in tx.execute(sa.select(api_key).where(api_key.c.generation > seen)):
        digest = bytes(row.digest)
        _note_end(ends, digest, row)
        if row.revoked_at is None:
            keys[digest] = KeyPlace(row.id, row.organization_id, row.project_id)
        else:
            keys.pop(digest, None)
    for row in tx.execute(sa.select(admin_key).where(admin_key.c.generation > seen)):
        digest = bytes(row.digest)
        _note_end(ends, digest, row)
        if row.revoked_at is None:
            admins[digest] = AdminPrincipal(row.id, row.organization_id, row.role, row.loosen_until)
        else:
            admins.pop(digest, None)
    return Snapshot(generation, organizations, projects, keys, admins, ends, tuned)


def without_ended(present: Snapshot, now_ms: int) -> Snapshot:
    """The snapshot without the keys whose time is over; the same object when there is none."""
    over = [digest for digest, end_ms in present.ends.items() if end_ms <= now_ms]
    if not over:
        return present
    keys, admins, ends = dict(present.keys), dict(present.admins), dict(present.ends)
    for digest in over:
        keys.pop(digest, None)
        admins.pop(digest, None)
        del ends[digest]
    return Snapshot(present.generation, present.organizations, present.projects, keys, admins, ends, present.tuned)


def _note_end(ends: dict[bytes, int], digest: bytes, row: Any) -> None:
    if row.revoked_at is None and row.expires_at is not None:
        ends[digest] = row.expires_at
    else:
        ends.pop(digest, None)


def _policies(
    tx: Connection, seen: int, present: Snapshot
) -> tuple[dict[Id, OrganizationState], dict[Id, tuple[Id, ProjectState]]]:
    """Organizations and projects after reading again, whole, every organization of which a policy row has changed."""
    changed = sa.union(
        sa.select(organization.c.id).where(organization.c.generation > seen),
        sa.select(project.c.organization_id).where(project.c.generation > seen),
    ).scalar_subquery()
    organizations, projects = dict(present.organizations), dict(present.projects)
    days = periods_of(tx, period.c.organization_id.in_(changed))
    of_models = model_limits_of(tx, model_limit.c.organization_id.in_(changed))
    rows: dict[Id, Any] = {}
    for row in tx.execute(sa.select(organization).where(organization.c.id.in_(changed))):
        rows[row.id] = row
        if row.deleted_at is None:
            controls = controls_of(row, days.get((row.id, WHOLE_ORGANIZATION), {}))
            organizations[row.id] = OrganizationState(row.id, int(row.epoch), controls, limits_of(row), row.region)
        else:
            organizations.pop(row.id, None)
    for row in tx.execute(sa.select(project).where(project.c.organization_id.in_(changed))):
        owner = organizations.get(row.organization_id)
        if owner is None or row.archived_at is not None:
            projects.pop(row.id, None)
        else:
            controls = controls_of(row, days.get((owner.id, row.id), {}))
            folded = effective(owner.controls, controls)
            state = ProjectState(row.id, controls, folded, limits_of(row), of_models.get(row.id))
            projects[row.id] = (owner.id, state)
    return organizations, projects
