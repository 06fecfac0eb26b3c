"""Users and invites over HTTP, in OpenAI's shapes; the secret of an invite or link is in the answer that made it alone.

OpenAI's organization has two roles, ours four: `developer` and `auditor` may be given by name, and an invite as
`reader` that grants membership of projects makes a developer. A role holds for every project of the organization, so
users of a project can be read here and not changed.
"""

from typing import Annotated, Final, Literal

import msgspec

from keepless.accounts.directory import MemberRecord
from keepless.accounts.invites import InviteRecord
from keepless.accounts.people_tables import ProjectRole
from keepless.accounts.roles import Role
from keepless.accounts.sessions import LINK_MS
from keepless.admin.account_shapes import Member
from keepless.admin.asks import AnId, Email, NoBody, NoQuery, PageQuery
from keepless.admin.endpoint import Ask
from keepless.admin.pages import Owner, cut_by_age, seconds
from keepless.admin.services import Services
from keepless.admin.shapes import Deleted, Page
from keepless.errors import Code, Problem
from keepless.governance.change import not_found
from keepless.ids import Id, Prefix, parse

__all__ = [
    "create_invite",
    "create_sign_in_link",
    "delete_invite",
    "list_invites",
    "list_project_users",
    "list_users",
    "retrieve_invite",
    "retrieve_project_user",
    "retrieve_user",
    "update_user",
]

GivenRole = Literal["owner", "developer", "reader", "auditor"]
_IN_PROJECTS: Final = {Role.OWNER: ProjectRole.OWNER, Role.DEVELOPER: ProjectRole.MEMBER}


