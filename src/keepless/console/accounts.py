"""Projects, keys and members: listed, made, ended. A secret is in the answer that created it and in no other.

Leaves out: the rules (governance.organizations, access, people), and signing in (entrance).
"""

from typing import Final

from keepless.accounts.principal import Limits
from keepless.accounts.roles import Permission, Role
from keepless.clock import DAY_MS
from keepless.console.paging import offered, paged
from keepless.console.services import Services
from keepless.console.visit import Answer, Redirect, View, Visit
from keepless.errors import Code, Problem
from keepless.governance.change import may_loosen, not_found
from keepless.ids import Prefix

__all__ = [
    "add_member",
    "archive_project",
    "ask_archive",
    "ask_remove",
    "ask_revoke",
    "change_role",
    "create_admin_key",
    "create_project",
    "invite",
    "keys",
    "members",
    "project",
    "projects",
    "remove_member",
    "rename_project",
    "revoke_invite",
    "revoke_key",
    "set_limits",
]

_MOST: Final = 2_147_483_647
_LIMITS: Final = ("requests_per_minute", "requests_per_day", "tokens_per_minute")
_ROLES: Final = (Role.OWNER, Role.DEVELOPER, Role.AUDITOR, Role.READER)


# --- projects --------------------------------------------------------------------------------------------------------


def projects(services: Services, visit: Visit) -> Answer:
    """Projects in use, and those that are archived."""
    everything = services.organizations.projects(visit.organization_id, archived=True)
    found, after = paged(everything, visit.asked_id("after", Prefix.PROJECT))
    return View("projects.html", {"found": found, "after": after})


def create_project(services: Services, visit: Visit) -> Answer:
    """A new project."""
    name = visit.text("name")
    services.organizations.create_project(visit.visitor.principal, visit.organization_id, name=name)
    return Redirect("/projects", "project_created")


def project(services: Services, visit: Visit) -> Answer:
    """One project."""
    found = services.organizations.project(visit.organization_id, visit.id("project_id", Prefix.PROJECT))
    keys_of = []
    if visit.may(Permission.KEYS_READ) and found.archived_at_ms is None:
        keys_of = services.access.api_keys(visit.organization_id, found.id)
    return View("project.html", {"project": found, "limits": _LIMITS, "keys": keys_of})


def rename_project(services: Services, visit: Visit) -> Answer:
    """Another name."""
    project_id = visit.id("project_id", Prefix.PROJECT)
    name = visit.text("name")
    services.organizations.rename_project(visit.visitor.principal, visit.organization_id, project_id, name=name)
    return Redirect(f"/projects/{project_id}", "project_renamed")


def set_limits(services: Services, visit: Visit) -> Answer:
    """Exactly these limits; an empty one is none."""
    project_id = visit.id("project_id", Prefix.PROJECT)
    limits = Limits(*(visit.number(name, 0, _MOST) for name in _LIMITS))
    services.organizations.set_limits(visit.visitor.principal, visit.organization_id, limits, project_id)
    return Redirect(f"/projects/{project_id}", "limits_changed")


def ask_archive(services: Services, visit: Visit) -> Answer:
    """Whether a project shall end."""
    found = services.organizations.project(visit.organization_id, visit.id("project_id", Prefix.PROJECT))
    return View(
        "ask.html",
        {
            "title": "Archive the project",
            "about": found.name,
            "text": "Its keys are revoked everywhere before this answers, its running batches are cancelled. What it "
            "keeps stays until its normal end.",
            "action": f"/projects/{found.id}/archive",
            "back": f"/projects/{found.id}",
            "back_title": found.name,
            "phrase": "archive",
            "button": "Archive",
            "fields": {},
        },
    )


def archive_project(services: Services, visit: Visit) -> Answer:
    """End a project."""
    visit.confirm("archive")
    project_id = visit.id("project_id", Prefix.PROJECT)
    services.organizations.archive_project(visit.visitor.principal, visit.organization_id, project_id)
    return Redirect("/projects", "project_archived")


# --- keys ------------------------------------------------------------------------------------------------------------


def keys(services: Services, visit: Visit) -> Answer:
    """API keys of all projects, and for owners the admin keys."""
    own = visit.organization_id
    admin = services.access.admin_keys(own) if visit.may(Permission.ADMIN_KEYS_MANAGE) else None
    found, after = paged(services.access.api_keys(own), visit.asked_id("after", Prefix.API_KEY))
    admin, admin_after = (None, None) if admin is None else paged(admin, visit.asked_id("admin", Prefix.ADMIN_KEY))
    projects = services.organizations.projects(own)
    return View(
        "keys.html",
        {
            "found": found,
            "after": after,
            "admin": admin,
            "admin_after": admin_after,
            "projects": offered(projects),
            "names": {one.id: one.name for one in projects},
            "roles": _ROLES,
            "may_loosen": may_loosen(visit.visitor.principal, services.clock.now_ms()),
        },
    )


def create_admin_key(services: Services, visit: Visit) -> Answer:
    """A new admin key, shown this once."""
    role = visit.choice("role", Role)
    until = services.clock.now_ms() + DAY_MS - 60_000 if visit.asked("loosen") == "yes" else None
    made = services.access.create_admin_key(
        visit.visitor.principal,
        visit.organization_id,
        name=visit.text("name"),
        role=Role.READER if role is None else role,
        loosen_until_ms=until,
    )
    return View("new_admin_key.html", {"made": made})


