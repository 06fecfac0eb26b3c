"""Keys and members: created, listed, revoked; each a logged change through the fence.

Holds: `Access`. Leaves out: minting (accounts.keys), looking a key up (accounts.lease), who may call (the route table).

A new key works everywhere when the call that made it has answered. A revoked one is accepted nowhere when the call that
revoked it has answered: it waits for `Reach.KEYS` (ADR 0002). Revoking again is not an error and waits just the same,
because the first caller may not have stayed to the end.
"""

from dataclasses import dataclass, field
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.accounts import directory, places
from keepless.accounts.directory import AdminKeyRecord, ApiKeyRecord, MemberRecord
from keepless.accounts.fence import Reach
from keepless.accounts.invites import forget_invites_to
from keepless.accounts.keys import KeyKind, hash_password, mint_key
from keepless.accounts.principal import AdminPrincipal
from keepless.accounts.roles import Role
from keepless.accounts.store import projects_of, touch
from keepless.accounts.tables import admin_key, api_key, member
from keepless.errors import Code, Problem
from keepless.governance.change import (
    Office,
    as_many_as_may_be,
    may_loosen,
    not_found,
    own_organization,
    recent_sign_in_required,
)
from keepless.governance.people import keep_an_owner
from keepless.ids import Id, Prefix, mint
from keepless.receipts.statement import Entry, EntryKind, Fact, FactValue

__all__ = ["Access", "CreatedAdminKey", "CreatedApiKey"]

MOST_KEYS: Final = 10_000  # API keys in use of one organization; every process holds them in memory
_LONGEST_LOOSENING_MS: Final = 24 * 3_600_000


@dataclass(frozen=True, slots=True)
class CreatedApiKey:
    """A new API key with its secret, this once."""

    record: ApiKeyRecord
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class CreatedAdminKey:
    """A new admin key with its secret, this once."""

    record: AdminKeyRecord
    secret: str = field(repr=False)


