"""Organizations and projects: created, limited, archived, deleted; each a logged change through the fence.

Holds: `Organizations` and `bootstrap`, which makes the first one. Leaves out: keys and members (access), data
controls (controls), who may call (the route table).

Deleting an organization is one transaction (commit point): keys revoked, names and members erased, everything it keeps
made due in a purge, log entry. Afterwards no key of it opens anything anywhere; the purge destroys with receipts.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.accounts import directory, places
from keepless.accounts.directory import OrganizationRecord, ProjectRecord
from keepless.accounts.fence import Reach
from keepless.accounts.invites import forget_invites
from keepless.accounts.keys import KeyKind, hash_password, mint_key, mint_password
from keepless.accounts.principal import AdminPrincipal, Limits
from keepless.accounts.roles import Role
from keepless.accounts.store import (
    limits_of,
    model_limits_of,
    prepare,
    projects_of,
    replace_model_limits,
    touch,
    update_organization,
    update_project,
)
from keepless.accounts.tables import admin_key, api_key, member, model_limit, organization, project
from keepless.clock import Clock
from keepless.db import Database
from keepless.errors import Code, ConfigError, Problem
from keepless.expiry.progress import request
from keepless.governance.change import Office, as_many_as_may_be, not_found, organization_row, own_organization
from keepless.governance.running import everything
from keepless.ids import Id, Prefix, mint
from keepless.policy.data_class import DataClass
from keepless.receipts.log import Log
from keepless.receipts.statement import Entry, EntryKind, Fact, FactValue
from keepless.webhooks import endpoints as webhooks

__all__ = ["FOREVER_MS", "CreatedOrganization", "Initial", "Organizations", "bootstrap"]

MOST_PROJECTS: Final = 1_000  # of one organization; a change of its policy reads them all
FOREVER_MS: Final = 253_402_300_799_000  # the end of the year 9999


@dataclass(frozen=True, slots=True)
class CreatedOrganization:
    """A new organization with its first project and keys; the secrets are shown this once."""

    organization_id: Id
    project_id: Id
    api_key: str = field(repr=False)
    admin_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Initial:
    """What `init` answers; the secrets are shown this once."""

    organization: CreatedOrganization
    operator_key: str = field(repr=False)
    owner_email: str
    owner_password: str = field(repr=False)


def bootstrap(db: Database, clock: Clock, log: Log, *, owner_email: str) -> Initial:
    """Make the operator's key, the first organization and its owner. Raises ConfigError when there is one already.

    Needs no fence: nobody can have acted on anything before.
    """
    now_ms, password = clock.now_ms(), mint_password()
    hashed, operator = hash_password(password), mint_key(KeyKind.OPERATOR)
    with db.write() as tx:
        prepare(tx, now_ms=now_ms)
        if tx.scalar(sa.select(sa.func.count()).select_from(organization)):
            raise ConfigError("this database has an organization already")
        generation = touch(tx)
        created, entries = _create(tx, generation, operator.id, name="Default", region=None, now_ms=now_ms)
        directory.add_admin_key(
            tx, generation, operator, organization_id=None, role=Role.OPERATOR, name="Operator", now_ms=now_ms
        )
        owner: dict[Fact, FactValue] = {Fact.MEMBER_ID: mint(Prefix.MEMBER), Fact.ROLE: Role.OWNER}
        directory.add_member(
            tx,
            Id(str(owner[Fact.MEMBER_ID])),
            organization_id=created.organization_id,
            email=owner_email,
            role=Role.OWNER,
            password=hashed,
            now_ms=now_ms,
        )
        operator_facts: dict[Fact, FactValue] = {Fact.KEY_ID: operator.id, Fact.ROLE: Role.OPERATOR}
        log.append(
            tx,
            [
                Entry(EntryKind.KEY_CREATED, now_ms, facts=operator_facts),
                *entries,
                Entry(EntryKind.MEMBER_ADDED, now_ms, created.organization_id, facts=owner),
            ],
        )
    return Initial(created, operator.secret, owner_email, password)


def _create(
    tx: Connection, generation: int, actor: Id, *, name: str, region: str | None, now_ms: int
) -> tuple[CreatedOrganization, list[Entry]]:
    """Rows of a new organization, its first project and keys. Its first admin key may loosen its controls."""
    own, below = mint(Prefix.ORGANIZATION), mint(Prefix.PROJECT)
    api, admin = mint_key(KeyKind.API), mint_key(KeyKind.ADMIN)
    directory.add_organization(tx, generation, own, name=name, now_ms=now_ms, region=region)
    directory.add_project(tx, generation, below, organization_id=own, name="Default", now_ms=now_ms)
    directory.add_api_key(tx, generation, api, organization_id=own, project_id=below, name="Default", now_ms=now_ms)
    directory.add_admin_key(
        tx,
        generation,
        admin,
        organization_id=own,
        role=Role.OWNER,
        name="Default",
        now_ms=now_ms,
        loosen_until_ms=FOREVER_MS,
    )
    by: dict[Fact, FactValue] = {Fact.ACTOR: actor}
    entries = [
        Entry(EntryKind.ORGANIZATION_CREATED, now_ms, own, facts=by),
        Entry(EntryKind.PROJECT_CREATED, now_ms, own, below, facts=by),
        Entry(EntryKind.KEY_CREATED, now_ms, own, below, facts={**by, Fact.KEY_ID: api.id}),
        Entry(EntryKind.KEY_CREATED, now_ms, own, facts={**by, Fact.KEY_ID: admin.id, Fact.ROLE: Role.OWNER}),
    ]
    return CreatedOrganization(own, below, api.secret, admin.secret), entries


class Organizations:
    """Organizations and their projects. Every method blocks (database, fence): call it from a worker thread."""

    def __init__(self, office: Office) -> None:
        self._office: Final = office

    def all(self) -> list[OrganizationRecord]:
        """Every organization (operators)."""
        with self._office.db.read() as tx:
            return directory.organizations(tx)

    def create(self, actor: AdminPrincipal, *, name: str, region: str | None = None) -> CreatedOrganization:
        """A further organization; usable at once, everywhere."""
        now_ms = self._office.clock.now_ms()

        def make(tx: Connection) -> CreatedOrganization:
            created, entries = _create(tx, touch(tx), actor.id, name=name, region=region, now_ms=now_ms)
            self._office.log.append(tx, entries)
            return created

        return self._office.fence.change(make)

    def delete(self, actor: AdminPrincipal, organization_id: Id) -> Id:
        """Delete an organization; the id of the purge that destroys what it kept. Raises `Problem` 404."""
        now_ms = self._office.clock.now_ms()

        def make(tx: Connection) -> Id:
            row = own_organization(tx, organization_id)
            epoch = row.epoch + 1
            purge_id = request(
                tx,
                organization_id=organization_id,
                project_id=None,
                classes=DataClass,
                epoch=epoch,
                now_ms=now_ms,
            )
            generation = touch(tx)
            gone = {"generation": generation, "name": ""}
            update_organization(tx, organization_id, generation, deleted_at=now_ms, epoch=epoch, name="")
            for owned, ended in ((project, "archived_at"), (api_key, "revoked_at"), (admin_key, "revoked_at")):
                first = sa.func.coalesce(owned.c[ended], now_ms)
                rows = owned.update().where(owned.c.organization_id == organization_id)
                tx.execute(rows.values(**gone, **{ended: first}))
            places.leave(tx, organization, [organization_id], now_ms)
            tx.execute(member.delete().where(member.c.organization_id == organization_id))  # with sessions and links
            forget_invites(tx, organization_id)
            tx.execute(model_limit.delete().where(model_limit.c.organization_id == organization_id))
            everything(tx, organization_id).cancel(tx, now_ms)
            webhooks.forget(tx, organization_id)
            facts: dict[Fact, FactValue] = {Fact.ACTOR: actor.id, Fact.EPOCH: epoch, Fact.PURGE_ID: purge_id}
            self._office.log.append(tx, [Entry(EntryKind.ORGANIZATION_DELETED, now_ms, organization_id, facts=facts)])
            return purge_id

        return self._office.fence.change(make, Reach.KEYS)

    def set_limits(
        self, actor: AdminPrincipal, organization_id: Id, limits: Limits, project_id: Id | None = None
    ) -> None:
        """Set the rate limits of an organization or one project (None in a field = no limit). Raises `Problem` 404."""
        now_ms = self._office.clock.now_ms()
        values = {
            "requests_per_minute": limits.requests_per_minute,
            "requests_per_day": limits.requests_per_day,
            "tokens_per_minute": limits.tokens_per_minute,
        }

        def make(tx: Connection) -> None:
            own_organization(tx, organization_id)
            if project_id is not None and project_id not in projects_of(tx, organization_id):
                raise not_found()
            generation = touch(tx)
            if project_id is None:
                update_organization(tx, organization_id, generation, **values)
            else:
                update_project(tx, project_id, generation, **values)
            facts: dict[Fact, FactValue] = {
                Fact.ACTOR: actor.id,
                Fact.REQUESTS_PER_MINUTE: limits.requests_per_minute,
                Fact.REQUESTS_PER_DAY: limits.requests_per_day,
                Fact.TOKENS_PER_MINUTE: limits.tokens_per_minute,
            }
            entry = Entry(EntryKind.LIMITS_CHANGED, now_ms, organization_id, project_id, facts=facts)
            self._office.log.append(tx, [entry])

        self._office.fence.change(make)

    def limits_of_models(self, organization_id: Id, project_id: Id) -> tuple[list[Limits], dict[str, Limits]]:
        """What holds for all models of a project together, and what was set for single ones. Raises `Problem` 404."""
        with self._office.db.read() as tx:
            owner, below = organization_row(tx, organization_id), projects_of(tx, organization_id).get(project_id)
            if below is None:
                raise not_found()
            own = model_limits_of(tx, model_limit.c.project_id == project_id)
        return [limits_of(owner), limits_of(below)], own.get(project_id, {})

    def limit_model(
        self,
        actor: AdminPrincipal,
        organization_id: Id,
        project_id: Id,
        model: Id,
        changes: Mapping[str, int | None],
    ) -> None:
        """Change limits of one model in a project, by the names of `Limits`; None takes one away.

        Raises `Problem` 404, 400 for more than the project or organization may use of all models.
        """
        now_ms = self._office.clock.now_ms()

        def make(tx: Connection) -> None:
            owner = own_organization(tx, organization_id)
            below = projects_of(tx, organization_id).get(project_id)
            if below is None:
                raise not_found()
            for name, number in changes.items():
                most = min((at for row in (owner, below) if (at := getattr(row, name)) is not None), default=None)
                if number is not None and most is not None and number > most:
                    raise Problem(400, Code.INVALID_VALUE, f"A model's limit only tightens: here it is at most {most}.")
            present = model_limits_of(tx, model_limit.c.project_id == project_id).get(project_id, {})
            limits = replace(present.get(model, Limits()), **changes)
            replace_model_limits(tx, organization_id, project_id, model, limits)
            update_project(tx, project_id, touch(tx))
            facts: dict[Fact, FactValue] = {
                Fact.ACTOR: actor.id,
                Fact.MODEL: model,
                Fact.REQUESTS_PER_MINUTE: limits.requests_per_minute,
                Fact.REQUESTS_PER_DAY: limits.requests_per_day,
                Fact.TOKENS_PER_MINUTE: limits.tokens_per_minute,
            }
            entry = Entry(EntryKind.LIMITS_CHANGED, now_ms, organization_id, project_id, facts=facts)
            self._office.log.append(tx, [entry])

        self._office.fence.change(make)

    def projects(self, organization_id: Id, *, archived: bool = False) -> list[ProjectRecord]:
        """The projects of an organization, oldest first."""
        with self._office.db.read() as tx:
            return directory.projects(tx, organization_id, archived=archived)

    def project(self, organization_id: Id, project_id: Id) -> ProjectRecord:
        """One project, archived or not. Raises `Problem` 404."""
        for found in self.projects(organization_id, archived=True):
            if found.id == project_id:
                return found
        raise not_found()

    def create_project(self, actor: AdminPrincipal, organization_id: Id, *, name: str) -> ProjectRecord:
        """A new project. Raises `Problem` 404, 400 when there are `MOST_PROJECTS`."""
        now_ms, created = self._office.clock.now_ms(), mint(Prefix.PROJECT)

        def make(tx: Connection) -> None:
            own_organization(tx, organization_id)
            if len(projects_of(tx, organization_id)) >= MOST_PROJECTS:
                raise as_many_as_may_be("projects", MOST_PROJECTS)
            directory.add_project(tx, touch(tx), created, organization_id=organization_id, name=name, now_ms=now_ms)
            self._log(tx, EntryKind.PROJECT_CREATED, organization_id, created, actor=actor, now_ms=now_ms)

        self._office.fence.change(make)
        return self.project(organization_id, created)

    def rename_project(self, actor: AdminPrincipal, organization_id: Id, project_id: Id, *, name: str) -> ProjectRecord:
        """Give a project another name. Raises `Problem` 404."""
        now_ms = self._office.clock.now_ms()

        def make(tx: Connection) -> None:
            own_organization(tx, organization_id)
            if project_id not in projects_of(tx, organization_id):
                raise not_found()
            update_project(tx, project_id, touch(tx), name=name)
            self._log(tx, EntryKind.PROJECT_CHANGED, organization_id, project_id, actor=actor, now_ms=now_ms)

        self._office.fence.change(make)
        return self.project(organization_id, project_id)

    def archive_project(self, actor: AdminPrincipal, organization_id: Id, project_id: Id) -> ProjectRecord:
        """End a project: its keys are revoked, its jobs cancelled; what it keeps stays until its end.

        Raises `Problem` 404. Archiving an archived project changes nothing.
        """
        now_ms = self._office.clock.now_ms()

        def make(tx: Connection) -> None:
            row = own_organization(tx, organization_id)
            if project_id not in projects_of(tx, organization_id):
                return
            everything(tx, organization_id, project_id).cancel(tx, now_ms)
            generation = touch(tx)
            # A write decided for the project before must not be committed after: that is what the epoch is for.
            update_organization(tx, organization_id, generation, epoch=row.epoch + 1)
            update_project(tx, project_id, generation, archived_at=now_ms)
            places.leave(tx, project, [project_id], now_ms)
            keys = api_key.update().where(api_key.c.project_id == project_id, api_key.c.revoked_at.is_(None))
            tx.execute(keys.values(revoked_at=now_ms, generation=generation))
            self._log(tx, EntryKind.PROJECT_ARCHIVED, organization_id, project_id, actor=actor, now_ms=now_ms)

        self._office.fence.change(make, Reach.KEYS)
        return self.project(organization_id, project_id)

    def _log(
        self,
        tx: Connection,
        kind: EntryKind,
        organization_id: Id,
        project_id: Id,
        *,
        actor: AdminPrincipal,
        now_ms: int,
    ) -> None:
        entry = Entry(kind, now_ms, organization_id, project_id, facts={Fact.ACTOR: actor.id})
        self._office.log.append(tx, [entry])
