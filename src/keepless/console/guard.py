"""No foreign page's form: what is asked of every POST before anything else.

Holds: `check_origin` (what the browser says of where the request comes from) and `check_token` (what only our own page
knows). Both must hold. Leaves out: who is signed in.
"""

import hmac
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request

from keepless.console.services import Visitor
from keepless.errors import Code, ErrorType, Problem

__all__ = ["check_origin", "check_token"]

_OWN: Final = ("same-origin", "none")


def check_origin(request: Request) -> None:
    """Raises `Problem` 403 when the browser says that another site sent this."""
    site = request.headers.get("sec-fetch-site")
    if site is not None and site not in _OWN:
        raise _foreign()
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise _foreign()


def check_token(visitor: Visitor, sent: str) -> None:
    """Raises `Problem` 403 when a signed-in visitor's form does not carry the session's token."""
    if visitor.csrf is not None and not hmac.compare_digest(visitor.csrf.encode(), sent.encode()):
        raise _foreign()


def _foreign() -> Problem:
    return Problem(
        403,
        Code.INSUFFICIENT_PERMISSIONS,
        "Nothing was changed: this form did not come from a page of this console, or the page is too old. Open the "
        "page again.",
        type=ErrorType.PERMISSION,
    )
