"""`keepless organizations|projects|keys|members`: create, list, revoke.

A secret is shown by the command that created it and nowhere else.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any

import click

from keepless.app.compose import open_deployment
from keepless.cli.client import Client, segment
from keepless.cli.options import client_command, store_command
from keepless.cli.outcome import FindingError
from keepless.cli.output import Screen, when
from keepless.config import Settings
from keepless.governance.sign_in import SignIn

__all__ = ["keys", "members", "organizations", "projects"]

_ORGANIZATIONS = "/organizations"
_PROJECTS = "/organization/projects"
_ROLES = click.Choice(["owner", "developer", "reader", "auditor"])
_ADMIN_KEYS = "/organization/admin_api_keys"
_USERS = "/organization/users"
_INVITES = "/organization/invites"


@click.group()
def organizations() -> None:
    """Organizations of this deployment (operator key)."""


def _named(what: str, *, required: bool = True) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """What is created takes its name behind the command or as an option, whichever a person tries first."""

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @click.argument(what, required=False)
        @click.option(f"--{what}", "option", help=f"The same as {what.upper()}.")
        @functools.wraps(function)
        def command(*args: Any, option: str | None, **kwargs: Any) -> None:
            given = kwargs[what]
            if given is not None and option is not None:
                raise click.UsageError(f"give {what.upper()} once")
            kwargs[what] = option if given is None else given
            if kwargs[what] is None and required:
                raise click.UsageError(f"Missing argument '{what.upper()}'.")
            function(*args, **kwargs)

        return command

    return decorate


@organizations.command("create")
@_named("name")
@click.option("--region", help="Pin it: upstreams and locations outside of this region are refused.")
@client_command
def organizations_create(screen: Screen, client: Client, /, name: str, region: str | None) -> None:
    """Create an organization with its first project and keys."""
    answer = client.post(_ORGANIZATIONS, {"name": name, "region": region})
    screen.fields(answer, "Created; the keys are shown this once", answer)


@organizations.command("list")
@client_command
def organizations_list(screen: Screen, client: Client, /) -> None:
    """List organizations."""
    found = list(client.each(_ORGANIZATIONS))
    rows = [(o["id"], o["name"], o["region"], when(o["created_at"])) for o in found]
    screen.rows({"data": found}, "Organizations", ("id", "name", "region", "created"), rows)


@organizations.command("revoke")
@click.argument("organization_id")
@client_command
def organizations_revoke(screen: Screen, client: Client, /, organization_id: str) -> None:
    """Delete an organization: its keys stop working, everything it keeps is purged with receipts."""
    answer = client.delete(f"{_ORGANIZATIONS}/{segment(organization_id)}")
    screen.fields(answer, "Deleted", answer)


@click.group()
def projects() -> None:
    """Projects of your organization."""


@projects.command("create")
@_named("name")
@client_command
def projects_create(screen: Screen, client: Client, /, name: str) -> None:
    """Create a project."""
    answer = client.post(_PROJECTS, {"name": name})
    screen.fields(answer, "Created", answer)


@projects.command("list")
@click.option("--archived", is_flag=True, help="Archived ones too.")
@client_command
def projects_list(screen: Screen, client: Client, /, archived: bool) -> None:
    """List projects."""
    found = list(client.each(_PROJECTS, include_archived=archived))
    rows = [(p["id"], p["name"], p["status"], when(p["created_at"])) for p in found]
    screen.rows({"data": found}, "Projects", ("id", "name", "status", "created"), rows)


@projects.command("revoke")
@click.argument("project_id")
@client_command
def projects_revoke(screen: Screen, client: Client, /, project_id: str) -> None:
    """Archive a project: its keys stop working, what it keeps is purged."""
    answer = client.post(f"{_PROJECTS}/{segment(project_id)}/archive")
    screen.fields(answer, "Archived", answer)


@click.group()
def keys() -> None:
    """API keys of a project, and admin keys of your organization (--admin)."""


@keys.command("create")
@_named("name", required=False)
@click.option("--project", help="The project; needed when there are several.")
@click.option("--admin", is_flag=True, help="An admin key instead of an API key.")
@click.option("--role", type=_ROLES, help="What an admin key may do.")
@client_command
def keys_create(
    screen: Screen, client: Client, /, *, name: str | None, project: str | None, admin: bool, role: str | None
) -> None:
    """Create a key and show it, this once."""
    name = name or "key"
    if admin:
        answer = client.post(_ADMIN_KEYS, {"name": name, "role": role})
    elif role:
        raise click.UsageError("--role is for admin keys: add --admin")
    else:
        answer = client.post(f"{_PROJECTS}/{segment(_project(client, project))}/api_keys", {"name": name})
    screen.fields(answer, "Created; the key is shown this once", _key(answer) | {"value": answer["value"]})


@keys.command("list")
@click.option("--project", help="Of one project only.")
@click.option("--admin", is_flag=True, help="Admin keys instead of API keys.")
@client_command
def keys_list(screen: Screen, client: Client, /, project: str | None, admin: bool) -> None:
    """List keys; never the secrets."""
    if admin:
        found = list(client.each(_ADMIN_KEYS))
    else:
        chosen = [project] if project else [p["id"] for p in client.each(_PROJECTS)]
        found = [k | {"project_id": p} for p in chosen for k in client.each(f"{_PROJECTS}/{segment(p)}/api_keys")]
    rows = [(*_key(k).values(), k.get("project_id", "")) for k in found]
    screen.rows({"data": found}, "Keys", ("id", "name", "key", "created", "project"), rows)


@keys.command("revoke")
@click.argument("key_id")
@click.option("--project", help="The project of an API key; found by itself when not given.")
@client_command
def keys_revoke(screen: Screen, client: Client, /, key_id: str, project: str | None) -> None:
    """Revoke a key. When this returns, no process accepts it any more."""
    if key_id.startswith("akey_"):
        answer = client.delete(f"{_ADMIN_KEYS}/{segment(key_id)}")
    else:
        owner = project or _owner(client, key_id)
        answer = client.delete(f"{_PROJECTS}/{segment(owner)}/api_keys/{segment(key_id)}")
    screen.fields(answer, "Revoked", answer)


@click.group()
def members() -> None:
    """People of your organization."""


@members.command("create")
@_named("email")
@click.option("--role", type=_ROLES, required=True)
@click.option("--password-stdin", is_flag=True, help="Read a password from standard input.")
@client_command
def members_create(screen: Screen, client: Client, /, email: str, role: str, password_stdin: bool) -> None:
    """Add a person."""
    password = sys.stdin.readline().rstrip("\r\n") if password_stdin else None
    answer = client.post(_USERS, {"email": email, "role": role, "password": password})
    screen.fields(answer, "Added", answer)


@members.command("list")
@client_command
def members_list(screen: Screen, client: Client, /) -> None:
    """List people."""
    found = list(client.each(_USERS))
    rows = [(m["id"], m["email"], m["role"], when(m["added_at"])) for m in found]
    screen.rows({"data": found}, "Members", ("id", "e-mail", "role", "added"), rows)


@members.command("revoke")
@click.argument("member_id")
@client_command
def members_revoke(screen: Screen, client: Client, /, member_id: str) -> None:
    """Remove a person."""
    answer = client.delete(f"{_USERS}/{segment(member_id)}")
    screen.fields(answer, "Removed", answer)


@members.command("role")
@click.argument("member_id")
@click.argument("role", type=_ROLES)
@client_command
def members_role(screen: Screen, client: Client, /, member_id: str, role: str) -> None:
    """Give a person another role."""
    answer = client.post(f"{_USERS}/{segment(member_id)}", {"role": role})
    screen.fields(answer, "Changed", answer)


@members.command("invite")
@_named("email")
@click.option("--role", type=_ROLES, required=True)
@client_command
def members_invite(screen: Screen, client: Client, /, email: str, role: str) -> None:
    """Invite a person; hand over the link, which is shown this once."""
    answer = client.post(_INVITES, {"email": email, "role": role})
    screen.fields(answer, "Invited; the link is shown this once", answer)


@members.command("link")
@click.argument("member_id")
@client_command
def members_link(screen: Screen, client: Client, /, member_id: str) -> None:
    """A link with which a person who is locked out signs in, once, within 15 minutes."""
    answer = client.post(f"{_USERS}/{segment(member_id)}/sign_in_link")
    screen.fields(answer, "The link is shown this once", answer)


@members.command("rescue")
@click.option("--email", help="Whose link. [default: the first owner]")
@store_command
def members_rescue(screen: Screen, settings: Settings, /, email: str | None) -> None:
    """On the machine itself, without any key: a one-time link for an owner who is locked out."""
    deployment = open_deployment(settings)
    try:
        made = SignIn(deployment.db, deployment.clock, deployment.log).local_link(email)
    finally:
        deployment.close()
    if made is None:
        raise FindingError("nobody here has this address")
    told = {"user_id": made[1].id, "email": made[1].email, "sign_in_path": f"/sign-in/link?token={made[0]}"}
    screen.fields(told, "The link is good once, for 15 minutes", told)


def _key(key: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": key["id"],
        "name": key["name"],
        "key": key["redacted_value"],
        "created": when(key["created_at"]),
    }


def _project(client: Client, given: str | None) -> str:
    if given:
        return given
    found = [p["id"] for p in client.each(_PROJECTS)]
    if len(found) != 1:
        raise click.UsageError("the organization has several projects (or none): give --project")
    return str(found[0])


def _owner(client: Client, key_id: str) -> str:
    for project in client.each(_PROJECTS):
        if any(key["id"] == key_id for key in client.each(f"{_PROJECTS}/{segment(project['id'])}/api_keys")):
            return str(project["id"])
    raise FindingError("no project of this organization has such a key")
