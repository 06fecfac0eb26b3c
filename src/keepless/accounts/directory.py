"""Who there is: rows of organizations, projects, keys and members, as records without secrets.

Holds: a record for each kind, adding and listing. Leaves out: policy columns and the lock order (store), who may do it
and the log (governance). Names and e-mail addresses are account data: they go with the account (DECISIONS 18).

Every function works on the caller's transaction; `generation` is what `store.touch` gave it. Lists come in the order of
creation and are cut by the caller: an organization has few of each.
"""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from keepless.accounts.keys import MintedKey
from keepless.accounts.principal import Limits
from keepless.accounts.roles import Role
from keepless.accounts.store import limits_of
from keepless.accounts.tables import admin_key, api_key, member, organization, project
from keepless.ids import Id

__all__ = [
    "AdminKeyRecord",
    "ApiKeyRecord",
    "MemberRecord",
    "OrganizationRecord",
    "ProjectRecord",
    "add_admin_key",
    "add_api_key",
    "add_member",
    "add_organization",
    "add_project",
    "admin_keys",
    "api_keys",
    "members",
    "organizations",
    "projects",
]


@dataclass(frozen=True, slots=True)
class OrganizationRecord:
    """An organization. Instants in Unix ms."""

    id: Id
    name: str
    created_at_ms: int
    region: str | None
    limits: Limits


@dataclass(frozen=True, slots=True)
class ProjectRecord:
    """A project; `archived_at_ms` None = in use."""

    id: Id
    organization_id: Id
    name: str
    created_at_ms: int
    archived_at_ms: int | None
    limits: Limits


@dataclass(frozen=True, slots=True)
class ApiKeyRecord:
    """An API key in use, without its secret."""

    id: Id
    project_id: Id
    name: str
    hint: str
    created_at_ms: int
    expires_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class AdminKeyRecord:
    """An admin or operator key in use, without its secret. `loosen_until_ms`: end of its scope `controls:loosen`."""

    id: Id
    organization_id: Id | None
    role: Role
    name: str
    hint: str
    created_at_ms: int
    loosen_until_ms: int | None
    expires_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """A person."""

    id: Id
    email: str
    role: Role
    created_at_ms: int
    name: str | None = None


def add_organization(
    tx: Connection, generation: int, organization_id: Id, *, name: str, now_ms: int, region: str | None
) -> None:
    """A new organization with every control at its default."""
    values = {"id": organization_id, "name": name, "created_at": now_ms, "region": region}
    tx.execute(organization.insert().values(epoch=1, generation=generation, **values))


def add_project(
    tx: Connection, generation: int, project_id: Id, *, organization_id: Id, name: str, now_ms: int
) -> None:
    """A new project that overrides nothing."""
    values = {"id": project_id, "organization_id": organization_id, "name": name, "created_at": now_ms}
    tx.execute(project.insert().values(generation=generation, **values))


def add_api_key(
    tx: Connection,
    generation: int,
    key: MintedKey,
    *,
    organization_id: Id,
    project_id: Id,
    name: str,
    now_ms: int,
    expires_at_ms: int | None = None,
) -> None:
    """A new API key of a project; without `expires_at_ms` it ends when somebody deletes it."""
    own = {"organization_id": organization_id, "project_id": project_id, "expires_at": expires_at_ms}
    tx.execute(api_key.insert().values(**_key(generation, key, name, now_ms), **own))


def add_admin_key(
    tx: Connection,
    generation: int,
    key: MintedKey,
    *,
    organization_id: Id | None,
    role: Role,
    name: str,
    now_ms: int,
    loosen_until_ms: int | None = None,
    expires_at_ms: int | None = None,
) -> None:
    """A new admin key; `organization_id` None: the operator's."""
    rights = {"organization_id": organization_id, "role": role, "loosen_until": loosen_until_ms}
    rights["expires_at"] = expires_at_ms
    tx.execute(admin_key.insert().values(**_key(generation, key, name, now_ms), **rights))


def add_member(
    tx: Connection,
    member_id: Id,
    *,
    organization_id: Id | None,
    email: str,
    role: Role,
    password: str | None,
    now_ms: int,
    name: str | None = None,
    subject: bytes | None = None,
    invited: bool = False,
) -> None:
    """A new member; `password` is the argon2id hash, None = signs in elsewhere; no organization: an operator."""
    values = {"id": member_id, "organization_id": organization_id, "email": email.lower(), "role": role}
    proofs = {"password": password, "subject": subject, "invited": invited}
    tx.execute(member.insert().values(created_at=now_ms, name=name, **values, **proofs))


def _key(generation: int, key: MintedKey, name: str, now_ms: int) -> dict[str, Any]:
    own = {"id": key.id, "digest": key.digest, "hint": key.hint}
    return {**own, "name": name, "created_at": now_ms, "generation": generation}


def organizations(tx: Connection) -> list[OrganizationRecord]:
    """Every organization that is not deleted."""
    query = sa.select(organization).where(organization.c.deleted_at.is_(None))
    rows = tx.execute(query.order_by(organization.c.created_at, organization.c.id))
    return [OrganizationRecord(row.id, row.name, row.created_at, row.region, limits_of(row)) for row in rows]


def projects(tx: Connection, organization_id: Id, *, archived: bool = False) -> list[ProjectRecord]:
    """The projects of an organization."""
    query = sa.select(project).where(project.c.organization_id == organization_id)
    if not archived:
        query = query.where(project.c.archived_at.is_(None))
    rows = tx.execute(query.order_by(project.c.created_at, project.c.id))
    return [_project(row) for row in rows]


def _project(row: Row[Any]) -> ProjectRecord:
    return ProjectRecord(row.id, row.organization_id, row.name, row.created_at, row.archived_at, limits_of(row))


def api_keys(tx: Connection, organization_id: Id, project_id: Id | None = None) -> list[ApiKeyRecord]:
    """The API keys in use, of one project when it is given."""
    query = sa.select(api_key).where(api_key.c.organization_id == organization_id, api_key.c.revoked_at.is_(None))
    if project_id is not None:
        query = query.where(api_key.c.project_id == project_id)
    rows = tx.execute(query.order_by(api_key.c.created_at, api_key.c.id))
    return [ApiKeyRecord(row.id, row.project_id, row.name, row.hint, row.created_at, row.expires_at) for row in rows]


def admin_keys(tx: Connection, organization_id: Id | None) -> list[AdminKeyRecord]:
    """The admin keys in use; for None the operator's."""
    query = sa.select(admin_key).where(
        admin_key.c.organization_id.is_not_distinct_from(organization_id), admin_key.c.revoked_at.is_(None)
    )
    rows = tx.execute(query.order_by(admin_key.c.created_at, admin_key.c.id))
    return [
        AdminKeyRecord(
            row.id,
            row.organization_id,
            row.role,
            row.name,
            row.hint,
            row.created_at,
            row.loosen_until,
            row.expires_at,
        )
        for row in rows
    ]


def members(tx: Connection, organization_id: Id | None) -> list[MemberRecord]:
    """The members of an organization; None: operators."""
    query = sa.select(member).where(member.c.organization_id == organization_id, member.c.revoked_at.is_(None))
    rows = tx.execute(query.order_by(member.c.created_at, member.c.id))
    return [MemberRecord(row.id, row.email, row.role, row.created_at, row.name) for row in rows]
