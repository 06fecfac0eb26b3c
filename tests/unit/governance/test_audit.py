"""The public names of what the log records."""

from typing import get_args

from openai.types.admin.organization.audit_log_list_response import AuditLogListResponse

from keepless.receipts.events import TYPES
from keepless.receipts.statement import EntryKind

OURS = {
    *("organization.created", "organization.deleted", "sign_in_link.created", "password.updated"),
    *("data_retention.updated", "data_retention.period.updated", "data_retention.acknowledged"),
    *("purge.requested", "purge.finished", "encryption_key.destroyed"),
    *("export.started", "content.exported"),
    *("access.refused", "request.refused", "reference.erased", "audit_log.erased"),
    *("content.captured", "content.accessed", "content.deleted"),
    *(f"open_request.{step}" for step in ("created", "approved", "refused", "ended")),
    *("legal_hold.placed", "legal_hold.released"),
    *(f"abuse_case.{step}" for step in ("opened", "confirmed", "extended", "closed")),
    *(f"webhook_endpoint.{step}" for step in ("created", "updated", "deleted")),
}


def test_every_kind_has_one_name_and_it_is_openais_where_openai_has_one() -> None:
    assert set(TYPES) == set(EntryKind)
    assert len(set(TYPES.values())) == len(TYPES)
    openai = set(get_args(AuditLogListResponse.model_fields["type"].annotation))
    assert set(TYPES.values()) - openai == OURS