class UsersQuery(PageQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """People; of these addresses."""

    emails: list[Email] | None = None


class UserUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another role."""

    role: GivenRole


class InvitedProject(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Membership of a project."""

    id: AnId
    role: ProjectRole = ProjectRole.MEMBER


class InviteCreate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An invite. Nothing is sent: whoever invites hands the link over."""

    email: Email
    role: GivenRole
    projects: Annotated[list[InvitedProject], msgspec.Meta(max_length=100)] = []


class Invite(msgspec.Struct, kw_only=True):
    """OpenAI's invite."""

    id: str
    email: str
    role: Role
    status: Literal["accepted", "expired", "pending"]
    created_at: int
    expires_at: int
    accepted_at: int | None = None
    projects: list[InvitedProject] = []
    object: Literal["organization.invite"] = "organization.invite"


class InviteCreated(Invite, kw_only=True):
    """A new invite with the path at which it is accepted, shown this once."""

    sign_in_path: str


class SignInLink(msgspec.Struct, kw_only=True):
    """A link that signs a member in, once, shown this once."""

    user_id: str
    sign_in_path: str
    expires_at: int
    object: Literal["organization.user.sign_in_link"] = "organization.user.sign_in_link"


class ProjectUser(msgspec.Struct, kw_only=True):
    """Who may act in a project: owners of the organization, and developers as its members."""

    id: str
    email: str
    role: ProjectRole
    added_at: int
    name: str | None = None
    object: Literal["organization.project.user"] = "organization.project.user"


# --- users -----------------------------------------------------------------------------------------------------------


def list_users(services: Services, ask: Ask[UsersQuery, NoBody]) -> Page[Member]:
    """People of the organization."""
    found = services.access.members(ask.organization_id)
    if ask.query.emails is not None:
        wanted = {email.lower() for email in ask.query.emails}
        found = [one for one in found if one.email in wanted]
    asked, owner = ask.query, Owner(services.db, ask.organization_id)
    return cut_by_age(owner, found, asked.after, asked.limit, _user, newest_first=asked.order == "desc")


def retrieve_user(services: Services, ask: Ask[NoQuery, NoBody]) -> Member:
    """One person. Raises `Problem` 404."""
    return _user(services.people.member(ask.organization_id, ask.id("user_id", Prefix.MEMBER)))


def update_user(services: Services, ask: Ask[NoQuery, UserUpdate]) -> Member:
    """Another role, in force with the person's next request. Raises `Problem` 404, 400 for the last owner."""
    member_id, role = ask.id("user_id", Prefix.MEMBER), Role(ask.body.role)
    return _user(services.people.change_role(ask.caller, ask.organization_id, member_id, role))


def create_sign_in_link(services: Services, ask: Ask[NoQuery, NoBody]) -> SignInLink:
    """A one-time link for a member who cannot sign in, good for 15 minutes. Raises `Problem` 404."""
    member_id = ask.id("user_id", Prefix.MEMBER)
    secret = services.sign_in.link_for(ask.caller, ask.organization_id, member_id)
    ends = (services.clock.now_ms() + LINK_MS) // 1000
    return SignInLink(user_id=member_id, sign_in_path=f"/sign-in/link?token={secret}", expires_at=ends)


# --- users of a project ----------------------------------------------------------------------------------------------


def list_project_users(services: Services, ask: Ask[PageQuery, NoBody]) -> Page[ProjectUser]:
    """Who may act in a project. Raises `Problem` 404."""
    found = _in_project(services, ask.organization_id, ask.id("project_id", Prefix.PROJECT))
    asked, owner = ask.query, Owner(services.db, ask.organization_id)
    return cut_by_age(owner, found, asked.after, asked.limit, _project_user, newest_first=asked.order == "desc")


def retrieve_project_user(services: Services, ask: Ask[NoQuery, NoBody]) -> ProjectUser:
    """One of them. Raises `Problem` 404."""
    member_id = ask.id("user_id", Prefix.MEMBER)
    for found in _in_project(services, ask.organization_id, ask.id("project_id", Prefix.PROJECT)):
        if found.id == member_id:
            return _project_user(found)
    raise not_found()


def _in_project(services: Services, organization_id: Id, project_id: Id) -> list[MemberRecord]:
    services.organizations.project(organization_id, project_id)
    return [one for one in services.access.members(organization_id) if one.role in _IN_PROJECTS]


# --- invites ---------------------------------------------------------------------------------------------------------


def list_invites(services: Services, ask: Ask[PageQuery, NoBody]) -> Page[Invite]:
    """Invites, pending or over."""
    now_ms, found = services.clock.now_ms(), services.people.invites(ask.organization_id)
    asked, owner = ask.query, Owner(services.db, ask.organization_id)
    newest_first = asked.order == "desc"
    return cut_by_age(
        owner, found, asked.after, asked.limit, lambda one: _invite(one, now_ms), newest_first=newest_first
    )


def create_invite(services: Services, ask: Ask[NoQuery, InviteCreate]) -> InviteCreated:
    """A new invite; it replaces earlier ones to the same address. Raises `Problem` 404 (project), 400 (a member)."""
    projects: dict[Id, ProjectRole] = {}
    for one in ask.body.projects:
        project_id = parse(one.id, Prefix.PROJECT)
        if project_id is None:
            raise not_found()
        projects[project_id] = one.role
    role = Role(ask.body.role)
    if ProjectRole.OWNER in projects.values() and role is not Role.OWNER:
        message = "Roles hold for the whole organization: nobody owns one project alone. Grant it as member."
        raise Problem(400, Code.INVALID_VALUE, message, param="projects")
    if projects and role is Role.READER:
        role = Role.DEVELOPER
    made = services.people.invite(ask.caller, ask.organization_id, email=ask.body.email, role=role, projects=projects)
    plain = _invite(made.record, services.clock.now_ms())
    return InviteCreated(
        id=plain.id,
        email=plain.email,
        role=plain.role,
        status=plain.status,
        created_at=plain.created_at,
        expires_at=plain.expires_at,
        projects=plain.projects,
        sign_in_path=f"/sign-in/invite?token={made.secret}",
    )


def retrieve_invite(services: Services, ask: Ask[NoQuery, NoBody]) -> Invite:
    """One invite, without its secret. Raises `Problem` 404."""
    found = services.people.invite_of(ask.organization_id, ask.id("invite_id", Prefix.INVITE))
    return _invite(found, services.clock.now_ms())


def delete_invite(services: Services, ask: Ask[NoQuery, NoBody]) -> Deleted:
    """It opens nothing any more. Raises `Problem` 404."""
    invite_id = ask.id("invite_id", Prefix.INVITE)
    services.people.revoke_invite(ask.caller, ask.organization_id, invite_id)
    return Deleted(id=invite_id, object="organization.invite.deleted")


# --- shapes ----------------------------------------------------------------------------------------------------------


def _user(record: MemberRecord) -> Member:
    born = record.created_at_ms // 1000
    return Member(id=record.id, email=record.email, role=record.role, added_at=born, name=record.name)


def _project_user(record: MemberRecord) -> ProjectUser:
    born, role = record.created_at_ms // 1000, _IN_PROJECTS[record.role]
    return ProjectUser(id=record.id, email=record.email, role=role, added_at=born, name=record.name)


def _invite(record: InviteRecord, now_ms: int) -> Invite:
    over: Literal["expired", "pending"] = "expired" if record.expires_at_ms <= now_ms else "pending"
    return Invite(
        id=record.id,
        email=record.email,
        role=record.role,
        status="accepted" if record.accepted_at_ms is not None else over,
        created_at=record.created_at_ms // 1000,
        expires_at=record.expires_at_ms // 1000,
        accepted_at=seconds(record.accepted_at_ms),
        projects=[InvitedProject(id=project_id, role=role) for project_id, role in record.projects.items()],
    )
