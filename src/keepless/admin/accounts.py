"""Projects, keys, members and organizations over HTTP, in OpenAI's shapes where it has the route.

A secret is in the answer that created it and in no other. Service accounts are `keepless.admin.service_accounts`.
"""

import msgspec

from keepless.accounts.directory import AdminKeyRecord, ApiKeyRecord, MemberRecord, OrganizationRecord, ProjectRecord
from keepless.accounts.principal import Limits as LimitValues
from keepless.accounts.roles import Role
from keepless.admin.account_shapes import (
    AdminKey,
    AdminKeyCreated,
    AdminKeyOwner,
    ApiKey,
    ApiKeyCreated,
    ApiKeyOwner,
    Limits,
    Member,
    Organization,
    OrganizationCreated,
    OrganizationDeleted,
    OwnAccount,
    Project,
)
from keepless.admin.asks import (
    AdminKeyCreate,
    KeyCreate,
    KeysQuery,
    KeyUpdate,
    LimitsPatch,
    MemberCreate,
    NoBody,
    NoQuery,
    OrganizationCreate,
    OrganizationQuery,
    PageQuery,
    ProjectCreate,
    ProjectsQuery,
    ProjectUpdate,
)
from keepless.admin.endpoint import Ask
from keepless.admin.pages import Owner, cut_by_age, seconds
from keepless.admin.services import Services
from keepless.admin.shapes import Deleted, Page
from keepless.errors import Code, Problem
from keepless.governance.change import not_found
from keepless.ids import Id, Prefix, trusted

# --- projects --------------------------------------------------------------------------------------------------------


def list_projects(services: Services, ask: Ask[ProjectsQuery, NoBody]) -> Page[Project]:
    """Projects, oldest first."""
    found = services.organizations.projects(ask.organization_id, archived=ask.query.include_archived)
    owner = Owner(services.db, ask.organization_id)
    return cut_by_age(owner, found, ask.query.after, ask.query.limit, _project)


def create_project(services: Services, ask: Ask[NoQuery, ProjectCreate]) -> Project:
    """A new project, usable at once."""
    return _project(services.organizations.create_project(ask.caller, ask.organization_id, name=ask.body.name))


def retrieve_project(services: Services, ask: Ask[NoQuery, NoBody]) -> Project:
    """One project, archived ones too. Raises `Problem` 404."""
    return _project(services.organizations.project(ask.organization_id, ask.id("project_id", Prefix.PROJECT)))


def update_project(services: Services, ask: Ask[NoQuery, ProjectUpdate]) -> Project:
    """Another name. Raises `Problem` 404."""
    project_id = ask.id("project_id", Prefix.PROJECT)
    return _project(
        services.organizations.rename_project(ask.caller, ask.organization_id, project_id, name=ask.body.name)
    )


def archive_project(services: Services, ask: Ask[NoQuery, NoBody]) -> Project:
    """Its keys stop working everywhere before this answers. Raises `Problem` 404."""
    project_id = ask.id("project_id", Prefix.PROJECT)
    return _project(services.organizations.archive_project(ask.caller, ask.organization_id, project_id))


# --- rate limits -----------------------------------------------------------------------------------------------------


def show_limits(services: Services, ask: Ask[NoQuery, NoBody]) -> Limits:
    """The organization's rate limits."""
    found = services.lease.organization(ask.organization_id)
    if found is None:
        raise not_found()
    return _limits("organization.limits", found.limits)


def set_limits(services: Services, ask: Ask[OrganizationQuery, LimitsPatch]) -> Limits:
    """Set exactly these, as the operator; what is not given is no limit any more. Owners limit their projects."""
    limits = _values(ask.body)
    services.organizations.set_limits(ask.caller, ask.organization_id, limits)
    return _limits("organization.limits", limits)


def show_project_limits(services: Services, ask: Ask[NoQuery, NoBody]) -> Limits:
    """A project's own rate limits. Raises `Problem` 404."""
    project_id = ask.id("project_id", Prefix.PROJECT)
    return _limits("project.limits", services.organizations.project(ask.organization_id, project_id).limits)


def set_project_limits(services: Services, ask: Ask[NoQuery, LimitsPatch]) -> Limits:
    """Set exactly these for a project; of its own and the organization's the tighter holds. Raises `Problem` 404."""
    limits = _values(ask.body)
    services.organizations.set_limits(ask.caller, ask.organization_id, limits, ask.id("project_id", Prefix.PROJECT))
    return _limits("project.limits", limits)


# --- API keys --------------------------------------------------------------------------------------------------------


