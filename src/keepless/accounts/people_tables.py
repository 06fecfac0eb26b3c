"""Tables of people who sign in: sessions, one-time links, invites, visits to the OIDC provider, tries.

Every secret here is 256 random bits, stored as its SHA-256 alone; whoever reads the database can sign in with none of
them. What belongs to a member ends with the member. Leaves out: members themselves (tables), SQL (sessions, invites).
"""

from enum import StrEnum

import sqlalchemy as sa

from keepless.accounts.roles import Role
from keepless.db import EnumText, Holds, IdText, Instant, table

__all__ = ["Method", "ProjectRole", "invite", "invite_project", "oidc_visit", "session", "sign_in_link", "sign_in_try"]


class Method(StrEnum):
    """How a person signed in."""

    PHRASE = "password"
    LINK = "link"
    INVITE = "invite"
    OIDC = "oidc"


class ProjectRole(StrEnum):
    """OpenAI's roles in a project."""

    MEMBER = "member"
    OWNER = "owner"


def _member() -> sa.Column[object]:
    return sa.Column("member_id", IdText, sa.ForeignKey("member.id", ondelete="CASCADE"), nullable=False, index=True)


session = table(
    "session",
    sa.Column("digest", sa.LargeBinary(32), primary_key=True),
    _member(),
    sa.Column("method", EnumText(Method), nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("signed_in_at", Instant, nullable=False),
    sa.Column("seen_at", Instant, nullable=False),  # written at most once a minute
    sa.Column("ends_at", Instant, nullable=False, index=True),
    holds=Holds.ACCOUNT_DATA,
)

sign_in_link = table(
    "sign_in_link",
    sa.Column("digest", sa.LargeBinary(32), primary_key=True),
    _member(),
    sa.Column("ends_at", Instant, nullable=False, index=True),
    holds=Holds.ACCOUNT_DATA,
)

invite = table(
    "invite",
    sa.Column("id", IdText, primary_key=True),
    sa.Column("organization_id", IdText, sa.ForeignKey("organization.id"), nullable=False, index=True),
    sa.Column("email", sa.String(254), nullable=False),
    sa.Column("role", EnumText(Role), nullable=False),
    sa.Column("digest", sa.LargeBinary(32), nullable=False, unique=True),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("expires_at", Instant, nullable=False),
    sa.Column("accepted_at", Instant),
    holds=Holds.ACCOUNT_DATA,
)

invite_project = table(
    "invite_project",
    sa.Column("invite_id", IdText, sa.ForeignKey("invite.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("project_id", IdText, sa.ForeignKey("project.id"), primary_key=True),
    sa.Column("role", EnumText(ProjectRole), nullable=False),
    holds=Holds.ACCOUNT_DATA,
)

oidc_visit = table(
    "oidc_visit",
    sa.Column("digest", sa.LargeBinary(32), primary_key=True),  # of `state`
    sa.Column("browser", sa.LargeBinary(32), nullable=False),  # of the cookie of whoever set out
    sa.Column("member_id", IdText),  # who signs in again; null: whoever comes back
    sa.Column("invite_id", IdText),  # the invite that whoever comes back accepts
    sa.Column("path", sa.String(200), nullable=False),  # the page to go on to, one of ours
    sa.Column("ends_at", Instant, nullable=False, index=True),
    holds=Holds.CONTROL,
)

# Tries at one sixteen-bit part of the SHA-256 of an address: enough to slow down guessing, too little to tell who.
sign_in_try = table(
    "sign_in_try",
    sa.Column("bucket", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("began_at", Instant, nullable=False),
    sa.Column("tries", sa.Integer, nullable=False),
    holds=Holds.CONTROL,
)
