"""Sessions over HTTP: the cookie, and what keeps a foreign page from using it.

Holds: `Sessions` (who is signed in, setting and clearing the cookie), `check_from_here`, `csrf_of`, `own_path`. Leaves
out: sessions themselves (governance.sign_in), pages. A session yields the same `AdminPrincipal` as an admin key, so
governance asks neither which it was. The routes under `/v1` take keys alone: a browser sends a cookie by itself, a
key never, so no foreign page can do anything there.

The cookie is `__Host-keepless` (Secure, HttpOnly, SameSite=Lax, Path=/) when this server or the proxy in front does
TLS, and `keepless` without Secure on plain HTTP, which is served on loopback only.
"""

import hmac
import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from keepless.accounts.sessions import ABSOLUTE_MS, Session
from keepless.config import Settings
from keepless.errors import Code, ErrorType, Problem
from keepless.governance.sign_in import Opened, SignIn

__all__ = ["Sessions", "SignedIn", "check_from_here", "csrf_of", "foreign_form", "own_path"]

_SECRET: Final = re.compile(r"[a-z2-7]{52}\Z")
_OWN_PATH: Final = re.compile(r"/(?:[A-Za-z0-9_-][A-Za-z0-9/_-]{0,180})?\Z")


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A session that came with a request."""

    session: Session
    secret: str
    csrf: str


class Sessions:
    """The cookie of one deployment. `present` blocks (database)."""

    def __init__(self, sign_in: SignIn, settings: Settings) -> None:
        self.sign_in: Final = sign_in
        self.secure: Final = settings.tls_cert is not None or settings.behind_proxy
        self._name: Final = "__Host-keepless" if self.secure else "keepless"

    def secret_of(self, request: Request) -> str | None:
        """What came in the cookie, when it can be one of ours."""
        found = request.cookies.get(self._name, "")
        return found if _SECRET.match(found) else None

    def present(self, request: Request) -> SignedIn | None:
        """Who is signed in."""
        secret = self.secret_of(request)
        session = None if secret is None else self.sign_in.session(secret)
        return None if secret is None or session is None else SignedIn(session, secret, csrf_of(secret))

    def begin(self, response: Response, opened: Opened) -> None:
        """Give the browser its session."""
        self.set_cookie(response, self._name, opened.secret, ABSOLUTE_MS // 1000)

    def end(self, response: Response) -> None:
        """Take it back."""
        self.set_cookie(response, self._name, "", 0)

    def set_cookie(self, response: Response, name: str, value: str, seconds: int) -> None:
        """A cookie that pages cannot read and other sites' forms do not bring."""
        response.set_cookie(name, value, max_age=seconds, path="/", secure=self.secure, httponly=True, samesite="lax")


def csrf_of(secret: str) -> str:
    """The token of a session's forms: made of the session, so it ends with it; tells nothing about it."""
    return hmac.new(secret.encode(), b"keepless form", sha256).hexdigest()


def check_from_here(request: Request) -> None:
    """What is asked of a form before anybody is signed in. Raises `Problem` 403 unless the browser says it is ours."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is None and origin is None:
        raise foreign_form()
    if site is not None and site != "same-origin":
        raise foreign_form()
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise foreign_form()


def own_path(typed: str) -> str:
    """A page of ours to go on to; the first one for anything else (never another site, never a header)."""
    return typed if _OWN_PATH.match(typed) else "/"


def foreign_form() -> Problem:
    """The refusal of a form that some other page sent."""
    return Problem(
        403,
        Code.INSUFFICIENT_PERMISSIONS,
        "Nothing was done: this form did not come from a page of this console, or the page is too old. Open the page "
        "again.",
        type=ErrorType.PERMISSION,
    )
