"""SQL of invites: records without secrets; small functions on a transaction.

Holds: `InviteRecord`, adding, listing, finding, accepting, deleting. Leaves out: who may invite, the log
(governance.people). An invite holds an address, which is account data: it goes with its organization, 30 days after it
has ended, and with the member that came of it.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from keepless.accounts import places
from keepless.accounts.keys import digest_of, mint_secret
from keepless.accounts.people_tables import ProjectRole, invite, invite_project
from keepless.accounts.roles import Role
from keepless.accounts.tables import organization
from keepless.ids import Id

__all__ = [
    "INVITE_MS",
    "InviteRecord",
    "accept_invite",
    "add_invite",
    "delete_invite",
    "forget_invites",
    "forget_invites_to",
    "invites_of",
    "use_invite",
    "use_invite_of",
]

_DAY_MS: Final = 24 * 3_600_000
INVITE_MS: Final = 7 * _DAY_MS
_REMEMBERED_MS: Final = 30 * _DAY_MS


@dataclass(frozen=True, slots=True)
class InviteRecord:
    """An invite, without its secret."""

    id: Id
    organization_id: Id
    email: str
    role: Role
    projects: Mapping[Id, ProjectRole]
    created_at_ms: int
    expires_at_ms: int
    accepted_at_ms: int | None


def add_invite(
    tx: Connection,
    invite_id: Id,
    *,
    organization_id: Id,
    email: str,
    role: Role,
    projects: Mapping[Id, ProjectRole],
    now_ms: int,
) -> str:
    """A new invite; its secret, which is nowhere else."""
    secret = mint_secret()
    values = {"id": invite_id, "organization_id": organization_id, "email": email, "role": role}
    stamps = {"digest": digest_of(secret.encode()), "created_at": now_ms, "expires_at": now_ms + INVITE_MS}
    tx.execute(invite.insert().values(**values, **stamps))
    rows = [{"invite_id": invite_id, "project_id": one, "role": own} for one, own in projects.items()]
    if rows:
        tx.execute(invite_project.insert(), rows)
    return secret


def invites_of(tx: Connection, organization_id: Id) -> list[InviteRecord]:
    """The invites of an organization, oldest first."""
    projects: dict[Id, dict[Id, ProjectRole]] = defaultdict(dict)
    own = sa.select(invite.c.id).where(invite.c.organization_id == organization_id)
    for row in tx.execute(sa.select(invite_project).where(invite_project.c.invite_id.in_(own))):
        projects[row.invite_id][row.project_id] = row.role
    query = sa.select(invite).where(invite.c.organization_id == organization_id)
    rows = tx.execute(query.order_by(invite.c.created_at, invite.c.id))
    return [_record(row, projects.get(row.id, {})) for row in rows]


def use_invite(tx: Connection, secret: str, now_ms: int) -> InviteRecord | None:
    """The invite of a secret, while it can be accepted; locked until the end of the transaction."""
    return _usable(tx, invite.c.digest == digest_of(secret.encode()), now_ms)


def use_invite_of(tx: Connection, invite_id: Id, now_ms: int) -> InviteRecord | None:
    """The same for who has shown the secret before."""
    return _usable(tx, invite.c.id == invite_id, now_ms)


def _usable(tx: Connection, which: sa.ColumnElement[bool], now_ms: int) -> InviteRecord | None:
    query = (
        sa.select(invite)
        .join(organization, invite.c.organization_id == organization.c.id)
        .where(
            which,
            invite.c.accepted_at.is_(None),
            invite.c.expires_at > now_ms,
            organization.c.deleted_at.is_(None),
        )
        .with_for_update(of=invite)
    )
    row = tx.execute(query).one_or_none()
    return None if row is None else _record(row, {})


def accept_invite(tx: Connection, invite_id: Id, now_ms: int) -> None:
    """It is accepted, and opens nothing any more."""
    tx.execute(invite.update().where(invite.c.id == invite_id).values(accepted_at=now_ms))


def delete_invite(tx: Connection, organization_id: Id, invite_id: Id, now_ms: int) -> bool:
    """Delete an invite; whether there was one."""
    own = (invite.c.id == invite_id, invite.c.organization_id == organization_id)
    if tx.execute(sa.select(invite.c.id).where(*own)).first() is None:
        return False
    places.leave(tx, invite, [invite_id], now_ms)
    return tx.execute(invite.delete().where(*own)).rowcount == 1


def forget_invites(tx: Connection, organization_id: Id, ended_before_ms: int | None = None) -> None:
    """Delete an organization's invites: all, or those that ended more than 30 days before an instant."""
    query = invite.delete().where(invite.c.organization_id == organization_id)
    if ended_before_ms is not None:
        query = query.where(invite.c.expires_at < ended_before_ms - _REMEMBERED_MS)
    tx.execute(query)


def forget_invites_to(tx: Connection, organization_id: Id, email: str) -> None:
    """Delete every invite of an organization to one address."""
    tx.execute(invite.delete().where(invite.c.organization_id == organization_id, invite.c.email == email))


def _record(row: Row[Any], projects: Mapping[Id, ProjectRole]) -> InviteRecord:
    return InviteRecord(
        row.id,
        row.organization_id,
        row.email,
        row.role,
        projects,
        row.created_at,
        row.expires_at,
        row.accepted_at,
    )
