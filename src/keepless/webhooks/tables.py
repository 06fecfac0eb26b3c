"""Tables of webhooks: where an owner wants to be told, and what is still to be told (the outbox).

`webhook_endpoint` is account data: the owner typed its name and url. Its secret is in no column: it is derived from the
row's salt with a key of the keyring (signature). `webhook_delivery` has one row an event and endpoint, written in the
transaction that made the event true, and removed when it was delivered or given up.
"""

import sqlalchemy as sa

from keepless.db import EnumText, Holds, IdText, Instant, table
from keepless.webhooks.events import EventType

__all__ = ["NAME_LETTERS", "URL_LETTERS", "webhook_delivery", "webhook_endpoint"]

NAME_LETTERS = 200
URL_LETTERS = 1000

webhook_endpoint = table(
    "webhook_endpoint",
    sa.Column("id", IdText, primary_key=True),
    sa.Column("organization_id", IdText, sa.ForeignKey("organization.id"), nullable=False, index=True),
    sa.Column("project_id", IdText),  # null: events of every project
    sa.Column("name", sa.String(NAME_LETTERS), nullable=False),
    sa.Column("url", sa.String(URL_LETTERS), nullable=False),
    sa.Column("events", sa.BigInteger, nullable=False),  # bit i = the i-th member of EventType
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("updated_at", Instant, nullable=False),
    sa.Column("salt", sa.LargeBinary(32), nullable=False),
    sa.Column("hint", sa.String(4), nullable=False),  # the last letters of the secret, for people and as a check
    sa.Column("old_salt", sa.LargeBinary(32)),  # signs too until `old_until`
    sa.Column("old_until", Instant),
    holds=Holds.ACCOUNT_DATA,
)

webhook_delivery = table(
    "webhook_delivery",
    sa.Column("event_id", IdText, primary_key=True),
    sa.Column("endpoint_id", IdText, primary_key=True),  # no foreign key: who removes one waits for no batch
    sa.Column("organization_id", IdText, nullable=False, index=True),
    sa.Column("event_type", EnumText(EventType), nullable=False),
    sa.Column("subject_id", IdText, nullable=False),  # the batch or file
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("due_at", Instant, nullable=False, index=True),  # also moved while somebody delivers
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Index("webhook_delivery_by_endpoint", "endpoint_id"),
    holds=Holds.CONTROL,
)
