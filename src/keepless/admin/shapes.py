"""What the admin API answers, as structs: handlers return them, `/openapi.json` is generated from them.

OpenAI's shapes where OpenAI has the route, with our fields added. Instants are Unix seconds; null = there is none.
"""

from typing import Generic, Literal, TypeVar

import msgspec

from keepless.config import UpstreamRetention
from keepless.errors import Code
from keepless.incidents.states import CaseState, CloseReason, Signal
from keepless.policy.controls import Source
from keepless.policy.data_class import DataClass, Feature
from keepless.policy.decision import DiscardReason, Reason, Trigger
from keepless.policy.hold import HoldAuthority, HoldReason
from keepless.usage.record import Endpoint as UsageEndpoint
from keepless.usage.record import Outcome, Phase, Route
from keepless.usage.record import Role as MessageRole
from keepless.vault.states import PurgeState

__all__ = [
    "AbuseCase",
    "Controls",
    "Deleted",
    "Error",
    "Explanation",
    "Features",
    "LegalHold",
    "Page",
    "Preview",
    "Purge",
    "ReceiptSummary",
    "Residual",
    "RetainedObject",
    "Retention",
    "ScheduleRow",
    "Settings",
    "Sketch",
]

T = TypeVar("T")


class Page(msgspec.Struct, Generic[T], kw_only=True):
    """One page of a list."""

    data: list[T]
    has_more: bool = False
    first_id: str | None = None
    last_id: str | None = None
    object: Literal["list"] = "list"


class Deleted(msgspec.Struct, kw_only=True):
    """Gone. For content: its key is destroyed and the store has acknowledged that the bytes are deleted."""

    id: str
    object: str
    deleted: bool = True


class ErrorBody(msgspec.Struct, kw_only=True):
    """OpenAI's error object; `objects` and `bytes` come with `purge_choice_required`."""

    message: str
    type: str
    code: str | None
    param: str | None


class Error(msgspec.Struct, kw_only=True):
    """Every refusal and failure."""

    error: ErrorBody


class Features(msgspec.Struct, kw_only=True):
    """What is in force: under Zero Data Retention everything reads off, whatever is set underneath."""

    inference_logging: Literal["allowed", "off"]
    batch: Literal["enabled", "disabled"]
    fine_tuning: Literal["enabled", "disabled"]


class Residual(msgspec.Struct, kw_only=True):
    """What still exists of features that are off. `until`: when the last of it ends; null with objects = no end."""

    objects: int
    bytes: int
    until: int | None = None


class ScheduleRow(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One promise of the retention schedule; `on`: whether its feature is."""

    product: str
    endpoints: list[str]
    classes: list[DataClass]
    feature: Feature
    on: bool
    why: str
    kept_for: str
    max_days: int | None
    under_zdr: str


class Settings(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What this level has set itself; Zero Data Retention masks it and restores it."""

    zero_data_retention: bool
    inference_logging: Literal["allowed", "off"]
    batch: Literal["enabled", "disabled"]
    fine_tuning: Literal["enabled", "disabled"]
    retention_days: dict[DataClass, int]


class Controls(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The data controls in force. `purge_id` only after a change; null when there was nothing to destroy."""

    object: str
    epoch: int
    zero_data_retention: bool
    features: Features
    retention_days: dict[DataClass, int | None]
    settings: Settings
    schedule: list[ScheduleRow]
    source: dict[str, str]
    residual: Residual
    purge_id: str | msgspec.UnsetType | None = msgspec.UNSET


class Preview(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a change would destroy. `loosens`: whether it needs the right to loosen."""

    object: str
    epoch: int
    objects: int
    bytes: int
    oldest: int | None
    held: int
    running_jobs: int
    classes: list[DataClass]
    loosens: bool


class Retention(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """OpenAI's data-retention label, with what it cannot say."""

    object: Literal["organization.data_retention", "project.data_retention"]
    type: str
    features: Features
    source: dict[str, str]
    epoch: int


class Purge(msgspec.Struct, kw_only=True):
    """A purge and how far it is; `partial` = only objects under a legal hold remain."""

    id: str
    created_at: int
    finished_at: int | None
    state: PurgeState
    objects: int
    bytes: int
    destroyed: int
    held: int
    holds: list[str]
    project_id: str | None
    classes: list[DataClass]
    epoch: int
    object: Literal["organization.purge"] = "organization.purge"


class RetainedObject(msgspec.Struct, kw_only=True):
    """One object that is kept now: what, why, until when; never its content."""

    id: str
    data_class: DataClass = msgspec.field(name="class")
    reason: Reason
    bytes: int
    created_at: int
    expires_at: int | None
    held: bool
    project_id: str
    location: str
    epoch: int
    request_id: str | None
    object: Literal["organization.retained_object"] = "organization.retained_object"


class ReceiptSummary(msgspec.Struct, kw_only=True):
    """A deletion that is proved, as listed. `created_at`: when the receipt was written, after the store's answer."""

    id: str
    object_id: str | None
    data_class: str | None = msgspec.field(name="class")
    cause: str | None
    created_at: int
    deleted_at: int | None
    purge_id: str | None
    log_index: int
    object: Literal["organization.receipt"] = "organization.receipt"


class LegalHold(msgspec.Struct, kw_only=True):
    """A legal hold: what it covers, why, on whose authority, when it is to be reviewed. `objects` it keeps now."""

    id: str
    organization_id: str
    project_id: str | None
    data_class: DataClass | None = msgspec.field(name="class")
    object_id: str | None
    created_from: int | None
    created_to: int | None
    reason: HoldReason
    authority: HoldAuthority
    reference: str | None  # null: erased
    placed_by: str
    placed_at: int
    review_at: int
    released_at: int | None
    objects: int
    object: Literal["organization.legal_hold"] = "organization.legal_hold"


class AbuseCase(msgspec.Struct, kw_only=True):
    """An abuse case: metadata only. Without `confirmed_by` a confirmed one was confirmed by the operator's setting."""

    id: str
    organization_id: str
    state: CaseState
    signal: Signal
    refusals: int
    key_ids: list[str]
    captured: int
    opened_at: int
    confirmed_at: int | None
    confirmed_by: str | None
    capture_until: int | None
    extended_at: int | None
    extended_by: str | None
    reference: str | None
    closed_at: int | None
    closed_by: str | None
    closed_for: CloseReason | None
    object: Literal["organization.abuse_case"] = "organization.abuse_case"


class Sketch(msgspec.Struct, kw_only=True):
    """The shape of a request that failed: numbers and enums, no content."""

    phase: Phase
    flags: list[str]
    roles: list[MessageRole]
    messages: int
    tools: int
    body_bytes: int
    largest_message_bytes: int
    max_tokens: int
    upstream_status: int
    answered_bytes: int


class Explanation(msgspec.Struct, kw_only=True):
    """Why a request was or was not kept: who decided, under which epoch, what triggered it, where it was routed."""

    id: str
    created_at: int
    kept: bool
    why: str
    outcome: Outcome
    discard: DiscardReason | None
    source: Source | None
    epoch: int
    trigger: Trigger
    reason: Reason | None
    object_id: str | None
    route: Route
    upstream_retention: UpstreamRetention | None
    endpoint: UsageEndpoint
    model: str | None
    status: int
    code: Code | None
    project_id: str | None
    api_key_id: str | None
    prompt_tokens: int
    completion_tokens: int
    audio_ms: int
    latency_us: int
    sketch: Sketch | None
    object: Literal["request.explanation"] = "request.explanation"
