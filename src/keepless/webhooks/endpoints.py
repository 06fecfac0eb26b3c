"""Endpoints: registered, changed, tried out and removed by an organization's owners.

Holds: `Endpoints`, `EndpointRecord`, `Wanted` and `forget`, by which a deleted organization's go. Leaves out: who may
call (the route table), the HTTP shapes (admin).

Each change locks the organization's row, writes, and appends to the log as its last step: sending ids to a new place is
something an auditor must be able to see. The log says who and when, never the url. With an endpoint go its deliveries.
"""

import asyncio
import threading
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from keepless.accounts import places
from keepless.accounts.store import lock_organization, projects_of
from keepless.clock import DAY_MS, Clock
from keepless.db import Database
from keepless.errors import Code, ErrorType, Problem
from keepless.ids import Id, Prefix, mint
from keepless.outbound.pinned import OutboundError
from keepless.outbound.urls import UrlError, target_of
from keepless.receipts.log import Log
from keepless.receipts.statement import Entry, EntryKind, Fact
from keepless.webhooks.events import EventType, mask_of, payload, types_in
from keepless.webhooks.send import Sender
from keepless.webhooks.signature import Secrets, headers_of, new_salt, shown
from keepless.webhooks.tables import webhook_delivery, webhook_endpoint

__all__ = ["MOST_ENDPOINTS", "EndpointRecord", "Endpoints", "Wanted", "forget"]

MOST_ENDPOINTS: Final = 20  # of one organization
_OLD_SECRET_MS: Final = DAY_MS
_SUBJECT: Final = {
    EventType.FILE_EXPIRING: Prefix.FILE,
    EventType.TUNING_SUCCEEDED: Prefix.TUNING_JOB,
    EventType.TUNING_FAILED: Prefix.TUNING_JOB,
    EventType.TUNING_CANCELLED: Prefix.TUNING_JOB,
}  # of the others: a batch
column: Final = webhook_endpoint.c


