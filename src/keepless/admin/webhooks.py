"""Webhook endpoints over HTTP, in the shapes of OpenAI's SDK (`client.webhooks`): owners manage, members see.

OpenAI's call takes the project from the API key. Here it is an admin key, whose endpoint hears of every project; an
extension, `project_id`, binds it to one. The secret is in the answers to creation and rotation only.
"""

from typing import Annotated, Literal

import msgspec

from keepless.admin.asks import AnId, Name, NoBody, NoQuery, PageSize
from keepless.admin.endpoint import Ask
from keepless.admin.pages import page
from keepless.admin.services import Services
from keepless.admin.shapes import Deleted, Page
from keepless.ids import Prefix, trusted
from keepless.webhooks.endpoints import EndpointRecord, Wanted
from keepless.webhooks.events import EventType
from keepless.webhooks.tables import URL_LETTERS

__all__ = [
    "create_webhook_endpoint",
    "delete_webhook_endpoint",
    "list_webhook_endpoints",
    "list_webhook_event_types",
    "retrieve_webhook_endpoint",
    "rotate_webhook_secret",
    "test_webhook_endpoint",
    "update_webhook_endpoint",
]

Url = Annotated[str, msgspec.Meta(min_length=1, max_length=URL_LETTERS)]
Events = Annotated[list[EventType], msgspec.Meta(min_length=1, max_length=20)]


class WebhooksQuery(msgspec.Struct, kw_only=True):
    """A page of endpoints."""

    after: AnId | None = None
    limit: PageSize = 20


class WebhookCreate(msgspec.Struct, kw_only=True):
    """A new endpoint; without `project_id` it is told of every project."""

    name: Name
    url: Url
    event_types: Events
    project_id: AnId | None = None


class WebhookUpdate(msgspec.Struct, kw_only=True):
    """What is given replaces what is set."""

    name: Name | None = None
    url: Url | None = None
    event_types: Events | None = None


class WebhookRotation(msgspec.Struct, kw_only=True):
    """Whether the old secret signs too for a day."""

    keep_old_secret_active_for_24_hours: bool = False


class WebhookTry(msgspec.Struct, kw_only=True):
    """Which event the sample is of."""

    event_type: EventType


class WebhookEndpoint(msgspec.Struct, kw_only=True):
    """OpenAI's webhook endpoint."""

    id: str
    name: str
    url: str
    event_types: list[EventType]
    created_at: int
    updated_at: int
    signing_secret_hint: str
    project_id: str | None
    object: Literal["webhook_endpoint"] = "webhook_endpoint"


class WebhookEndpointWithSecret(WebhookEndpoint, kw_only=True):
    """The same with its secret, this once."""

    signing_secret: str


class WebhookTestResult(msgspec.Struct, kw_only=True):
    """The endpoint answered; `status_code` says how."""

    webhook_endpoint_id: str
    event_type: EventType
    status_code: int
    success: Literal[True] = True
    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"


class WebhookEventTypes(msgspec.Struct, kw_only=True):
    """The events that are sent."""

    data: list[EventType]
    object: Literal["list"] = "list"


def list_webhook_event_types(_: Services, ask: Ask[NoQuery, NoBody]) -> WebhookEventTypes:
    """The events an endpoint can be told of."""
    del ask  # everybody may be told of the same
    return WebhookEventTypes(data=list(EventType))


def list_webhook_endpoints(services: Services, ask: Ask[WebhooksQuery, NoBody]) -> Page[WebhookEndpoint]:
    """Endpoints, newest first. Raises `Problem` 404 when `after` is gone."""
    after = None if ask.query.after is None else trusted(ask.query.after)
    found = services.webhooks.list(ask.organization_id, after=after, limit=ask.query.limit + 1)
    return page(found, ask.query.limit, _shape)


def create_webhook_endpoint(services: Services, ask: Ask[NoQuery, WebhookCreate]) -> WebhookEndpointWithSecret:
    """Register an endpoint. Raises `Problem` 400 (its url) or 404 (its project)."""
    body = ask.body
    wanted = Wanted(body.name, body.url, body.event_types)
    project_id = None if body.project_id is None else trusted(body.project_id)
    return _with_secret(*services.webhooks.create(ask.caller.id, ask.organization_id, wanted, project_id))


def retrieve_webhook_endpoint(services: Services, ask: Ask[NoQuery, NoBody]) -> WebhookEndpoint:
    """One endpoint. Raises `Problem` 404."""
    return _shape(services.webhooks.get(ask.organization_id, ask.id("id", Prefix.WEBHOOK)))


def update_webhook_endpoint(services: Services, ask: Ask[NoQuery, WebhookUpdate]) -> WebhookEndpoint:
    """Change an endpoint. Raises `Problem` 400 or 404."""
    body, endpoint_id = ask.body, ask.id("id", Prefix.WEBHOOK)
    wanted = Wanted(body.name, body.url, body.event_types)
    return _shape(services.webhooks.update(ask.caller.id, ask.organization_id, endpoint_id, wanted))


def delete_webhook_endpoint(services: Services, ask: Ask[NoQuery, NoBody]) -> Deleted:
    """Remove an endpoint; what was still to be told to it is forgotten. Raises `Problem` 404."""
    endpoint_id = ask.id("id", Prefix.WEBHOOK)
    services.webhooks.delete(ask.caller.id, ask.organization_id, endpoint_id)
    return Deleted(id=endpoint_id, object="webhook_endpoint.deleted")


def rotate_webhook_secret(services: Services, ask: Ask[NoQuery, WebhookRotation]) -> WebhookEndpointWithSecret:
    """Give an endpoint a new secret. Raises `Problem` 404."""
    endpoint_id, keep = ask.id("id", Prefix.WEBHOOK), ask.body.keep_old_secret_active_for_24_hours
    return _with_secret(*services.webhooks.rotate(ask.caller.id, ask.organization_id, endpoint_id, keep_old=keep))


def test_webhook_endpoint(services: Services, ask: Ask[NoQuery, WebhookTry]) -> WebhookTestResult:
    """Send a signed sample now. Raises `Problem` 400 when nothing answers, 404, 429."""
    endpoint_id, kind = ask.id("id", Prefix.WEBHOOK), ask.body.event_type
    status = services.webhooks.test(ask.organization_id, endpoint_id, kind)
    return WebhookTestResult(webhook_endpoint_id=endpoint_id, event_type=kind, status_code=status)


def _shape(record: EndpointRecord) -> WebhookEndpoint:
    return WebhookEndpoint(
        id=record.id,
        name=record.name,
        url=record.url,
        event_types=record.events,
        created_at=record.created_at // 1000,
        updated_at=record.updated_at // 1000,
        signing_secret_hint=f"whsec_…{record.hint}",
        project_id=record.project_id,
    )


def _with_secret(record: EndpointRecord, secret: str) -> WebhookEndpointWithSecret:
    plain = _shape(record)
    values = {name: getattr(plain, name) for name in WebhookEndpoint.__struct_fields__}
    return WebhookEndpointWithSecret(signing_secret=secret, **values)
