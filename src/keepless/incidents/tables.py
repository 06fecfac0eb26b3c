"""Tables of incidents: how much was captured (metadata only), and abuse cases with the keys they cover.

No origin is stored here: addresses are personal data and stay in memory, hashed, for at most an hour (DECISIONS 4).
"""

import sqlalchemy as sa

from keepless.accounts.roles import Role
from keepless.db import EnumText, Holds, IdText, Instant, table
from keepless.incidents.states import CaseState, CloseReason, OpeningReason, OpeningState, Signal
from keepless.policy.decision import Reason

__all__ = ["abuse_case", "abuse_case_key", "capture_count", "opening"]

capture_count = table(
    "capture_count",
    sa.Column("project_id", IdText, primary_key=True),
    sa.Column("model", sa.String(96), primary_key=True),  # an id of the operator's catalogue
    sa.Column("reason", EnumText(Reason), primary_key=True),
    sa.Column("hour", sa.BigInteger, primary_key=True),  # hours since 1970-01-01
    sa.Column("captured", sa.Integer, nullable=False),
    sa.Column("refused", sa.BigInteger, nullable=False),  # over the cap: counted, not kept
    holds=Holds.CATALOGUE,
)

abuse_case = table(
    "abuse_case",
    sa.Column("id", IdText, primary_key=True),
    sa.Column("organization_id", IdText, nullable=False, index=True),
    sa.Column("state", EnumText(CaseState), nullable=False, index=True),
    sa.Column("signal", EnumText(Signal), nullable=False),  # what opened it
    sa.Column("refusals", sa.BigInteger, nullable=False),  # 429 answers that the signal rests on
    sa.Column("opened_at", Instant, nullable=False),
    sa.Column("confirmed_at", Instant),
    sa.Column("confirmed_by", IdText),  # null with confirmed_at: by `abuse_auto_capture`
    sa.Column("ends_at", Instant),  # capture ends then, at most 72 h after it was confirmed or extended
    sa.Column("extended_at", Instant),
    sa.Column("extended_by", IdText),
    sa.Column("reference", sa.String(80)),  # why it was extended: typed by an operator, erasable (DECISIONS 11)
    sa.Column("closed_at", Instant),
    sa.Column("closed_by", IdText),
    sa.Column("closed_for", EnumText(CloseReason)),
    sa.Column("captured_day", sa.Integer),  # the UTC day that `captured` counts
    sa.Column("captured", sa.Integer, nullable=False),
    sa.Column("captured_total", sa.BigInteger, nullable=False),
    holds=Holds.CATALOGUE,
)

abuse_case_key = table(
    "abuse_case_key",
    sa.Column("case_id", IdText, primary_key=True),
    sa.Column("key_id", IdText, primary_key=True, index=True),
    holds=Holds.CATALOGUE,
)

opening = table(
    "opening",
    sa.Column("id", IdText, primary_key=True),
    sa.Column("organization_id", IdText, nullable=False, index=True),
    sa.Column("object_id", IdText, nullable=False, index=True),
    sa.Column("state", EnumText(OpeningState), nullable=False, index=True),
    sa.Column("reason", EnumText(OpeningReason), nullable=False),
    sa.Column("reference", sa.String(80), nullable=False),  # typed by who asks, erasable (DECISIONS 11)
    sa.Column("minutes", sa.Integer, nullable=False),  # from the approval on
    sa.Column("requested_by", IdText, nullable=False),
    sa.Column("requested_role", EnumText(Role), nullable=False),
    sa.Column("requested_at", Instant, nullable=False),
    sa.Column("decided_by", IdText),
    sa.Column("decided_at", Instant),
    sa.Column("ends_at", Instant, nullable=False),  # requested: nobody can approve any more; approved: nothing is shown
    sa.Column("ended_by", IdText),  # null with state ended: its time was over
    sa.Column("ended_at", Instant),
    sa.Column("accesses", sa.BigInteger, nullable=False),
    holds=Holds.CATALOGUE,
)
