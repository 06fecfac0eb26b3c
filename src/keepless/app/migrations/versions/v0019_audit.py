"""Entries of the log are found by who acted, on what, and in which project."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_PAGE = 1_000
_NAMED = ("hold_id", "case_id", "opening_id", "key_id", "member_id", "invite_id", "webhook_id")
_OUTER = ("object_id", "purge_id", "project_id", "organization_id")


def upgrade() -> None:
    """Add the columns and fill them from what the entries say."""
    for name in ("project_id", "actor_id", "subject_id"):
        op.add_column("log_entry", sa.Column(name, sa.String(length=40)))
    _fill()
    op.create_index("log_entry_of_organization", "log_entry", ["organization_id", "idx"], unique=False)


def _fill() -> None:
    tx = op.get_bind()
    entry = sa.table(
        "log_entry", *(sa.column(name) for name in ("idx", "body", "project_id", "actor_id", "subject_id"))
    )
    change = (
        entry.update()
        .where(entry.c.idx == sa.bindparam("at"))
        .values(project_id=sa.bindparam("p"), actor_id=sa.bindparam("a"), subject_id=sa.bindparam("s"))
    )
    last = -1
    while True:
        query = sa.select(entry.c.idx, entry.c.body).where(entry.c.idx > last).order_by(entry.c.idx).limit(_PAGE)
        rows = tx.execute(query).all()
        if not rows:
            return
        last = rows[-1].idx
        told = [(row.idx, json.loads(bytes(row.body))) for row in rows if row.body is not None]
        if told:
            tx.execute(change, [_found_by(index, body) for index, body in told])


def _found_by(index: int, body: dict[str, object]) -> dict[str, object]:
    subject = next((body[name] for name in (*_NAMED, *_OUTER) if name in body), None)
    return {"at": index, "p": body.get("project_id"), "a": body.get("actor"), "s": subject}


def downgrade() -> None:
    """There is no way back: an older version must not open what a newer one has written."""
    raise NotImplementedError
