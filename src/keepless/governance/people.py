"""Who belongs to an organization: invites, roles, and members that a provider's groups bring; each act logged.

Holds: `People`. Leaves out: adding and removing members (access), sessions and proofs (sign_in), the provider's
protocol (http.oidc). No role that is given here reaches beyond the organization of whoever gives it.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy.engine import Connection

from keepless.accounts import directory, invites, sessions
from keepless.accounts.directory import MemberRecord
from keepless.accounts.invites import InviteRecord
from keepless.accounts.keys import hash_password
from keepless.accounts.people_tables import Method, ProjectRole
from keepless.accounts.principal import AdminPrincipal
from keepless.accounts.roles import ROLES, Permission, Role
from keepless.accounts.sessions import Person
from keepless.accounts.store import projects_of
from keepless.accounts.tables import member
from keepless.errors import Code, ErrorType, KeeplessError, Problem
from keepless.governance.change import Office, as_many_as_may_be, not_found, own_organization
from keepless.governance.sign_in import Opened, SignIn, check_password
from keepless.ids import Id, Prefix, mint
from keepless.receipts.statement import Entry, EntryKind, Fact, FactValue

__all__ = ["MOST_INVITES", "CreatedInvite", "People", "Vouched", "already_a_member", "keep_an_owner"]

MOST_INVITES: Final = 1_000  # of one organization at a time


@dataclass(frozen=True, slots=True)
class CreatedInvite:
    """A new invite with its secret, this once."""

    record: InviteRecord
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Vouched:
    """What a provider says of a person. `subject`: who it is there; `email` only when the provider has verified it."""

    subject: bytes = field(repr=False)
    email: str | None
    name: str | None


class People:
    """Invites and roles. Every method blocks (database): call it from a worker thread."""

    def __init__(self, office: Office, sign_in: SignIn) -> None:
        self._office: Final = office
        self._sign_in: Final = sign_in

    # --- members -----------------------------------------------------------------------------------------------------

    def member(self, organization_id: Id, member_id: Id) -> MemberRecord:
        """One member. Raises `Problem` 404."""
        with self._office.db.read() as tx:
            return _member(tx, organization_id, member_id)

    def change_role(self, actor: AdminPrincipal, organization_id: Id, member_id: Id, role: Role) -> MemberRecord:
        """Give a member another role, in force with the next request. Raises `Problem` 404, 403, 400 (last owner)."""
        _allow(actor, organization_id)
        _check_role(role)
        now_ms = self._office.clock.now_ms()
        with self._office.db.write() as tx:
            own_organization(tx, organization_id)
            found = _member(tx, organization_id, member_id)
            if found.role is role:
                return found
            if found.role is Role.OWNER:
                keep_an_owner(tx, organization_id)
            tx.execute(member.update().where(member.c.id == member_id).values(role=role))
            facts: dict[Fact, FactValue] = {Fact.ACTOR: actor.id, Fact.MEMBER_ID: member_id, Fact.ROLE: role}
            self._office.log.append(tx, [Entry(EntryKind.MEMBER_CHANGED, now_ms, organization_id, facts=facts)])
        return self.member(organization_id, member_id)

    # --- invites -----------------------------------------------------------------------------------------------------

    def invites(self, organization_id: Id) -> list[InviteRecord]:
        """Invites, oldest first."""
        with self._office.db.read() as tx:
            return invites.invites_of(tx, organization_id)

    def invite_of(self, organization_id: Id, invite_id: Id) -> InviteRecord:
        """One invite. Raises `Problem` 404."""
        for found in self.invites(organization_id):
            if found.id == invite_id:
                return found
        raise not_found()

    def invite(
        self,
        actor: AdminPrincipal,
        organization_id: Id,
        *,
        email: str,
        role: Role,
        projects: Mapping[Id, ProjectRole] | None = None,
    ) -> CreatedInvite:
        """Invite an address; whoever has the secret becomes a member. Raises `Problem` 404, 403, 400."""
        _allow(actor, organization_id)
        _check_role(role)
        address, now_ms, created = email.strip().lower(), self._office.clock.now_ms(), mint(Prefix.INVITE)
        wanted = dict(projects or {})
        with self._office.db.write() as tx:
            own_organization(tx, organization_id)
            if set(wanted) - set(projects_of(tx, organization_id)):
                raise not_found()
            if any(one.email == address for one in directory.members(tx, organization_id)):
                raise already_a_member()
            invites.forget_invites(tx, organization_id, now_ms)
            if len(invites.invites_of(tx, organization_id)) >= MOST_INVITES:
                raise as_many_as_may_be("invites", MOST_INVITES)
            invites.forget_invites_to(tx, organization_id, address)  # a new one replaces those before
            secret = invites.add_invite(
                tx,
                created,
                organization_id=organization_id,
                email=address,
                role=role,
                projects=wanted,
                now_ms=now_ms,
            )
            facts: dict[Fact, FactValue] = {Fact.ACTOR: actor.id, Fact.INVITE_ID: created, Fact.ROLE: role}
            self._office.log.append(tx, [Entry(EntryKind.INVITE_CREATED, now_ms, organization_id, facts=facts)])
        return CreatedInvite(self.invite_of(organization_id, created), secret)

    def revoke_invite(self, actor: AdminPrincipal, organization_id: Id, invite_id: Id) -> None:
        """Delete an invite; its secret opens nothing any more. Raises `Problem` 404, 403."""
        _allow(actor, organization_id)
        now_ms = self._office.clock.now_ms()
        with self._office.db.write() as tx:
            own_organization(tx, organization_id)
            if not invites.delete_invite(tx, organization_id, invite_id, now_ms):
                raise not_found()
            facts: dict[Fact, FactValue] = {Fact.ACTOR: actor.id, Fact.INVITE_ID: invite_id}
            self._office.log.append(tx, [Entry(EntryKind.INVITE_REVOKED, now_ms, organization_id, facts=facts)])

    def accept(self, secret: str, *, name: str, password: str, instead_of: str | None = None) -> Opened:
        """Become the member that an invite is for, and sign in. Raises `Problem` 401, 400."""
        check_password(password)
        shown = name.strip()
        if len(shown) > 200 or not shown.isprintable():
            message = "A name has up to 200 printable characters."
            raise Problem(400, Code.INVALID_VALUE, message, param="name")
        self.shown_invite(secret)  # for a stranger nothing slow is computed
        hashed, now_ms = hash_password(password), self._office.clock.now_ms()
        with self._office.db.write() as tx:
            found = invites.use_invite(tx, secret, now_ms)
            proof = {"password": hashed, "name": shown or None}
            return self._joined(tx, found, now_ms=now_ms, method=Method.INVITE, instead_of=instead_of, proof=proof)

    def shown_invite(self, secret: str) -> Id:
        """The invite of a secret, for who goes to the provider to accept it. Raises `Problem` 401."""
        with self._office.db.write() as tx:
            found = invites.use_invite(tx, secret, self._office.clock.now_ms())
        if found is None:
            raise _invite_refused()
        return found.id

    def accept_vouched(self, invite_id: Id, vouched: Vouched, *, instead_of: str | None = None) -> Opened:
        """Become the member that an invite is for, as whom the provider vouches for. Raises `Problem` 401, 400.

        The provider must have verified the very address that was invited, and know nobody who is a member already.
        """
        now_ms = self._office.clock.now_ms()
        with self._office.db.write() as tx:
            found = invites.use_invite_of(tx, invite_id, now_ms)
            if found is not None and (found.email != vouched.email or _known(tx, vouched)):
                message = "The invite is for another address than the provider says, or you are a member already."
                raise Problem(401, Code.SIGN_IN_REFUSED, message, type=ErrorType.AUTHENTICATION, retry=False)
            proof = {"password": None, "name": vouched.name, "subject": vouched.subject, "invited": True}
            return self._joined(tx, found, now_ms=now_ms, method=Method.OIDC, instead_of=instead_of, proof=proof)

    def _joined(
        self,
        tx: Connection,
        found: InviteRecord | None,
        *,
        now_ms: int,
        method: Method,
        instead_of: str | None,
        proof: dict[str, Any],
    ) -> Opened:
        """The last steps of accepting, in the caller's transaction."""
        if found is None:
            raise _invite_refused()
        own = found.organization_id
        if any(one.email == found.email for one in directory.members(tx, own)):
            raise already_a_member()
        created = mint(Prefix.MEMBER)
        directory.add_member(
            tx, created, organization_id=own, email=found.email, role=found.role, now_ms=now_ms, **proof
        )
        invites.accept_invite(tx, found.id, now_ms)
        facts: dict[Fact, FactValue] = {Fact.ACTOR: created, Fact.MEMBER_ID: created, Fact.ROLE: found.role}
        with_invite: dict[Fact, FactValue] = {Fact.ACTOR: created, Fact.INVITE_ID: found.id}
        entries = [
            Entry(EntryKind.INVITE_ACCEPTED, now_ms, own, facts=with_invite),
            Entry(EntryKind.MEMBER_ADDED, now_ms, own, facts=facts),
        ]
        who = sessions.person(tx, created)
        if who is None:
            raise _invite_refused()
        return self._sign_in.opened(tx, who, method, now_ms, instead_of=instead_of, before=entries)

    # --- members that a provider brings ------------------------------------------------------------------------------

    def by_provider(
        self,
        grants: Sequence[tuple[Role, Id | None]],
        vouched: Vouched,
        *,
        instead_of: str | None = None,
        again: Id | None = None,
    ) -> Opened:
        """Sign in whom a provider vouches for, as the first of what their groups grant; None: the only organization.

        Who is not here yet becomes a member; a role that the groups changed is changed. Whom no group grants anything
        comes in with the role of the invite that was accepted, as long as no group ever gave another. Raises `Problem`
        401: neither, no verified address, or (`again`) somebody else.
        """
        now_ms = self._office.clock.now_ms()
        with contextlib.suppress(_SomebodyElseError), self._office.db.write() as tx:
            granted = _granted(grants, [one.id for one in directory.organizations(tx)])
            if granted is None:
                who, entries = _known(tx, vouched), list[Entry]()
                who = who if who is not None and who.invited else None
            else:
                role, own = granted
                if own is not None:
                    own_organization(tx, own)
                who, entries = _brought(tx, own, role, vouched, now_ms)
            if who is None or again not in (None, who.id):
                raise _SomebodyElseError  # whom the provider has brought is not brought, then
            return self._sign_in.opened(tx, who, Method.OIDC, now_ms, instead_of=instead_of, before=entries)
        raise self._sign_in.refused(None, Method.OIDC)


