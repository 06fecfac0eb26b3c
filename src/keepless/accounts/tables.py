"""Tables of accounts: organizations, projects, keys, members, what they set, and the processes that
must learn of a change.

Account data (names, e-mail addresses) is shown in the console and deleted with the account (DECISIONS 18). Keys are
stored as SHA-256 of 256 random bits; the secret exists only in the answer that created it.

`generation` = the value of `change.generation` at the last change of a row: a process learns what changed by asking
for rows with a later generation than it has seen (see `keepless.accounts.lease`). `epoch` is policy's own counter, one
an organization (DECISIONS 1), and is used for nothing else.
"""

import sqlalchemy as sa

from keepless.accounts.roles import Role
from keepless.db import EnumText, Holds, IdText, Instant, table
from keepless.policy.data_class import DataClass

__all__ = [
    "admin_key",
    "api_key",
    "change",
    "member",
    "model_appeared",
    "model_limit",
    "organization",
    "period",
    "place",
    "process",
    "project",
    "ratchet",
]


def _controls() -> list[sa.Column[object]]:
    return [
        sa.Column("zero_data_retention", sa.Boolean, nullable=False, default=False),
        sa.Column("inference_logging_off", sa.Boolean, nullable=False, default=False),
        sa.Column("batch_off", sa.Boolean, nullable=False, default=False),
        sa.Column("fine_tuning_off", sa.Boolean, nullable=False, default=False),
    ]


def _limits() -> list[sa.Column[object]]:
    """Rate limits; null = not set (DECISIONS 23)."""
    return [
        sa.Column("requests_per_minute", sa.Integer),
        sa.Column("requests_per_day", sa.Integer),
        sa.Column("tokens_per_minute", sa.Integer),
    ]


organization = table(
    "organization",
    sa.Column("id", IdText, primary_key=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("deleted_at", Instant),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("generation", sa.BigInteger, nullable=False, index=True),
    sa.Column("region", sa.String(40)),  # pinned: upstreams and locations outside of it are refused; null = not pinned
    *_controls(),
    *_limits(),
    holds=Holds.ACCOUNT_DATA,
)

project = table(
    "project",
    sa.Column("id", IdText, primary_key=True),
    sa.Column("organization_id", IdText, sa.ForeignKey("organization.id"), nullable=False, index=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("archived_at", Instant),
    sa.Column("generation", sa.BigInteger, nullable=False, index=True),
    *_controls(),
    *_limits(),
    holds=Holds.ACCOUNT_DATA,
)

model_limit = table(  # read with its project, whose generation is that of its limits too
    "model_limit",
    sa.Column("project_id", IdText, sa.ForeignKey("project.id"), primary_key=True),
    sa.Column("model", sa.String(96), primary_key=True),  # an id of the operator's catalogue
    sa.Column("organization_id", IdText, sa.ForeignKey("organization.id"), nullable=False, index=True),
    *_limits(),
    holds=Holds.ACCOUNT_DATA,
)

model_appeared = table(
    "model_appeared",
    sa.Column("model", sa.String(96), primary_key=True),  # an id of the operator's catalogue
    sa.Column("at", Instant, nullable=False),  # when a process of this deployment first offered it
    holds=Holds.CONTROL,
)

api_key = table(
    "api_key",
    sa.Column("id", IdText, primary_key=True),
    sa.Column("organization_id", IdText, sa.ForeignKey("organization.id"), nullable=False, index=True),
    sa.Column("project_id", IdText, sa.ForeignKey("project.id"), nullable=False, index=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("digest", sa.LargeBinary(32), nullable=False, unique=True),
    sa.Column("hint", sa.String(16), nullable=False),  # first and last letters, for people
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("revoked_at", Instant),
    sa.Column("generation", sa.BigInteger, nullable=False, index=True),
    sa.Column("expires_at", Instant),  # null: when somebody deletes it
    holds=Holds.ACCOUNT_DATA,
)

admin_key = table(
    "admin_key",
    sa.Column("id", IdText, primary_key=True),
    sa.Column("organization_id", IdText, sa.ForeignKey("organization.id"), index=True),  # null: the operator's
    sa.Column("role", EnumText(Role), nullable=False),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("digest", sa.LargeBinary(32), nullable=False, unique=True),
    sa.Column("hint", sa.String(16), nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("revoked_at", Instant),
    sa.Column("loosen_until", Instant),  # scope controls:loosen ends then; null = has no such scope
    sa.Column("generation", sa.BigInteger, nullable=False, index=True),
    sa.Column("expires_at", Instant),  # null: when somebody deletes it
    holds=Holds.ACCOUNT_DATA,
)

member = table(
    "member",
    sa.Column("id", IdText, primary_key=True),
    sa.Column("organization_id", IdText, sa.ForeignKey("organization.id"), index=True),  # null: an operator
    sa.Column("email", sa.String(254), nullable=False, index=True),  # in lower case
    sa.Column("name", sa.String(200)),
    sa.Column("role", EnumText(Role), nullable=False),
    sa.Column("password", sa.String(200)),  # argon2id; null = signs in elsewhere
    sa.Column("subject", sa.LargeBinary(32), unique=True),  # SHA-256 of issuer and subject at the OIDC provider
    sa.Column("invited", sa.Boolean, nullable=False, default=False),  # the role is an invite's, not a group's
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("revoked_at", Instant),
    sa.UniqueConstraint("organization_id", "email"),
    holds=Holds.ACCOUNT_DATA,
)

period = table(
    "retention_period",
    sa.Column("organization_id", IdText, sa.ForeignKey("organization.id"), primary_key=True),
    sa.Column("project_id", IdText, primary_key=True),  # "" = the organization itself
    sa.Column("data_class", EnumText(DataClass), primary_key=True),
    sa.Column("days", sa.Integer, nullable=False),
    holds=Holds.CONTROL,
)

ratchet = table(
    "retention_ratchet",
    sa.Column("organization_id", IdText, sa.ForeignKey("organization.id"), primary_key=True),
    sa.Column("project_id", IdText, primary_key=True),  # "" = the organization itself
    sa.Column("data_class", EnumText(DataClass), primary_key=True),
    sa.Column("created_before", Instant, primary_key=True),
    sa.Column("days", sa.Integer, nullable=False),
    holds=Holds.CONTROL,
)

# What was listed and is gone, so that its list can be read on from there (keepless.accounts.places).
place = table(
    "place",
    sa.Column("id", IdText, primary_key=True),
    sa.Column("organization_id", IdText, nullable=False),
    sa.Column("project_id", IdText),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("gone_at", Instant, nullable=False, index=True),
    holds=Holds.CATALOGUE,
)

change = table(
    "change",
    sa.Column("id", sa.Integer, primary_key=True),  # one row, id 1
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("schema_version", sa.Integer, nullable=False),
    sa.Column("clock_floor", Instant, nullable=False),  # the latest instant any process has seen (DECISIONS 15)
    holds=Holds.CONTROL,
)

process = table(
    "process",
    sa.Column("id", IdText, primary_key=True),
    sa.Column("started_at", Instant, nullable=False),
    sa.Column("seen_at", Instant, nullable=False),
    sa.Column("acknowledged", sa.BigInteger, nullable=False),  # the generation this process acts under
    sa.Column("host", sa.String(32), nullable=False),  # digest of boot and process-id namespace; "" = cannot be told
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("born", sa.BigInteger, nullable=False),  # the kernel's start tick of that pid: ids are used again
    sa.Column("condemned_at", Instant),  # given up for dead: it may not renew its lease under this id
    holds=Holds.CONTROL,
)
