"""What the tables of webhooks hold."""

from keepless.db import Holds
from keepless.webhooks.tables import webhook_delivery, webhook_endpoint


def test_no_secret_and_no_content_has_a_column() -> None:
    assert webhook_endpoint.info["holds"] is Holds.ACCOUNT_DATA
    assert webhook_delivery.info["holds"] is Holds.CONTROL
    assert not [column for column in webhook_endpoint.c if "secret" in column.name]
    assert {column.name for column in webhook_delivery.c} == {
        *("event_id", "endpoint_id", "organization_id", "event_type", "subject_id"),
        *("created_at", "due_at", "attempts"),
    }