class _SomebodyElseError(KeeplessError):
    """Not who was to sign in: nothing of it is written but the refusal."""


def _granted(grants: Sequence[tuple[Role, Id | None]], known: Sequence[Id]) -> tuple[Role, Id | None] | None:
    """The first grant that means something here; an operator belongs to no organization."""
    only = known[0] if len(known) == 1 else None
    for role, named in grants:
        if role is Role.OPERATOR:
            return role, None
        if (own := named or only) in known:
            return role, own
    return None


def _known(tx: Connection, vouched: Vouched) -> Person | None:
    return next(iter(sessions.people_with(tx, subject=vouched.subject)), None)


def _brought(
    tx: Connection, organization_id: Id | None, role: Role, vouched: Vouched, now_ms: int
) -> tuple[Person | None, list[Entry]]:
    """The member of a subject: as known, found by the verified address, or new. No organization: an operator."""
    found = _known(tx, vouched)
    if found is None and vouched.email is not None:
        same = [one for one in sessions.people_with(tx, email=vouched.email) if one.organization_id == organization_id]
        found = next((one for one in same if one.subject is None), None)
        if same and found is None:
            return None, []  # the address is another subject's
    if found is not None and found.organization_id != organization_id:
        return None, []
    if found is None and vouched.email is None:
        return None, []
    member_id = mint(Prefix.MEMBER) if found is None else found.id
    facts: dict[Fact, FactValue] = {Fact.ACTOR: member_id, Fact.MEMBER_ID: member_id, Fact.ROLE: role}
    if found is None:
        directory.add_member(
            tx,
            member_id,
            organization_id=organization_id,
            email=vouched.email or "",
            role=role,
            password=None,
            now_ms=now_ms,
            name=vouched.name,
            subject=vouched.subject,
        )
        return sessions.person(tx, member_id), [Entry(EntryKind.MEMBER_ADDED, now_ms, organization_id, facts=facts)]
    values = {"role": role, "subject": vouched.subject, "invited": False}
    tx.execute(member.update().where(member.c.id == member_id).values(values))
    changed = [] if found.role is role else [Entry(EntryKind.MEMBER_CHANGED, now_ms, organization_id, facts=facts)]
    return sessions.person(tx, member_id), changed


