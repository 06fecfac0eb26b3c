"""Roles and what each may do: one table, greppable and tested exhaustively.

Holds: `Role`, `Permission` (grammar `area:object:action`) and `ROLES`. Leaves out: who has which role (tables), routes.
"""

from enum import StrEnum
from typing import Final

__all__ = ["ROLES", "Permission", "Role"]


class Role(StrEnum):
    """What an admin key or member may be. An API key is none of these: it calls inference and nothing else."""

    OWNER = "owner"
    DEVELOPER = "developer"
    READER = "reader"
    AUDITOR = "auditor"
    OPERATOR = "operator"


class Permission(StrEnum):
    """What a route asks for."""

    CONTROLS_READ = "policy:controls:read"
    CONTROLS_CHANGE = "policy:controls:change"
    OBJECTS_LIST = "vault:objects:list"
    OBJECTS_DELETE = "vault:objects:delete"
    RECEIPTS_READ = "receipts:receipt:read"
    AUDIT_READ = "receipts:audit_log:read"
    USAGE_READ = "usage:totals:read"
    FILES_READ = "files:file:list"  # names and batches
    FILES_MANAGE = "files:file:manage"  # content, upload, delete, cancel
    FILES_EXPORT = "files:file:export"  # everything of a feature at once
    PROJECTS_READ = "accounts:projects:read"
    PROJECTS_MANAGE = "accounts:projects:manage"
    KEYS_READ = "accounts:keys:read"
    KEYS_MANAGE = "accounts:keys:manage"
    ADMIN_KEYS_MANAGE = "accounts:admin_keys:manage"
    MEMBERS_MANAGE = "accounts:members:manage"
    HOLDS_READ = "policy:holds:read"
    HOLDS_PLACE = "policy:holds:place"
    CAPTURES_READ = "incident:captures:read"
    OPENINGS_READ = "incident:openings:read"
    OPENINGS_DECIDE = "incident:openings:decide"  # ask for one, decide another's, see what was approved
    CASES_READ = "incident:cases:read"
    CASES_DECIDE = "incident:cases:decide"
    WEBHOOKS_READ = "webhooks:endpoints:read"
    WEBHOOKS_MANAGE = "webhooks:endpoints:manage"
    ORGANIZATIONS_MANAGE = "accounts:organizations:manage"
    RECORDS_ERASE = "governance:records:erase"
    METRICS_READ = "server:metrics:read"


_READ: Final = frozenset(
    {
        Permission.CONTROLS_READ,
        Permission.OBJECTS_LIST,
        Permission.RECEIPTS_READ,
        Permission.AUDIT_READ,
        Permission.USAGE_READ,
        Permission.FILES_READ,
        Permission.PROJECTS_READ,
        Permission.KEYS_READ,
        Permission.HOLDS_READ,
        Permission.CASES_READ,
        Permission.CAPTURES_READ,
        Permission.OPENINGS_READ,
        Permission.WEBHOOKS_READ,
    }
)

ROLES: Final = {
    Role.READER: _READ,
    Role.DEVELOPER: _READ | {Permission.KEYS_MANAGE, Permission.FILES_MANAGE},
    # Auditors see what is promised and what proves it: policy, holds, receipts, what is kept (never what is in it).
    Role.AUDITOR: frozenset(
        {
            Permission.CONTROLS_READ,
            Permission.OBJECTS_LIST,
            Permission.RECEIPTS_READ,
            Permission.AUDIT_READ,
            Permission.PROJECTS_READ,
            Permission.HOLDS_READ,
            Permission.CASES_READ,
            Permission.CAPTURES_READ,
            Permission.OPENINGS_READ,
        }
    ),
    Role.OWNER: _READ
    | {
        Permission.CONTROLS_CHANGE,
        Permission.OBJECTS_DELETE,
        Permission.FILES_MANAGE,
        Permission.FILES_EXPORT,
        Permission.OPENINGS_DECIDE,
        Permission.PROJECTS_MANAGE,
        Permission.KEYS_MANAGE,
        Permission.ADMIN_KEYS_MANAGE,
        Permission.MEMBERS_MANAGE,
        Permission.WEBHOOKS_MANAGE,
    },
    # Operators run the platform; they see no organization's content and change no organization's controls.
    Role.OPERATOR: frozenset(
        {
            Permission.ORGANIZATIONS_MANAGE,
            Permission.AUDIT_READ,
            Permission.HOLDS_READ,
            Permission.HOLDS_PLACE,
            Permission.CASES_READ,
            Permission.CASES_DECIDE,
            Permission.CAPTURES_READ,
            Permission.OPENINGS_READ,
            Permission.OPENINGS_DECIDE,
            Permission.RECORDS_ERASE,
            Permission.METRICS_READ,
        }
    ),
}