def ask_revoke(services: Services, visit: Visit) -> Answer:
    """Whether a key shall end."""
    found, _ = _key(services, visit)
    return View(
        "ask.html",
        {
            "title": "Revoke the key",
            "about": found,
            "text": "It is accepted nowhere any more when this has answered. A revoked key does not come back.",
            "action": f"/keys/{visit.ids['key_id']}/revoke",
            "back": "/keys",
            "back_title": "API keys",
            "phrase": "revoke",
            "button": "Revoke",
            "fields": {},
        },
    )


def revoke_key(services: Services, visit: Visit) -> Answer:
    """End a key: an API key, or an owner's admin key."""
    visit.confirm("revoke")
    own, (_, is_admin) = visit.organization_id, _key(services, visit)
    if is_admin:
        key_id = visit.id("key_id", Prefix.ADMIN_KEY)
        services.access.revoke_admin_key(visit.visitor.principal, own, key_id)
    else:
        services.access.revoke_api_key(visit.visitor.principal, own, visit.id("key_id", Prefix.API_KEY))
    return Redirect("/keys", "key_revoked")


def _key(services: Services, visit: Visit) -> tuple[str, bool]:
    """A key's name, and whether it is an admin key, which only owners see. Raises `Problem` 404."""
    own, key_id = visit.organization_id, visit.ids["key_id"]
    for one in services.access.api_keys(own):
        if one.id == key_id:
            return one.name, False
    if visit.may(Permission.ADMIN_KEYS_MANAGE):
        for admin in services.access.admin_keys(own):
            if admin.id == key_id:
                return admin.name, True
    raise not_found()


# --- members ---------------------------------------------------------------------------------------------------------


def members(services: Services, visit: Visit) -> Answer:
    """Who belongs to the organization, and who is invited."""
    own, now_ms = visit.organization_id, services.clock.now_ms()
    pending = [one for one in services.people.invites(own) if one.accepted_at_ms is None and one.expires_at_ms > now_ms]
    found, after = paged(services.access.members(own), visit.asked_id("after", Prefix.MEMBER))
    pending, invite_after = paged(pending, visit.asked_id("invite", Prefix.INVITE))
    values = {"found": found, "after": after, "invites": pending, "invite_after": invite_after}
    return View("members.html", {**values, "roles": _ROLES})


def invite(services: Services, visit: Visit) -> Answer:
    """Invite an address; the link is shown this once."""
    role, email = _role(visit), _email(visit)
    made = services.people.invite(visit.visitor.principal, visit.organization_id, email=email, role=role)
    link = f"{visit.origin}/sign-in/invite?token={made.secret}"
    return View("new_invite.html", {"invite": made.record, "link": link})


def revoke_invite(services: Services, visit: Visit) -> Answer:
    """Delete an invite; its link opens nothing any more."""
    invite_id = visit.id("invite_id", Prefix.INVITE)
    services.people.revoke_invite(visit.visitor.principal, visit.organization_id, invite_id)
    return Redirect("/members", "invite_revoked")


def change_role(services: Services, visit: Visit) -> Answer:
    """Give a member another role."""
    member_id, role = visit.id("member_id", Prefix.MEMBER), _role(visit)
    services.people.change_role(visit.visitor.principal, visit.organization_id, member_id, role)
    return Redirect("/members", "member_changed")


def add_member(services: Services, visit: Visit) -> Answer:
    """A new member, who signs in elsewhere."""
    role, email = _role(visit), _email(visit)
    services.access.add_member(visit.visitor.principal, visit.organization_id, email=email, role=role)
    return Redirect("/members", "member_added")


def _role(visit: Visit) -> Role:
    found = visit.choice("role", Role)
    if found is None:
        raise Problem(400, Code.MISSING_PARAMETER, "A member has a role.", param="role")
    return found


def _email(visit: Visit) -> str:
    email = visit.text("email", 254)
    if email.count("@") != 1 or email.startswith("@") or email.endswith("@") or " " in email:
        raise Problem(400, Code.INVALID_VALUE, "This is not an e-mail address.", param="email")
    return email


def ask_remove(services: Services, visit: Visit) -> Answer:
    """Whether a member shall go."""
    member_id = visit.id("member_id", Prefix.MEMBER)
    found = next((one for one in services.access.members(visit.organization_id) if one.id == member_id), None)
    if found is None:
        raise not_found()
    return View(
        "ask.html",
        {
            "title": "Remove the member",
            "about": found.email,
            "text": "The member is signed out everywhere, and the address is erased. The log keeps the id alone.",
            "action": f"/members/{member_id}/remove",
            "back": "/members",
            "back_title": "Members",
            "phrase": "remove",
            "button": "Remove",
            "fields": {},
        },
    )


def remove_member(services: Services, visit: Visit) -> Answer:
    """Remove a member and erase the address."""
    visit.confirm("remove")
    member_id = visit.id("member_id", Prefix.MEMBER)
    services.access.remove_member(visit.visitor.principal, visit.organization_id, member_id)
    return Redirect("/members", "member_removed")