def keep_an_owner(tx: Connection, organization_id: Id) -> None:
    """Raises `Problem` 400 when one owner less would be none."""
    owners = [one for one in directory.members(tx, organization_id) if one.role is Role.OWNER]
    if len(owners) < 2:
        message = "This is the last owner. Make somebody else an owner first."
        raise Problem(400, Code.INVALID_VALUE, message, param="role")


def already_a_member() -> Problem:
    """The refusal of a second member with one address."""
    return Problem(400, Code.INVALID_VALUE, "The organization has a member with this address.", param="email")


def _member(tx: Connection, organization_id: Id, member_id: Id) -> MemberRecord:
    for found in directory.members(tx, organization_id):
        if found.id == member_id:
            return found
    raise not_found()


def _allow(actor: AdminPrincipal, organization_id: Id) -> None:
    """Checked again here: governance does not trust its callers. Raises `Problem` 404, 403."""
    if actor.organization_id != organization_id:
        raise not_found()
    if Permission.MEMBERS_MANAGE not in ROLES[actor.role]:
        raise Problem(403, Code.INSUFFICIENT_PERMISSIONS, "Owners manage the members.", type=ErrorType.PERMISSION)


def _check_role(role: Role) -> None:
    if role is Role.OPERATOR:
        message = "A member of an organization is owner, developer, reader or auditor."
        raise Problem(400, Code.INVALID_VALUE, message, param="role")


def _invite_refused() -> Problem:
    message = "The invite opens nothing: it was accepted, revoked, is over, or never was one. Ask for a new one."
    return Problem(401, Code.SIGN_IN_REFUSED, message, type=ErrorType.AUTHENTICATION, retry=False)
