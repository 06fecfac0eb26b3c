"""Creations that a client repeats with the same `Idempotency-Key` within a day: the second finds what the first made.

Holds: `columns` (of a table of such things), `mark` (their values), `find`, `forget`, `REPEAT_MS`. Leaves out: whether
the repeated call asks for the same (whoever creates). The caller's transactions.

What the client typed is not stored: each row that has one keeps an HMAC of it under a random key of its own, which goes
with the row or after the day. LOCK ORDER: the project's row is locked after the organization's.
"""

import hashlib
import hmac
import os
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.accounts.tables import project
from keepless.clock import DAY_MS
from keepless.db import partial_index
from keepless.ids import Id

__all__ = ["REPEAT_MS", "columns", "find", "forget", "index", "mark"]

REPEAT_MS: Final = DAY_MS  # how long a creation can be repeated
_REPEATABLE: Final = sa.text("repeat_digest IS NOT NULL")


def columns() -> tuple[sa.Column[Any], sa.Column[Any]]:
    """What a table has besides `id`, `project_id` and `created_at`."""
    return sa.Column("repeat_salt", sa.LargeBinary(32)), sa.Column("repeat_digest", sa.LargeBinary(32))


def index(name: str) -> sa.Index:
    """The index that finds them."""
    return partial_index(name, "project_id", "created_at", where=_REPEATABLE)


def mark(key: bytes | None) -> dict[str, bytes | None]:
    """The values of the columns of something new."""
    salt = None if key is None else os.urandom(32)
    return {"repeat_salt": salt, "repeat_digest": None if salt is None or key is None else _digest(salt, key)}


def find(tx: Connection, table: sa.Table, project_id: Id, key: bytes, now_ms: int) -> Id | None:
    """What the same key has made in a project within the last day."""
    # Two creations at once: the second waits here for the first (SQLite has one writer anyway).
    tx.execute(sa.select(project.c.id).where(project.c.id == project_id).with_for_update(key_share=True))
    rows = tx.execute(
        sa.select(table.c.id, table.c.repeat_salt, table.c.repeat_digest).where(
            table.c.project_id == project_id,
            table.c.repeat_digest.is_not(None),
            table.c.created_at > now_ms - REPEAT_MS,
        )
    )
    for row in rows:
        if hmac.compare_digest(_digest(bytes(row.repeat_salt), key), bytes(row.repeat_digest)):
            return Id(row.id)
    return None


def forget(tx: Connection, table: sa.Table, now_ms: int) -> int:
    """Drop what tells repeated creations apart, of what is older than a day; how many."""
    return tx.execute(
        table.update()
        .where(table.c.repeat_digest.is_not(None), table.c.created_at <= now_ms - REPEAT_MS)
        .values(repeat_salt=None, repeat_digest=None)
    ).rowcount


def _digest(salt: bytes, key: bytes) -> bytes:
    return hmac.digest(salt, key, hashlib.sha256)
