"""Break-glass over HTTP: what is asked and what is answered. Instants are Unix seconds; null = there is none."""

from typing import Annotated, Literal

import msgspec

from keepless.accounts.roles import Role
from keepless.admin.asks import AnId, PageSize, Reference
from keepless.incidents.states import OpeningReason, OpeningState

__all__ = ["CaptureContent", "ContentQuery", "OpenRequest", "OpenRequestCreate", "OpenRequestsQuery"]


class OpenRequestCreate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ask to see the content of one object; `minutes` from the approval on. An operator names the organization."""

    reason: OpeningReason
    reference: Reference
    minutes: Annotated[int, msgspec.Meta(ge=1, le=60)] = 60
    organization_id: AnId | None = None


class OpenRequestsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose requests (operators; none = all)."""

    organization_id: AnId | None = None
    after: AnId | None = None
    limit: PageSize = 20


class ContentQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Under which approved request. An operator names the organization."""

    open_request: AnId
    organization_id: AnId | None = None


class OpenRequest(msgspec.Struct, kw_only=True):
    """A request to see content: who asked and why, who decided, until when, and how often it was used."""

    id: str
    organization_id: str
    object_id: str
    state: OpeningState
    reason: OpeningReason
    reference: str | None  # null: erased
    minutes: int
    requested_by: str
    requested_role: Role
    requested_at: int
    decided_by: str | None
    decided_at: int | None
    ends_at: int
    ended_by: str | None
    ended_at: int | None
    accesses: int
    object: Literal["organization.open_request"] = "organization.open_request"


class CaptureContent(msgspec.Struct, kw_only=True):
    """Content in base64, shown once more under an approved request. Of what is no captured request only `content`."""

    id: str
    open_request: OpenRequest
    facts: dict[str, str | int | bool | None]
    request: bytes | None
    answer: bytes | None
    content: bytes | None
    object: Literal["organization.capture.content"] = "organization.capture.content"
