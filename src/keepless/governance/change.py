"""What every change of governance has in common: one transaction, its log entry as the last step, then the fence.

Holds: `Office`, the tools of a change, and the refusals that several changes share. Leaves out: the changes themselves.

A change locks the organization's row first (`accounts.store`: the lock order), takes its generation with `touch`,
writes, and appends to the log; what it answers is true everywhere once `Fence.change` has returned.
"""

from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from keepless.accounts.fence import Fence
from keepless.accounts.principal import AdminPrincipal
from keepless.accounts.roles import ROLES, Permission
from keepless.accounts.store import lock_organization
from keepless.accounts.tables import organization
from keepless.clock import Clock
from keepless.db import Database
from keepless.errors import Code, ErrorType, Problem
from keepless.ids import Id
from keepless.receipts.log import Log

__all__ = [
    "Office",
    "allow",
    "as_many_as_may_be",
    "may_loosen",
    "not_found",
    "organization_row",
    "own_organization",
    "recent_sign_in_required",
]

_LOOSENING: Final = (
    "Loosening data controls needs an owner who signed in within the last 5 minutes, "
    "or an admin key with the scope controls:loosen."
)


@dataclass(frozen=True, slots=True)
class Office:
    """The tools of a change."""

    db: Database
    clock: Clock
    fence: Fence
    log: Log


def not_found() -> Problem:
    """Not yours, gone, or never there: one answer for all."""
    return Problem(404, Code.NOT_FOUND, "There is nothing with this id.")


def own_organization(tx: Connection, organization_id: Id) -> Row[Any]:
    """The organization's row, locked. Raises `Problem` 404."""
    row = lock_organization(tx, organization_id)
    if row is None:
        raise not_found()
    return row


def organization_row(tx: Connection, organization_id: Id) -> Row[Any]:
    """The organization's row, to read. Raises `Problem` 404."""
    query = sa.select(organization).where(organization.c.id == organization_id, organization.c.deleted_at.is_(None))
    row = tx.execute(query).one_or_none()
    if row is None:
        raise not_found()
    return row


def allow(actor: AdminPrincipal, permission: Permission, organization_id: Id) -> None:
    """Check again here what the route has checked: governance does not trust its callers. Raises `Problem` 403, 404."""
    if actor.organization_id != organization_id:
        raise not_found()
    if permission not in ROLES[actor.role]:
        raise Problem(
            403,
            Code.INSUFFICIENT_PERMISSIONS,
            "Data controls are changed by owners of the organization.",
            type=ErrorType.PERMISSION,
        )


def may_loosen(actor: AdminPrincipal, now_ms: int) -> bool:
    """Whether the actor may loosen data controls at this instant (DECISIONS 7)."""
    return actor.loosen_until_ms is not None and now_ms < actor.loosen_until_ms


def recent_sign_in_required() -> Problem:
    """The refusal for who may tighten only."""
    return Problem(403, Code.RECENT_SIGN_IN_REQUIRED, _LOOSENING, type=ErrorType.PERMISSION, retry=False)


def as_many_as_may_be(of: str, most: int) -> Problem:
    """The refusal of one more thing that every serving process would have to know."""
    return Problem(
        400, Code.INVALID_VALUE, f"There are {most} {of} already, which is the most an organization can have."
    )
