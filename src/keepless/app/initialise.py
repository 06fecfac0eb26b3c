"""The first organization of a data folder: made once, its secrets shown once.

Commit point: the transaction that writes the organization. The keyring is made before it; a crash in between leaves a
keyring without an organization, which the next `initialise` uses.
"""

from keepless.app.compose import is_empty, open_deployment
from keepless.config import Settings
from keepless.errors import ConfigError
from keepless.governance.organizations import bootstrap
from keepless.governance.sign_in import SignIn

__all__ = ["OWNER_EMAIL", "initialise"]

OWNER_EMAIL = "owner@keepless.local"


def initialise(settings: Settings) -> dict[str, str]:
    """Make the first organization; its ids and secrets (`keepless init`). Raises `ConfigError` when there is one."""
    if not is_empty(settings):
        raise ConfigError("this data folder has an organization already; create keys with `keepless keys create`")
    deployment = open_deployment(settings, create=True)
    try:
        first = bootstrap(deployment.db, deployment.clock, deployment.log, owner_email=OWNER_EMAIL)
        made = SignIn(deployment.db, deployment.clock, deployment.log).local_link(first.owner_email)
    finally:
        deployment.close()
    return {
        "organization_id": first.organization.organization_id,
        "project_id": first.organization.project_id,
        "api_key": first.organization.api_key,
        "admin_key": first.organization.admin_key,
        "operator_key": first.operator_key,
        "owner_email": first.owner_email,
        "owner_password": first.owner_password,
        "sign_in_path": f"/sign-in/link?token={made[0]}" if made is not None else "/sign-in",
    }