@dataclass(frozen=True, slots=True)
class EndpointRecord:
    """One endpoint, without its secret."""

    id: Id
    project_id: Id | None
    name: str
    url: str
    events: list[EventType]
    created_at: int
    updated_at: int
    hint: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an owner asked for; None leaves a value as it is."""

    name: str | None = None
    url: str | None = None
    events: list[EventType] | None = None


def forget(tx: Connection, organization_id: Id) -> None:
    """Remove every endpoint of an organization and what was still to be told to it."""
    tx.execute(webhook_delivery.delete().where(webhook_delivery.c.organization_id == organization_id))
    tx.execute(webhook_endpoint.delete().where(column.organization_id == organization_id))


class Endpoints:
    """Endpoints of organizations. Every method blocks: call it from a worker thread."""

    def __init__(self, db: Database, clock: Clock, log: Log, secrets: Secrets, sender: Sender) -> None:
        self._db: Final = db
        self._clock: Final = clock
        self._log: Final = log
        self._secrets: Final = secrets
        self._sender: Final = sender
        self._testing: Final = threading.Semaphore(2)

    def create(
        self, actor: Id, organization_id: Id, wanted: Wanted, project_id: Id | None = None
    ) -> tuple[EndpointRecord, str]:
        """A new endpoint and its secret, this once. Raises `Problem` 400 (url, too many), 404."""
        now_ms, endpoint_id, salt = self._clock.now_ms(), mint(Prefix.WEBHOOK), new_salt()
        values = self._values(wanted)
        secret = shown(self._secrets.secret(endpoint_id, salt))
        with self._db.write() as tx:
            if lock_organization(tx, organization_id) is None:
                raise _not_found()
            if project_id is not None and project_id not in projects_of(tx, organization_id):
                raise _not_found()
            count = sa.select(sa.func.count()).where(column.organization_id == organization_id)
            if tx.execute(count).scalar_one() >= MOST_ENDPOINTS:
                raise Problem(400, Code.INVALID_VALUE, f"An organization has at most {MOST_ENDPOINTS} endpoints.")
            tx.execute(
                webhook_endpoint.insert().values(
                    id=endpoint_id,
                    organization_id=organization_id,
                    project_id=project_id,
                    created_at=now_ms,
                    updated_at=now_ms,
                    salt=salt,
                    hint=secret[-4:],
                    **values,
                )
            )
            row = self._row(tx, organization_id, endpoint_id)
            self._enter(tx, EntryKind.WEBHOOK_CREATED, row, actor=actor, now_ms=now_ms)
        return _record(row), secret

    def list(self, organization_id: Id, *, after: Id | None = None, limit: int = 20) -> list[EndpointRecord]:
        """Endpoints of an organization, newest first. Raises `Problem` 404 for an `after` not theirs or long gone."""
        query = sa.select(webhook_endpoint).where(column.organization_id == organization_id)
        with self._db.read() as tx:
            if after is not None:
                last = places.found(tx, after, organization_id) or self._row(tx, organization_id, after)
                older = sa.and_(column.created_at == last.created_at, column.id < last.id)
                query = query.where(sa.or_(column.created_at < last.created_at, older))
            rows = tx.execute(query.order_by(column.created_at.desc(), column.id.desc()).limit(limit)).all()
        return [_record(row) for row in rows]

    def get(self, organization_id: Id, endpoint_id: Id) -> EndpointRecord:
        """One endpoint. Raises `Problem` 404."""
        with self._db.read() as tx:
            return _record(self._row(tx, organization_id, endpoint_id))

    def update(self, actor: Id, organization_id: Id, endpoint_id: Id, wanted: Wanted) -> EndpointRecord:
        """Change what was asked for. Raises `Problem` 400, 404."""
        values = self._values(wanted)
        with self._db.write() as tx:
            before = self._locked(tx, organization_id, endpoint_id)
            if all(getattr(before, name) == value for name, value in values.items()):
                return _record(before)
            return self._change(tx, before, values, actor)

    def rotate(self, actor: Id, organization_id: Id, endpoint_id: Id, *, keep_old: bool) -> tuple[EndpointRecord, str]:
        """A new secret, shown this once; with `keep_old` the old one signs too for a day. Raises `Problem` 404."""
        salt = new_salt()
        secret = shown(self._secrets.secret(endpoint_id, salt))
        with self._db.write() as tx:
            before = self._locked(tx, organization_id, endpoint_id)
            old: dict[str, Any] = {"old_salt": None, "old_until": None}
            if keep_old:
                old = {"old_salt": before.salt, "old_until": self._clock.now_ms() + _OLD_SECRET_MS}
            return self._change(tx, before, {"salt": salt, "hint": secret[-4:], **old}, actor), secret

    def delete(self, actor: Id, organization_id: Id, endpoint_id: Id) -> None:
        """Remove an endpoint and what was still to be told to it. Raises `Problem` 404."""
        with self._db.write() as tx:
            row, now_ms = self._locked(tx, organization_id, endpoint_id), self._clock.now_ms()
            places.leave(tx, webhook_endpoint, [endpoint_id], now_ms)
            tx.execute(webhook_delivery.delete().where(webhook_delivery.c.endpoint_id == endpoint_id))
            tx.execute(webhook_endpoint.delete().where(column.id == endpoint_id))
            self._enter(tx, EntryKind.WEBHOOK_DELETED, row, actor=actor, now_ms=now_ms)

    def test(self, organization_id: Id, endpoint_id: Id, kind: EventType) -> int:
        """Send a sample now; the status of the answer. Raises `Problem` 400 (no answer), 404, 429."""
        with self._db.read() as tx:
            row = self._row(tx, organization_id, endpoint_id)
        secret = self._secrets.checked(endpoint_id, row.salt, row.hint)
        event_id, now_ms = mint(Prefix.EVENT), self._clock.now_ms()
        body = payload(event_id, kind, mint(_SUBJECT.get(kind, Prefix.BATCH)), now_ms)
        if not self._testing.acquire(blocking=False):
            raise Problem(429, Code.RATE_LIMIT, "Other tests are running. Try again soon.", type=ErrorType.REQUESTS)
        try:
            target = target_of(row.url, allow_private=self._sender.allow_private)
            return asyncio.run(self._sender.post(target, headers_of([secret], event_id, now_ms, body), body))
        except OutboundError as undeliverable:
            message = f"The endpoint gave no answer: {undeliverable.failure.value}."
            raise Problem(400, Code.WEBHOOK_UNREACHABLE, message, param="url") from None
        except UrlError as refused:
            raise _bad_url(refused) from None
        finally:
            self._testing.release()

    def _values(self, wanted: Wanted) -> dict[str, Any]:
        values: dict[str, Any] = {}
        if wanted.name is not None:
            values["name"] = wanted.name
        if wanted.url is not None:
            try:
                target_of(wanted.url, allow_private=self._sender.allow_private)
            except UrlError as refused:
                raise _bad_url(refused) from None
            values["url"] = wanted.url
        if wanted.events is not None:
            values["events"] = mask_of(wanted.events)
        return values

    def _change(self, tx: Connection, before: Row[Any], values: dict[str, Any], actor: Id) -> EndpointRecord:
        now_ms = self._clock.now_ms()
        tx.execute(webhook_endpoint.update().where(column.id == before.id).values(updated_at=now_ms, **values))
        row = self._row(tx, before.organization_id, before.id)
        self._enter(tx, EntryKind.WEBHOOK_CHANGED, row, actor=actor, now_ms=now_ms)
        return _record(row)

    def _locked(self, tx: Connection, organization_id: Id, endpoint_id: Id) -> Row[Any]:
        if lock_organization(tx, organization_id) is None:
            raise _not_found()
        return self._row(tx, organization_id, endpoint_id)

    def _row(self, tx: Connection, organization_id: Id, endpoint_id: Id) -> Row[Any]:
        query = sa.select(webhook_endpoint)
        own = query.where(column.id == endpoint_id, column.organization_id == organization_id)
        row = tx.execute(own).one_or_none()
        if row is None:
            raise _not_found()
        return row

    def _enter(self, tx: Connection, kind: EntryKind, row: Row[Any], *, actor: Id, now_ms: int) -> None:
        facts = {Fact.ACTOR: actor, Fact.WEBHOOK_ID: row.id}
        self._log.append(tx, [Entry(kind, now_ms, row.organization_id, row.project_id, facts=facts)])


def _record(row: Row[Any]) -> EndpointRecord:
    return EndpointRecord(
        row.id, row.project_id, row.name, row.url, types_in(row.events), row.created_at, row.updated_at, row.hint
    )


def _not_found() -> Problem:
    return Problem(404, Code.NOT_FOUND, "There is nothing with this id.")


def _bad_url(error: UrlError) -> Problem:
    return Problem(400, Code.INVALID_VALUE, f"Invalid value for url: {error.why}.", param="url")