class Access:
    """Keys and members of organizations. Every method blocks (database, fence): call it from a worker thread."""

    def __init__(self, office: Office) -> None:
        self._office: Final = office

    def api_keys(self, organization_id: Id, project_id: Id | None = None) -> list[ApiKeyRecord]:
        """API keys in use, oldest first; of one project when given. Raises `Problem` 404 for another's project."""
        with self._office.db.read() as tx:
            if project_id is not None and project_id not in projects_of(tx, organization_id):
                raise not_found()
            return directory.api_keys(tx, organization_id, project_id)

    def api_key(self, organization_id: Id, project_id: Id, key_id: Id) -> ApiKeyRecord:
        """One API key in use. Raises `Problem` 404."""
        for record in self.api_keys(organization_id, project_id):
            if record.id == key_id:
                return record
        raise not_found()

    def rename_api_key(
        self, actor: AdminPrincipal, organization_id: Id, project_id: Id, key_id: Id, *, name: str
    ) -> ApiKeyRecord:
        """Give an API key in use another name. Raises `Problem` 404."""
        now_ms = self._office.clock.now_ms()

        with self._office.db.write() as tx:  # no process knows names: nobody has to be waited for
            own_organization(tx, organization_id)
            owned = (api_key.c.organization_id == organization_id, api_key.c.project_id == project_id)
            named = api_key.update().where(api_key.c.id == key_id, api_key.c.revoked_at.is_(None), *owned)
            if tx.execute(named.values(name=name)).rowcount != 1:
                raise not_found()
            facts: dict[Fact, FactValue] = {Fact.ACTOR: actor.id, Fact.KEY_ID: key_id}
            self._log(tx, EntryKind.KEY_CHANGED, organization_id, project_id, facts, now_ms=now_ms)
        return self.api_key(organization_id, project_id, key_id)

    def create_api_key(
        self,
        actor: AdminPrincipal,
        organization_id: Id,
        project_id: Id,
        *,
        name: str,
        expires_in_seconds: int | None = None,
    ) -> CreatedApiKey:
        """A new API key of a project, usable at once. Raises `Problem` 404, 400 when there are `MOST_KEYS`.

        With `expires_in_seconds` it is accepted nowhere any more, at most a lease after that time.
        """
        now_ms, key = self._office.clock.now_ms(), mint_key(KeyKind.API)
        end_ms = None if expires_in_seconds is None else now_ms + expires_in_seconds * 1000

        def make(tx: Connection) -> None:
            own_organization(tx, organization_id)
            if project_id not in projects_of(tx, organization_id):
                raise not_found()
            in_use = sa.select(sa.func.count()).select_from(api_key)
            own = in_use.where(api_key.c.organization_id == organization_id, api_key.c.revoked_at.is_(None))
            if tx.execute(own).scalar_one() >= MOST_KEYS:
                raise as_many_as_may_be("API keys", MOST_KEYS)
            owner = {"organization_id": organization_id, "project_id": project_id}
            directory.add_api_key(tx, touch(tx), key, name=name, now_ms=now_ms, expires_at_ms=end_ms, **owner)
            facts: dict[Fact, FactValue] = {Fact.KEY_ID: key.id, Fact.EXPIRES_AT: end_ms}
            facts[Fact.ACTOR] = actor.id
            self._log(tx, EntryKind.KEY_CREATED, organization_id, project_id, facts, now_ms=now_ms)

        self._office.fence.change(make)
        return CreatedApiKey(ApiKeyRecord(key.id, project_id, name, key.hint, now_ms, end_ms), key.secret)

    def end_api_key_in(
        self, actor: AdminPrincipal, organization_id: Id, project_id: Id, key_id: Id, *, seconds: int
    ) -> ApiKeyRecord:
        """Let an API key in use end then, sooner or later than it would. Raises `Problem` 404, 400 when it has ended.

        Every process knows the new end when this answers.
        """
        now_ms = self._office.clock.now_ms()
        end_ms = now_ms + seconds * 1000

        def make(tx: Connection) -> None:
            own_organization(tx, organization_id)
            owned = (api_key.c.organization_id == organization_id, api_key.c.project_id == project_id)
            row = tx.execute(sa.select(api_key).where(api_key.c.id == key_id, *owned)).one_or_none()
            if row is None or row.revoked_at is not None:
                raise not_found()
            if row.expires_at is not None and row.expires_at <= now_ms:
                message = "The time of this key is over: create another one."
                raise Problem(400, Code.INVALID_VALUE, message, param="expires_in_seconds")
            changed = {"expires_at": end_ms, "generation": touch(tx)}
            tx.execute(api_key.update().where(api_key.c.id == key_id).values(**changed))
            facts: dict[Fact, FactValue] = {Fact.ACTOR: actor.id, Fact.KEY_ID: key_id, Fact.EXPIRES_AT: end_ms}
            self._log(tx, EntryKind.KEY_CHANGED, organization_id, project_id, facts, now_ms=now_ms)

        self._office.fence.change(make)
        return self.api_key(organization_id, project_id, key_id)

    def revoke_api_key(
        self, actor: AdminPrincipal, organization_id: Id, key_id: Id, project_id: Id | None = None
    ) -> None:
        """Revoke an API key (of that project, when given). Raises `Problem` 404 for a key of somebody else's."""
        now_ms = self._office.clock.now_ms()

        def make(tx: Connection) -> None:
            own_organization(tx, organization_id)
            query = sa.select(api_key).where(api_key.c.id == key_id, api_key.c.organization_id == organization_id)
            row = tx.execute(query).one_or_none()
            if row is None or project_id not in (None, row.project_id):
                raise not_found()
            if row.revoked_at is not None:
                return
            ended = {"revoked_at": now_ms, "generation": touch(tx)}
            tx.execute(api_key.update().where(api_key.c.id == key_id).values(**ended))
            places.leave(tx, api_key, [key_id], now_ms)
            self._log(
                tx,
                EntryKind.KEY_REVOKED,
                organization_id,
                row.project_id,
                {Fact.ACTOR: actor.id, Fact.KEY_ID: key_id},
                now_ms=now_ms,
            )

        self._office.fence.change(make, Reach.KEYS)

    def admin_keys(self, organization_id: Id) -> list[AdminKeyRecord]:
        """Admin keys in use, oldest first."""
        with self._office.db.read() as tx:
            return directory.admin_keys(tx, organization_id)

    def create_admin_key(
        self,
        actor: AdminPrincipal,
        organization_id: Id,
        *,
        name: str,
        role: Role = Role.OWNER,
        loosen_until_ms: int | None = None,
        expires_in_seconds: int | None = None,
    ) -> CreatedAdminKey:
        """A new admin key. `loosen_until_ms`: gives it the scope `controls:loosen` until then, 24 h at most.

        Raises `Problem` 404, 400 for the operator's role or too long a scope, 403 when the actor has no such scope.
        """
        now_ms, key = self._office.clock.now_ms(), mint_key(KeyKind.ADMIN)
        end_ms = None if expires_in_seconds is None else now_ms + expires_in_seconds * 1000
        if role is Role.OPERATOR:
            message = "An organization's keys are owner, developer, reader or auditor."
            raise Problem(400, Code.INVALID_VALUE, message, param="role")
        if loosen_until_ms is not None:
            if not may_loosen(actor, now_ms):
                raise recent_sign_in_required()
            if loosen_until_ms > now_ms + _LONGEST_LOOSENING_MS:
                message = "The scope controls:loosen is given for at most 24 hours."
                raise Problem(400, Code.INVALID_VALUE, message, param="can_loosen_until")

        def make(tx: Connection) -> None:
            own_organization(tx, organization_id)
            directory.add_admin_key(
                tx,
                touch(tx),
                key,
                organization_id=organization_id,
                role=role,
                name=name,
                now_ms=now_ms,
                loosen_until_ms=loosen_until_ms,
                expires_at_ms=end_ms,
            )
            facts: dict[Fact, FactValue] = {Fact.KEY_ID: key.id, Fact.ROLE: role, Fact.ENDS_AT: loosen_until_ms}
            facts[Fact.EXPIRES_AT] = end_ms
            self._log(tx, EntryKind.KEY_CREATED, organization_id, None, {Fact.ACTOR: actor.id, **facts}, now_ms=now_ms)

        self._office.fence.change(make)
        record = AdminKeyRecord(key.id, organization_id, role, name, key.hint, now_ms, loosen_until_ms, end_ms)
        return CreatedAdminKey(record, key.secret)

    def revoke_admin_key(self, actor: AdminPrincipal, organization_id: Id, key_id: Id) -> None:
        """Revoke an admin key. Raises `Problem` 404 for a key that is not the organization's."""
        now_ms = self._office.clock.now_ms()

        def make(tx: Connection) -> None:
            own_organization(tx, organization_id)
            query = sa.select(admin_key).where(admin_key.c.id == key_id, admin_key.c.organization_id == organization_id)
            row = tx.execute(query).one_or_none()
            if row is None:
                raise not_found()
            if row.revoked_at is not None:
                return
            ended = {"revoked_at": now_ms, "generation": touch(tx)}
            tx.execute(admin_key.update().where(admin_key.c.id == key_id).values(**ended))
            places.leave(tx, admin_key, [key_id], now_ms)
            self._log(
                tx,
                EntryKind.KEY_REVOKED,
                organization_id,
                None,
                {Fact.ACTOR: actor.id, Fact.KEY_ID: key_id},
                now_ms=now_ms,
            )

        # An admin key is accepted under the lease alone, so the shorter bound is enough.
        self._office.fence.change(make)

    def members(self, organization_id: Id) -> list[MemberRecord]:
        """The members, oldest first."""
        with self._office.db.read() as tx:
            return directory.members(tx, organization_id)

    def add_member(
        self, actor: AdminPrincipal, organization_id: Id, *, email: str, role: Role, password: str | None = None
    ) -> MemberRecord:
        """A new member; without a password the person signs in elsewhere. Raises `Problem` 404, 400 (address taken)."""
        now_ms, created = self._office.clock.now_ms(), mint(Prefix.MEMBER)
        hashed = None if password is None else hash_password(password)

        def make(tx: Connection) -> None:
            own_organization(tx, organization_id)
            address = email.lower()
            taken = sa.select(member.c.id).where(member.c.organization_id == organization_id, member.c.email == address)
            if tx.execute(taken).first() is not None:
                message = "The organization has a member with this address."
                raise Problem(400, Code.INVALID_VALUE, message, param="email")
            touch(tx)
            directory.add_member(
                tx, created, organization_id=organization_id, email=email, role=role, password=hashed, now_ms=now_ms
            )
            facts: dict[Fact, FactValue] = {Fact.MEMBER_ID: created, Fact.ROLE: role}
            self._log(tx, EntryKind.MEMBER_ADDED, organization_id, None, {Fact.ACTOR: actor.id, **facts}, now_ms=now_ms)

        self._office.fence.change(make)
        return MemberRecord(created, email.lower(), role, now_ms)

    def remove_member(self, actor: AdminPrincipal, organization_id: Id, member_id: Id) -> None:
        """Remove a member, address, name and sessions. Raises `Problem` 404, 400 (last owner)."""
        now_ms = self._office.clock.now_ms()

        def make(tx: Connection) -> None:
            own_organization(tx, organization_id)
            gone = next((one for one in directory.members(tx, organization_id) if one.id == member_id), None)
            if gone is None:
                raise not_found()
            if gone.role is Role.OWNER:
                keep_an_owner(tx, organization_id)
            forget_invites_to(tx, organization_id, gone.email)
            places.leave(tx, member, [member_id], now_ms)
            tx.execute(member.delete().where(member.c.id == member_id))  # with sessions and links
            touch(tx)
            facts: dict[Fact, FactValue] = {Fact.MEMBER_ID: member_id}
            self._log(
                tx, EntryKind.MEMBER_REMOVED, organization_id, None, {Fact.ACTOR: actor.id, **facts}, now_ms=now_ms
            )

        self._office.fence.change(make)

    def _log(
        self,
        tx: Connection,
        kind: EntryKind,
        organization_id: Id,
        project_id: Id | None,
        facts: dict[Fact, FactValue],
        *,
        now_ms: int,
    ) -> None:
        self._office.log.append(tx, [Entry(kind, now_ms, organization_id, project_id, facts=facts)])
