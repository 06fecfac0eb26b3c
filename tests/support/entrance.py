"""The entrance of a console without a server, and a browser that keeps its cookies."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.middleware import Middleware

from keepless.config import Settings
from keepless.console.app import routes
from keepless.console.door import by_key, by_session, first_of
from keepless.console.entrance import Entrance, Federation
from keepless.console.entrance import routes as entrance_routes
from keepless.db import Database
from keepless.governance.people import People
from keepless.governance.sign_in import SignIn
from keepless.http import problems
from keepless.http.sessions import Sessions
from keepless.http.visitors import Visitors
from keepless.incidents.origin import Origins
from tests.support.asgi import Answer, call
from tests.support.console import Console, pages_of
from tests.support.platform import platform

OWNER = "owner@example.com"


@dataclass
class Visitor:
    """A browser: cookies, and the headers that a browser sends with a form of the page it is on."""

    app: Starlette
    cookies: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, **headers: str) -> Answer:
        return self._ask("GET", path, b"", headers)

    def post(self, path: str, form: dict[str, str] | None = None, **headers: str) -> Answer:
        known = {"origin": "http://here", "sec-fetch-site": "same-origin"}
        return self._ask("POST", path, urlencode(form or {}).encode(), {**known, **headers})

    def csrf(self) -> str:
        """The token in the forms of the pages that this browser sees."""
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', self.get("/").body.decode())
        assert found is not None
        return found[1]

    def _ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer:
        sent = {"host": "here", "accept": "text/html"}
        if self.cookies:
            sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = call(self.app, method, path, {**sent, **named}, body)
        if "set-cookie" in answer.headers:
            for name, morsel in SimpleCookie(answer.headers["set-cookie"]).items():
                if morsel["max-age"] == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value
        return answer


@dataclass
class House:
    """A console with its entrance."""

    console: Console
    app: Starlette
    sign_in: SignIn
    people: People

    @property
    def password(self) -> str:
        return self.console.platform.deployment.initial.owner_password

    def visitor(self) -> Visitor:
        return Visitor(self.app)

    def owner(self) -> Visitor:
        """A browser in which the first owner is signed in."""
        who = self.visitor()
        answer = who.post("/sign-in", {"email": OWNER, "password": self.password})
        assert answer.status == 303, answer.body.decode()
        return who


@contextlib.contextmanager
def house(
    database: Database, folder: Path, settings: Settings | None = None, federation: Federation | None = None
) -> Iterator[House]:
    """A console with its entrance, for the time of a `with`."""
    with platform(database, folder, settings) as found:
        clock = found.rig.clock
        sign_in, people = found.services.sign_in, found.services.people
        sessions = Sessions(sign_in, found.services.settings)
        pages = pages_of(found)
        pages.who.clear()
        services = found.services
        doors = first_of(by_key(services.lease), by_session(sessions))
        entrance = Entrance(
            sessions=sessions, people=people, visitors=Visitors(Origins([], clock), clock), federation=federation
        )
        app = Starlette(
            routes=[
                *entrance_routes(entrance),
                *routes(replace(pages.services, doorkeeper=doors)),
            ],
            middleware=[Middleware(problems.Guard)],
            exception_handlers=dict(problems.handlers()),
        )
        yield House(pages, app, sign_in, people)
