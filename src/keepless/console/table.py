"""THE TABLE of pages: every route of the console, the permission it asks for, and what makes it.

Holds: `ROWS`. Which role has which permission stands in `accounts.roles`; a test walks over the whole product of the
two. A page that is not in this table does not exist. What changes something is a POST.
"""

from typing import Final

from keepless.accounts.roles import Permission
from keepless.console import first
from keepless.console.visit import Row

__all__ = ["ROWS"]

P: Final = Permission

ROWS: Final[tuple[Row, ...]] = (
    Row("GET", "/", P.PROJECTS_READ, first.overview),
    Row("POST", "/first/key", P.KEYS_MANAGE, first.create_first_key),
    Row("GET", "/explain", P.USAGE_READ, first.explain),
)
