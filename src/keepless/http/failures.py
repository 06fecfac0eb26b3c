"""A store that fails under the admin API: 503 for whoever asked, a line in the log for whoever keeps the machine.

Holds: `stores_may_fail`. Leaves out: failures of what a handler did not ask a store for (http.problems: 500).
"""

import contextlib
from collections.abc import Iterator

import sqlalchemy as sa

from keepless import log
from keepless.errors import Code, ErrorType, Problem
from keepless.vault.errors import StoreFailedError

__all__ = ["stores_may_fail"]


@contextlib.contextmanager
def stores_may_fail() -> Iterator[None]:
    """Turn the failure of the database or the keyring (locked, full, unreachable) into `Problem` 503."""
    try:
        yield
    except (sa.exc.DBAPIError, sa.exc.TimeoutError, StoreFailedError) as error:  # its text may hold values
        log.failure(log.Event.SERVER_FAILED, error)
        raise Problem(
            503,
            Code.INTERNAL,
            "The database or the keyring is locked, full or cannot be reached at the moment. Read the present state "
            "before you try again.",
            type=ErrorType.SERVER,
            headers={"retry-after": "2"},
        ) from None
