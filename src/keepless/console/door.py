"""Who is at the door: a session's cookie of a person, or an admin key in the header, for scripts and tests of pages.

Holds: `by_key`, `by_session`, `first_of`. Leaves out: sessions (http.sessions).
"""

from collections.abc import Callable

from starlette.requests import Request

from keepless.accounts.lease import Lease
from keepless.console.services import Visitor
from keepless.http.admin_auth import authenticate
from keepless.http.sessions import Sessions

__all__ = ["by_key", "by_session", "first_of"]

Door = Callable[[Request], Visitor | None]


def by_key(lease: Lease) -> Door:
    """A doorkeeper that knows admin keys; a wrong one is refused (`Problem` 401), none at all is nobody."""

    def visitor(request: Request) -> Visitor | None:
        header = request.headers.get("authorization")
        if header is None:
            return None
        principal = authenticate(header.encode("latin-1"), lease)
        return Visitor(principal, f"{principal.role.value} key")

    return visitor


def by_session(sessions: Sessions) -> Door:
    """A doorkeeper that knows who is signed in."""

    def visitor(request: Request) -> Visitor | None:
        found = sessions.present(request)
        if found is None:
            return None
        who = found.session.person
        return Visitor(found.session.principal, who.name or who.email, found.csrf)

    return visitor


def first_of(*doors: Door) -> Door:
    """The first that knows who it is."""

    def visitor(request: Request) -> Visitor | None:
        return next((found for door in doors if (found := door(request)) is not None), None)

    return visitor