def list_api_keys(services: Services, ask: Ask[KeysQuery, NoBody]) -> Page[ApiKey]:
    """API keys of a project, oldest first. Raises `Problem` 404."""
    owner = Owner(services.db, ask.organization_id, ask.id("project_id", Prefix.PROJECT))
    found = services.access.api_keys(ask.organization_id, owner.project_id)
    if ask.query.owner_project_access == "inactive":
        found = []  # keys belong to projects here: none has an owner who lost access
    return cut_by_age(owner, found, ask.query.after, ask.query.limit, _api_key)


def create_api_key(services: Services, ask: Ask[NoQuery, KeyCreate]) -> ApiKeyCreated:
    """A new API key, shown this once. Raises `Problem` 404."""
    project_id = ask.id("project_id", Prefix.PROJECT)
    made = services.access.create_api_key(
        ask.caller,
        ask.organization_id,
        project_id,
        name=ask.body.name,
        expires_in_seconds=ask.body.expires_in_seconds,
    )
    plain = _api_key(made.record)
    return ApiKeyCreated(
        id=plain.id,
        name=plain.name,
        redacted_value=plain.redacted_value,
        created_at=plain.created_at,
        expires_at=plain.expires_at,
        owner=plain.owner,
        value=made.secret,
    )


def retrieve_api_key(services: Services, ask: Ask[NoQuery, NoBody]) -> ApiKey:
    """One API key, without its secret. Raises `Problem` 404."""
    key_id = ask.id("key_id", Prefix.API_KEY)
    return _api_key(services.access.api_key(ask.organization_id, ask.id("project_id", Prefix.PROJECT), key_id))


def update_api_key(services: Services, ask: Ask[NoQuery, KeyUpdate]) -> ApiKey:
    """Another end of its time. Raises `Problem` 404, 400 for scopes (there are none here) and for an ended key."""
    project_id, key_id = ask.id("project_id", Prefix.PROJECT), ask.id("key_id", Prefix.API_KEY)
    given, scopes = ask.body.expires_in_seconds, ask.body.scopes
    if scopes:
        message = "A key may do all that its project may: scopes of keys are not served. Omit them, or send none."
        raise Problem(400, Code.UNSUPPORTED_VALUE, message, param="scopes")
    if given is msgspec.UNSET:
        if scopes is msgspec.UNSET:
            message = "Missing required parameter: expires_in_seconds."
            raise Problem(400, Code.MISSING_PARAMETER, message, param="expires_in_seconds")
        return _api_key(services.access.api_key(ask.organization_id, project_id, key_id))
    return _api_key(services.access.end_api_key_in(ask.caller, ask.organization_id, project_id, key_id, seconds=given))


def delete_api_key(services: Services, ask: Ask[NoQuery, NoBody]) -> Deleted:
    """No process accepts it any more when this answers. Raises `Problem` 404."""
    key_id = ask.id("key_id", Prefix.API_KEY)
    services.access.revoke_api_key(ask.caller, ask.organization_id, key_id, ask.id("project_id", Prefix.PROJECT))
    return Deleted(id=key_id, object="organization.project.api_key.deleted")


# --- admin keys ------------------------------------------------------------------------------------------------------


def list_admin_keys(services: Services, ask: Ask[PageQuery, NoBody]) -> Page[AdminKey]:
    """Admin keys of the organization."""
    found = services.access.admin_keys(ask.organization_id)
    asked, owner = ask.query, Owner(services.db, ask.organization_id)
    return cut_by_age(owner, found, asked.after, asked.limit, _admin_key, newest_first=asked.order == "desc")


def create_admin_key(services: Services, ask: Ask[NoQuery, AdminKeyCreate]) -> AdminKeyCreated:
    """A new admin key, shown this once. It may loosen nothing unless whoever creates it may."""
    asked = ask.body
    until = None if asked.can_loosen_until is None else asked.can_loosen_until * 1000
    made = services.access.create_admin_key(
        ask.caller,
        ask.organization_id,
        name=asked.name,
        role=Role(asked.role),
        loosen_until_ms=until,
        expires_in_seconds=asked.expires_in_seconds,
    )
    plain = _admin_key(made.record)
    return AdminKeyCreated(
        id=plain.id,
        name=plain.name,
        redacted_value=plain.redacted_value,
        created_at=plain.created_at,
        owner=plain.owner,
        can_loosen_until=plain.can_loosen_until,
        expires_at=plain.expires_at,
        value=made.secret,
    )


def retrieve_admin_key(services: Services, ask: Ask[NoQuery, NoBody]) -> AdminKey:
    """One admin key, without its secret. Raises `Problem` 404."""
    key_id = ask.id("key_id", Prefix.ADMIN_KEY)
    for record in services.access.admin_keys(ask.organization_id):
        if record.id == key_id:
            return _admin_key(record)
    raise not_found()


