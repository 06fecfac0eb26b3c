"""Who is at the door: an admin key in the header, for scripts and tests of pages.

Leaves out: sessions of people (http.sessions), which the composition root puts before this one.
"""

from collections.abc import Callable

from starlette.requests import Request

from keepless.accounts.lease import Lease
from keepless.console.services import Visitor
from keepless.http.admin_auth import authenticate

__all__ = ["by_key"]


def by_key(lease: Lease) -> Callable[[Request], Visitor | None]:
    """A doorkeeper that knows admin keys; a wrong one is refused (`Problem` 401), none at all is nobody."""

    def visitor(request: Request) -> Visitor | None:
        header = request.headers.get("authorization")
        if header is None:
            return None
        principal = authenticate(header.encode("latin-1"), lease)
        return Visitor(principal, f"{principal.role.value} key")

    return visitor
