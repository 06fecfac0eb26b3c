"""People who sign in: sessions, links, invites; members of the platform itself."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def _id(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=40), nullable=nullable)


def _instant(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _digest(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary(length=32), nullable=False)


def upgrade() -> None:
    """Make the tables; an address is found whatever case it was typed in."""
    with op.batch_alter_table("member") as batch:
        batch.alter_column("organization_id", existing_type=sa.String(length=40), nullable=True)
        batch.add_column(sa.Column("name", sa.String(length=200), nullable=True))
        batch.add_column(sa.Column("subject", sa.LargeBinary(length=32), nullable=True))
        batch.create_unique_constraint("member_subject_key", ["subject"])
    op.create_index(op.f("ix_member_email"), "member", ["email"], unique=False)
    op.execute(
        "UPDATE member SET email = lower(email) WHERE NOT EXISTS (SELECT 1 FROM member AS other "
        "WHERE other.organization_id = member.organization_id AND other.id <> member.id "
        "AND lower(other.email) = lower(member.email))"
    )
    op.create_table(
        "session",
        _digest("digest"),
        _id("member_id"),
        sa.Column("method", sa.String(length=40), nullable=False),
        *(_instant(name) for name in ("created_at", "signed_in_at", "seen_at", "ends_at")),
        sa.ForeignKeyConstraint(["member_id"], ["member.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index(op.f("ix_session_member_id"), "session", ["member_id"], unique=False)
    op.create_index(op.f("ix_session_ends_at"), "session", ["ends_at"], unique=False)
    op.create_table(
        "sign_in_link",
        _digest("digest"),
        _id("member_id"),
        _instant("ends_at"),
        sa.ForeignKeyConstraint(["member_id"], ["member.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index(op.f("ix_sign_in_link_member_id"), "sign_in_link", ["member_id"], unique=False)
    op.create_index(op.f("ix_sign_in_link_ends_at"), "sign_in_link", ["ends_at"], unique=False)
    op.create_table(
        "invite",
        _id("id"),
        _id("organization_id"),
        sa.Column("email", sa.String(length=254), nullable=False),
        sa.Column("role", sa.String(length=40), nullable=False),
        _digest("digest"),
        _instant("created_at"),
        _instant("expires_at"),
        _instant("accepted_at", nullable=True),
        sa.ForeignKeyConstraint(["organization_id"], ["organization.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("digest"),
    )
    op.create_index(op.f("ix_invite_organization_id"), "invite", ["organization_id"], unique=False)
    op.create_table(
        "invite_project",
        _id("invite_id"),
        _id("project_id"),
        sa.Column("role", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(["invite_id"], ["invite.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"]),
        sa.PrimaryKeyConstraint("invite_id", "project_id"),
    )
    op.create_table(
        "oidc_visit",
        _digest("digest"),
        _digest("browser"),
        _id("member_id", nullable=True),
        sa.Column("path", sa.String(length=200), nullable=False),
        _instant("ends_at"),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index(op.f("ix_oidc_visit_ends_at"), "oidc_visit", ["ends_at"], unique=False)
    op.create_table(
        "sign_in_try",
        sa.Column("bucket", sa.Integer(), autoincrement=False, nullable=False),
        _instant("began_at"),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("bucket"),
    )


def downgrade() -> None:
    """There is no way back: an older version must not open what a newer one has written."""
    raise NotImplementedError
