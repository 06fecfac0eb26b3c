"""What the admin API accepts: query strings and bodies as structs. The route table and `/openapi.json` use the same
ones.

Names in query strings and bodies are OpenAI's where OpenAI has the route; `organization_id` is how an operator, whose
key belongs to no organization, says whose holds or cases are meant. Instants are Unix seconds.
"""

from typing import Annotated, Any, Final, Literal

import msgspec

from keepless.incidents.states import CloseReason
from keepless.policy.controls import allowed_days
from keepless.policy.data_class import DataClass
from keepless.policy.decision import Reason
from keepless.policy.hold import HoldAuthority, HoldReason

__all__ = [
    "AdminKeyCreate",
    "CapturesQuery",
    "CaseClosing",
    "CaseDecision",
    "CaseExtension",
    "CasesQuery",
    "ControlsPatch",
    "HoldPlace",
    "HoldsQuery",
    "KeyCreate",
    "KeyUpdate",
    "KeysQuery",
    "LimitsPatch",
    "MemberCreate",
    "NoBody",
    "NoQuery",
    "ObjectsQuery",
    "OrganizationCreate",
    "OrganizationQuery",
    "PageQuery",
    "ProjectCreate",
    "ProjectRetentionUpdate",
    "ProjectUpdate",
    "ProjectsQuery",
    "RateLimitPatch",
    "RateLimitsQuery",
    "ReceiptQuery",
    "RetentionUpdate",
    "ServiceAccountCreate",
    "ServiceAccountUpdate",
    "ServiceAccountsQuery",
]

_LINE: Final = r"^[^\x00-\x1f\x7f]*(?!\n)$"
_ADDRESS: Final = r"^[^@\s\x00-\x1f]+@[^@\s\x00-\x1f]+(?!\n)$"
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=_LINE, description="one line")]
Reference = Annotated[str, msgspec.Meta(min_length=1, max_length=80, pattern=_LINE, description="one line")]
Email = Annotated[str, msgspec.Meta(min_length=3, max_length=254, pattern=_ADDRESS, description="an e-mail address")]
AnId = Annotated[str, msgspec.Meta(min_length=1, max_length=40, pattern=r"^[A-Za-z0-9_-]+(?!\n)$", description="an id")]
Instant = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799)]  # Unix seconds, to the year 9999
KeySeconds = Annotated[int, msgspec.Meta(ge=1, le=315_360_000)]  # to ten years
PageSize = Annotated[int, msgspec.Meta(ge=1, le=100)]
Rate = Annotated[int, msgspec.Meta(ge=0, le=2_147_483_647)]
RateLimitId = Annotated[str, msgspec.Meta(max_length=100, pattern=r"^rl-[A-Za-z0-9._:~-]+(?!\n)$", description="an id")]
Order = Literal["asc", "desc"]
Logging = Literal["allowed", "off"]
Switch = Literal["enabled", "disabled"]
_LABELS: Final = ["zero_data_retention", "modified_abuse_monitoring"]
_DAYS: Final[dict[str, Any]] = {
    "properties": {
        data_class.value: {"type": ["integer", "null"], "minimum": 1, "maximum": allowed_days(data_class)[-1]}
        for data_class in DataClass
    },
    "propertyNames": {"enum": [data_class.value for data_class in DataClass]},
}
Days = Annotated[dict[DataClass, int | None], msgspec.Meta(extra_json_schema=_DAYS)]  # governance checks the bounds


class NoQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No query string."""


class NoBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No body, or an empty object."""


class PageQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One page: `limit` items after the item `after`."""

    after: AnId | None = None
    limit: PageSize = 20
    order: Order = "asc"


class ProjectsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OpenAI's `projects.list`."""

    after: AnId | None = None
    limit: PageSize = 20
    include_archived: bool = False


class KeysQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OpenAI's `projects.api_keys.list`."""

    after: AnId | None = None
    limit: PageSize = 20
    owner_project_access: Literal["active", "inactive", "any"] = "any"


class ObjectsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept, oldest first, narrowed."""

    after: AnId | None = None
    limit: PageSize = 20
    data_class: DataClass | None = msgspec.field(default=None, name="class")
    reason: Reason | None = None
    project_id: AnId | None = None
    request_id: AnId | None = None
    held: bool | None = None


class CapturesQuery(ObjectsQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Captured requests, oldest first, narrowed; whose (operators)."""

    organization_id: AnId | None = None


class ReceiptQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Receipts, newest first; of one object."""

    after: AnId | None = None
    limit: PageSize = 20
    object_id: AnId | None = None


class ControlsPatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change; what is not named stays. `expected_epoch` refuses when somebody changed the policy meanwhile."""

    zero_data_retention: bool | None = None
    inference_logging: Logging | None = None
    batch: Switch | None = None
    fine_tuning: Switch | None = None
    retention_days: Days | None = None
    expected_epoch: Annotated[int, msgspec.Meta(ge=0)] | None = None
    purge: bool | None = None


class RetentionUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OpenAI's `data_retention.update` of an organization; labels of theirs that mean nothing here are refused."""

    retention_type: Annotated[str, msgspec.Meta(max_length=64, extra_json_schema={"enum": _LABELS})]


class ProjectRetentionUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OpenAI's `data_retention.update` of a project."""

    retention_type: Annotated[
        str, msgspec.Meta(max_length=64, extra_json_schema={"enum": [*_LABELS, "organization_default", "none"]})
    ]


class LimitsPatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rate limits; null or not given = no limit."""

    requests_per_minute: Rate | None = None
    requests_per_day: Rate | None = None
    tokens_per_minute: Rate | None = None


class RateLimitsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OpenAI's `rate_limits.list_rate_limits`."""

    after: RateLimitId | None = None
    before: RateLimitId | None = None
    limit: PageSize = 100


class RateLimitPatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OpenAI's `rate_limits.update_rate_limit`; what is not given stays, the largest number is no limit."""

    max_requests_per_1_minute: Rate | None = None
    max_requests_per_1_day: Rate | None = None
    max_tokens_per_1_minute: Rate | None = None


class ProjectCreate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OpenAI's `projects.create`; `residency` and the like come with a later issue and are refused as unknown."""

    name: Name


class ProjectUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OpenAI's `projects.update`."""

    name: Name


class KeyCreate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An API key of a project."""

    name: Name
    expires_in_seconds: KeySeconds | None = None


class KeyUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OpenAI's `projects.api_keys.update`. A key may do all that its project may, which OpenAI calls no `scopes`."""

    expires_in_seconds: KeySeconds | msgspec.UnsetType = msgspec.UNSET
    scopes: (
        Annotated[list[str], msgspec.Meta(max_length=200, extra_json_schema={"maxItems": 0})] | msgspec.UnsetType
    ) = msgspec.UNSET


class ServiceAccountCreate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OpenAI's `service_accounts.create`; an account without a key is none here."""

    name: Name
    expires_in_seconds: KeySeconds | None = None
    create_service_account_only: Literal[False] | None = None


class ServiceAccountUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OpenAI's `service_accounts.update`; no account is an owner of a project here."""

    name: Name | None = None
    role: Literal["member"] | None = None


class ServiceAccountsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OpenAI's `service_accounts.list`."""

    after: AnId | None = None
    limit: PageSize = 20


class AdminKeyCreate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OpenAI's `admin_api_keys.create`; `role` and `can_loosen_until` are ours (OpenAI's are owners)."""

    name: Name
    role: Literal["owner", "developer", "reader", "auditor"] = "owner"
    can_loosen_until: Instant | None = None
    expires_in_seconds: KeySeconds | None = None


class MemberCreate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A person. Without a password the person signs in elsewhere."""

    email: Email
    role: Literal["owner", "developer", "reader", "auditor"]
    password: Annotated[str, msgspec.Meta(min_length=12, max_length=200)] | None = None


class OrganizationCreate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A further organization (operators). `region` pins it."""

    name: Name
    region: Annotated[str, msgspec.Meta(min_length=1, max_length=40, pattern=r"^[A-Za-z0-9._-]+(?!\n)$")] | None = None


class HoldPlace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A legal hold: its scope (what is not given does not narrow it), reason, authority and review date."""

    organization_id: AnId
    reason: HoldReason
    authority: HoldAuthority
    reference: Reference
    review_at: Instant
    project_id: AnId | None = None
    data_class: DataClass | None = msgspec.field(default=None, name="class")
    object_id: AnId | None = None
    created_from: Instant | None = None
    created_to: Instant | None = None


class OrganizationQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose (operators); an owner's is the key's own."""

    organization_id: AnId | None = None


class HoldsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose holds (operators), and whether released ones too."""

    organization_id: AnId | None = None
    include_released: bool = False
    after: AnId | None = None
    limit: PageSize = 20


class CasesQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose abuse cases (operators), and whether closed ones too."""

    organization_id: AnId | None = None
    include_closed: bool = False
    after: AnId | None = None
    limit: PageSize = 20


class CaseDecision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Confirm a case."""

    organization_id: AnId


class CaseClosing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Close a case, and how it ended."""

    organization_id: AnId
    reason: CloseReason = CloseReason.RESOLVED


class CaseExtension(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Extend a confirmed case, with a reason (DECISIONS 4)."""

    organization_id: AnId
    hours: Annotated[int, msgspec.Meta(ge=1, le=72)]
    reference: Reference