def delete_admin_key(services: Services, ask: Ask[NoQuery, NoBody]) -> Deleted:
    """No process accepts it any more when this answers. Raises `Problem` 404."""
    key_id = ask.id("key_id", Prefix.ADMIN_KEY)
    services.access.revoke_admin_key(ask.caller, ask.organization_id, key_id)
    return Deleted(id=key_id, object="organization.admin_api_key.deleted")


# --- members ---------------------------------------------------------------------------------------------------------


def create_member(services: Services, ask: Ask[NoQuery, MemberCreate]) -> Member:
    """A person. Raises `Problem` 400 when the address is taken."""
    asked = ask.body
    return _member(
        services.access.add_member(
            ask.caller, ask.organization_id, email=asked.email, role=Role(asked.role), password=asked.password
        )
    )


def delete_member(services: Services, ask: Ask[NoQuery, NoBody]) -> Deleted:
    """The person's address is erased. Raises `Problem` 404."""
    member_id = ask.id("user_id", Prefix.MEMBER)
    services.access.remove_member(ask.caller, ask.organization_id, member_id)
    return Deleted(id=member_id, object="organization.user.deleted")


# --- organizations (operators) ---------------------------------------------------------------------------------------


def list_organizations(services: Services, ask: Ask[PageQuery, NoBody]) -> Page[Organization]:
    """Every organization of this deployment."""
    found = services.organizations.all()
    asked = ask.query
    owner = Owner(services.db, trusted(asked.after or ""))  # an organization is its own owner
    return cut_by_age(owner, found, asked.after, asked.limit, _organization, newest_first=asked.order == "desc")


def create_organization(services: Services, ask: Ask[NoQuery, OrganizationCreate]) -> OrganizationCreated:
    """A new organization with its first project and keys, shown this once."""
    made = services.organizations.create(ask.caller, name=ask.body.name, region=ask.body.region)
    record = _one_organization(services, made.organization_id)
    return OrganizationCreated(
        id=record.id,
        name=record.name,
        created_at=record.created_at_ms // 1000,
        region=record.region,
        project_id=made.project_id,
        api_key=made.api_key,
        admin_key=made.admin_key,
    )


def retrieve_organization(services: Services, ask: Ask[NoQuery, NoBody]) -> Organization:
    """One organization. Raises `Problem` 404."""
    return _organization(_one_organization(services, ask.id("organization_id", Prefix.ORGANIZATION)))


def delete_organization(services: Services, ask: Ask[NoQuery, NoBody]) -> OrganizationDeleted:
    """Its keys open nothing any more when this answers; what it kept is purged. Raises `Problem` 404."""
    organization_id = ask.id("organization_id", Prefix.ORGANIZATION)
    return OrganizationDeleted(id=organization_id, purge_id=services.organizations.delete(ask.caller, organization_id))


def _one_organization(services: Services, organization_id: Id) -> OrganizationRecord:
    for record in services.organizations.all():
        if record.id == organization_id:
            return record
    raise not_found()


# --- shapes ----------------------------------------------------------------------------------------------------------


def _project(record: ProjectRecord) -> Project:
    return Project(
        id=record.id,
        name=record.name,
        created_at=record.created_at_ms // 1000,
        archived_at=seconds(record.archived_at_ms),
        status="active" if record.archived_at_ms is None else "archived",
    )


def _values(asked: LimitsPatch) -> LimitValues:
    return LimitValues(asked.requests_per_minute, asked.requests_per_day, asked.tokens_per_minute)


def _limits(kind: str, limits: LimitValues) -> Limits:
    return Limits(
        object=kind,
        requests_per_minute=limits.requests_per_minute,
        requests_per_day=limits.requests_per_day,
        tokens_per_minute=limits.tokens_per_minute,
    )


def _api_key(record: ApiKeyRecord) -> ApiKey:
    born = record.created_at_ms // 1000
    return ApiKey(
        id=record.id,
        name=record.name,
        redacted_value=record.hint,
        created_at=born,
        expires_at=seconds(record.expires_at_ms),
        owner=ApiKeyOwner(service_account=OwnAccount(id=record.id, name=record.name, created_at=born)),
    )


def _admin_key(record: AdminKeyRecord) -> AdminKey:
    return AdminKey(
        id=record.id,
        name=record.name,
        redacted_value=record.hint,
        created_at=record.created_at_ms // 1000,
        owner=AdminKeyOwner(role=record.role),
        can_loosen_until=seconds(record.loosen_until_ms),
        expires_at=seconds(record.expires_at_ms),
    )


def _member(record: MemberRecord) -> Member:
    return Member(id=record.id, email=record.email, role=record.role, added_at=record.created_at_ms // 1000)


def _organization(record: OrganizationRecord) -> Organization:
    return Organization(id=record.id, name=record.name, created_at=record.created_at_ms // 1000, region=record.region)
