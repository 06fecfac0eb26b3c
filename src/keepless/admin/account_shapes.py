"""What the admin API answers about accounts: projects, keys, members, organizations, limits.

OpenAI's shapes where OpenAI has the route, with our fields added. Instants are Unix seconds; null = there is none.
"""

from typing import Literal

import msgspec

from keepless.accounts.roles import Role

__all__ = [
    "AdminKey",
    "AdminKeyCreated",
    "AdminKeyOwner",
    "ApiKey",
    "ApiKeyCreated",
    "ApiKeyOwner",
    "Limits",
    "Member",
    "Organization",
    "OrganizationCreated",
    "OrganizationDeleted",
    "OwnAccount",
    "Project",
    "RateLimit",
    "ServiceAccount",
    "ServiceAccountCreated",
    "ServiceAccountKey",
]


class Limits(msgspec.Struct, kw_only=True):
    """Rate limits as set; null = none."""

    object: str
    requests_per_minute: int | None
    requests_per_day: int | None
    tokens_per_minute: int | None


class RateLimit(msgspec.Struct, kw_only=True):
    """OpenAI's rate limit of one model in a project: what is in force. The largest number says that there is none."""

    id: str
    model: str
    max_requests_per_1_minute: int
    max_requests_per_1_day: int
    max_tokens_per_1_minute: int
    object: Literal["project.rate_limit"] = "project.rate_limit"


class Project(msgspec.Struct, kw_only=True):
    """OpenAI's project."""

    id: str
    name: str
    created_at: int
    archived_at: int | None
    status: Literal["active", "archived"]
    object: Literal["organization.project"] = "organization.project"


class OwnAccount(msgspec.Struct, kw_only=True):
    """The service account that a key is."""

    id: str
    name: str
    created_at: int
    role: Literal["member"] = "member"


class ApiKeyOwner(msgspec.Struct, kw_only=True):
    """Keys here belong to their project; OpenAI's SDK wants an owner, which is the key itself."""

    service_account: OwnAccount
    type: Literal["service_account"] = "service_account"
    user: None = None


class ApiKey(msgspec.Struct, kw_only=True):
    """OpenAI's project API key."""

    id: str
    name: str
    redacted_value: str
    created_at: int
    owner: ApiKeyOwner
    owner_project_access: Literal["active", "inactive"] = "active"
    last_used_at: None = None
    expires_at: int | None = None
    object: Literal["organization.project.api_key"] = "organization.project.api_key"


class ApiKeyCreated(ApiKey, kw_only=True):
    """With the secret, this once."""

    value: str


class ServiceAccountKey(msgspec.Struct, kw_only=True):
    """The key of a service account, with the secret, this once."""

    id: str
    name: str
    created_at: int
    expires_at: int | None
    value: str
    object: Literal["organization.project.service_account.api_key"] = "organization.project.service_account.api_key"


class ServiceAccountCreated(msgspec.Struct, kw_only=True):
    """OpenAI's answer to `service_accounts.create`. Here a service account is its key; both have one id."""

    id: str
    name: str
    created_at: int
    api_key: ServiceAccountKey
    role: Literal["member"] = "member"
    object: Literal["organization.project.service_account"] = "organization.project.service_account"


class ServiceAccount(msgspec.Struct, kw_only=True):
    """OpenAI's service account: here it is its key, and has its id and name."""

    id: str
    name: str
    created_at: int
    role: Literal["member"] = "member"
    object: Literal["organization.project.service_account"] = "organization.project.service_account"


class AdminKeyOwner(msgspec.Struct, kw_only=True):
    """What the key may do."""

    role: Role
    type: Literal["service_account"] = "service_account"
    object: Literal["organization.service_account"] = "organization.service_account"


class AdminKey(msgspec.Struct, kw_only=True):
    """OpenAI's admin API key. `can_loosen_until`: the end of its scope `controls:loosen`."""

    id: str
    name: str
    redacted_value: str
    created_at: int
    owner: AdminKeyOwner
    can_loosen_until: int | None = None
    last_used_at: None = None
    expires_at: int | None = None
    object: Literal["organization.admin_api_key"] = "organization.admin_api_key"


class AdminKeyCreated(AdminKey, kw_only=True):
    """With the secret, this once."""

    value: str


class Member(msgspec.Struct, kw_only=True):
    """A person."""

    id: str
    email: str
    role: Role
    added_at: int
    name: str | None = None
    object: Literal["organization.user"] = "organization.user"


class Organization(msgspec.Struct, kw_only=True):
    """An organization, for operators: no policy, no content, no usage."""

    id: str
    name: str
    created_at: int
    region: str | None
    object: Literal["organization"] = "organization"


class OrganizationDeleted(msgspec.Struct, kw_only=True):
    """Deleted. `purge_id`: what destroys the rest; null when it kept nothing."""

    id: str
    purge_id: str | None
    deleted: bool = True
    object: Literal["organization.deleted"] = "organization.deleted"


class OrganizationCreated(Organization, kw_only=True):
    """With its first project and keys, this once."""

    project_id: str
    api_key: str
    admin_key: str
