"""OpenAI's service accounts over HTTP, as what they are here: API keys of a project, each with the id of its key.

So deleting an account revokes its key, and the key's deletion ends the account. The secret is in the answer that made
it and in no other.
"""

from keepless.accounts.directory import ApiKeyRecord
from keepless.admin.account_shapes import ServiceAccount, ServiceAccountCreated, ServiceAccountKey
from keepless.admin.asks import NoBody, NoQuery, ServiceAccountCreate, ServiceAccountsQuery, ServiceAccountUpdate
from keepless.admin.endpoint import Ask
from keepless.admin.pages import Owner, cut_by_age, seconds
from keepless.admin.services import Services
from keepless.admin.shapes import Deleted, Page
from keepless.ids import Prefix

__all__ = [
    "create_service_account",
    "delete_service_account",
    "list_service_accounts",
    "retrieve_service_account",
    "update_service_account",
]


def list_service_accounts(services: Services, ask: Ask[ServiceAccountsQuery, NoBody]) -> Page[ServiceAccount]:
    """Service accounts of a project, oldest first. Raises `Problem` 404."""
    owner = Owner(services.db, ask.organization_id, ask.id("project_id", Prefix.PROJECT))
    found = services.access.api_keys(ask.organization_id, owner.project_id)
    return cut_by_age(owner, found, ask.query.after, ask.query.limit, _account)


def create_service_account(services: Services, ask: Ask[NoQuery, ServiceAccountCreate]) -> ServiceAccountCreated:
    """OpenAI's way to a key of a project; both have one id here. Raises `Problem` 404."""
    project_id = ask.id("project_id", Prefix.PROJECT)
    made = services.access.create_api_key(
        ask.caller,
        ask.organization_id,
        project_id,
        name=ask.body.name,
        expires_in_seconds=ask.body.expires_in_seconds,
    )
    born = made.record.created_at_ms // 1000
    key = ServiceAccountKey(
        id=made.record.id,
        name=made.record.name,
        created_at=born,
        expires_at=seconds(made.record.expires_at_ms),
        value=made.secret,
    )
    return ServiceAccountCreated(id=made.record.id, name=made.record.name, created_at=born, api_key=key)


def retrieve_service_account(services: Services, ask: Ask[NoQuery, NoBody]) -> ServiceAccount:
    """One service account. Raises `Problem` 404."""
    project_id, key_id = ask.id("project_id", Prefix.PROJECT), ask.id("key_id", Prefix.API_KEY)
    return _account(services.access.api_key(ask.organization_id, project_id, key_id))


def update_service_account(services: Services, ask: Ask[NoQuery, ServiceAccountUpdate]) -> ServiceAccount:
    """Another name; the only role is `member`. Raises `Problem` 404."""
    project_id, key_id = ask.id("project_id", Prefix.PROJECT), ask.id("key_id", Prefix.API_KEY)
    if ask.body.name is None:
        return _account(services.access.api_key(ask.organization_id, project_id, key_id))
    return _account(
        services.access.rename_api_key(ask.caller, ask.organization_id, project_id, key_id, name=ask.body.name)
    )


def delete_service_account(services: Services, ask: Ask[NoQuery, NoBody]) -> Deleted:
    """Its key is accepted nowhere any more when this answers. Raises `Problem` 404."""
    project_id, key_id = ask.id("project_id", Prefix.PROJECT), ask.id("key_id", Prefix.API_KEY)
    services.access.revoke_api_key(ask.caller, ask.organization_id, key_id, project_id)
    return Deleted(id=key_id, object="organization.project.service_account.deleted")


def _account(record: ApiKeyRecord) -> ServiceAccount:
    return ServiceAccount(id=record.id, name=record.name, created_at=record.created_at_ms // 1000)
