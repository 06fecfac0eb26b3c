"""The console of a deployment without a server: pages are asked through ASGI, as one role or another."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from sqlalchemy.engine import Connection
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request

from keepless.accounts.principal import AdminPrincipal
from keepless.accounts.roles import Role
from keepless.accounts.store import policy_in_force
from keepless.batches.book import Book, InputFile
from keepless.console.app import routes
from keepless.console.door import by_key
from keepless.console.services import Services, Visitor
from keepless.db import Database
from keepless.files import store
from keepless.files.service import FileLimits, Files
from keepless.files.values import FilePurpose
from keepless.governance.exports import Exports
from keepless.governance.governed import Governed
from keepless.governance.organizations import FOREVER_MS
from keepless.http import problems
from keepless.ids import Id
from keepless.tuning.book import Book as Tunings
from keepless.tuning.ending import Ending
from tests.support.asgi import Answer, call
from tests.support.platform import Platform, platform

TOKEN = "the-token-of-the-session"


@dataclass
class Console:
    """A platform with pages. `sign_in` decides who looks; without it admin keys in the header do."""

    platform: Platform
    app: Starlette
    services: Services
    who: list[Visitor | None]

    def sign_in(self, role: Role | None, *, recent: bool = True, csrf: str | None = TOKEN) -> None:
        """From now on a member of this role looks; None: nobody."""
        own = None if role is Role.OPERATOR else self.platform.organization_id
        until = FOREVER_MS if recent and role is Role.OWNER else None
        actor = Id("okey_x" if own is None else "user_x")
        visitor = None if role is None else Visitor(AdminPrincipal(actor, own, role, until), "someone", csrf)
        self.who[:] = [visitor]

    def get(self, path: str, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return call(self.app, "GET", path, {"host": "here", "accept": "text/html", **named})

    def page(self, path: str) -> str:
        """A page that must be there."""
        answer = self.get(path)
        assert answer.status == 200, answer.body.decode()
        return answer.body.decode()

    def post(self, path: str, form: dict[str, Any] | None = None, **headers: str) -> Answer:
        """A form sent as a browser sends it from a page of this console."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        body = urlencode({"csrf": TOKEN, **(form or {})}).encode()
        known = {"host": "here", "accept": "text/html", "origin": "http://here", "sec-fetch-site": "same-origin"}
        return call(self.app, "POST", path, {**known, **named}, body)

    def done(self, path: str, form: dict[str, Any] | None = None) -> str:
        """A form that must be taken; where it leads."""
        answer = self.post(path, form)
        assert answer.status == 303, answer.body.decode()
        return answer.headers["location"]


def text_of(page: str) -> str:
    """What a person reads of a page."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


@contextlib.contextmanager
def console(database: Database, folder: Path) -> Iterator[Console]:
    """A console for the time of a `with`."""
    with platform(database, folder) as found:
        yield pages_of(found)


def pages_of(found: Platform) -> Console:
    """The console of a platform."""
    db, clock, vault = found.services.db, found.rig.clock, found.rig.vault

    def policy_now(organization_id: Id, project_id: Id) -> Any:
        with db.read() as tx:
            return policy_in_force(tx, organization_id, project_id)

    files = Files(
        db,
        clock,
        vault,
        deleter=found.services.sweeper,
        policy_now=policy_now,
        limits=FileLimits(1_000_000, 100, 10_000_000),
    )

    def inputs(tx: Connection, file_id: Id, project_id: Id) -> InputFile | None:
        one = store.get(tx, file_id, found.organization_id, project_id)
        return None if one is None else InputFile(one.purpose is FilePurpose.BATCH, None)

    who: list[Visitor | None] = []
    key = by_key(found.services.lease)

    def doorkeeper(request: Request) -> Visitor | None:
        return who[0] if who else key(request)

    shared: dict[str, Any] = {one.name: getattr(found.services, one.name) for one in fields(Governed)}
    services = Services(
        **shared,
        exports=Exports(db, clock, found.rig.log, vault),
        files=files,
        batches=Book(db, clock, vault, inputs, lambda _: None),
        tunings=Tunings(db, clock, vault, policy_now, ["base"]),
        tuning_ends=Ending(db, clock, vault, found.services.sweeper, found.deployment.office.fence),
        file_deleted=lambda _: None,
        doorkeeper=doorkeeper,
    )
    app = Starlette(
        routes=routes(services), middleware=[Middleware(problems.Guard)], exception_handlers=dict(problems.handlers())
    )
    app.router.redirect_slashes = False
    made = Console(found, app, services, who)
    made.sign_in(Role.OWNER)
    return made
