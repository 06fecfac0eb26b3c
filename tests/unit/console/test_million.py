"""A million kept objects: no page works more for them. Counts, not clocks: steps of SQLite's virtual machine, bytes."""

from typing import Any

import pytest
import sqlalchemy as sa

from keepless.clock import DAY_MS
from keepless.ids import Prefix, mint
from keepless.policy.data_class import DataClass
from keepless.policy.hold import HoldAuthority, HoldReason
from keepless.receipts.statement import Entry, EntryKind
from keepless.vault.tables import kept, kept_day, kept_total, legal_hold
from tests.support.console import Console

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

STORED, LOGGED = 1_000_000, 200_000
STEPS = 100  # one tick of SQLite's progress handler
MOST_TICKS = 3_000  # 300,000 steps: some milliseconds
PAGES = (
    "/",
    "/controls",
    "/controls/review?zero_data_retention=on",
    "/controls/review?days.reliability_log=1",
    "/kept",
    "/kept?held=yes",
    "/kept?held=no",
    "/kept?class=batch_input",
    "/receipts",
    "/captures",
    "/cases",
    "/holds",
    "/usage",
    "/audit",
    "/audit?from=2027-02-01&to=2027-11-01",
    "/audit?from=2027-02-01&to=2027-11-01&type=api_key.updated",
    "/audit?from=2027-02-01&to=2027-02-02",
    "/files",
    "/batches",
    "/fine-tunings",
)


def fill(here: Console) -> None:
    """Rows as the door would have made them, all from one that it made."""
    one = here.platform.put()
    columns = [column.name for column in kept.c]
    made = {"id": "'obj_' || printf('%024d', n)", "blob": "'blob_' || printf('%024d', n)"}
    made["created_at"] = f"created_at - (n % {29 * DAY_MS})"
    made["expires_at"] = f"expires_at - (n % {29 * DAY_MS})"
    with here.platform.services.db.write() as tx:
        tx.execute(
            sa.text(
                f"WITH RECURSIVE many(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM many WHERE n < {STORED}) "
                f"INSERT INTO kept ({', '.join(columns)}) "
                f"SELECT {', '.join(made.get(name, name) for name in columns)} FROM many, kept WHERE id = :one"
            ),
            {"one": str(one.id)},
        )
        tx.execute(kept_total.update().values(objects=STORED + 1))
        _hold(tx, object_id=str(one.id))
        _hold(tx, data_class=DataClass.RELIABILITY_LOG, created_to=1)
        _entries(here, tx)
        tx.execute(kept_day.delete())
        tx.execute(
            sa.text(
                "INSERT INTO kept_day SELECT organization_id, project_id, data_class, created_at / 86400000, "
                "coalesce(expires_at / 86400000, -1), count(*) FROM kept GROUP BY 1, 2, 3, 4, 5"
            )
        )


def _hold(tx: sa.Connection, **scope: Any) -> None:
    """One object, and what nothing of a class is old enough for: both are looked for among all."""
    one = {"id": mint(Prefix.HOLD), "organization_id": tx.execute(sa.select(kept.c.organization_id).limit(1)).scalar()}
    one |= {"reason": HoldReason.LITIGATION, "authority": HoldAuthority.COUNSEL, "reference": "x", "placed_by": "x"}
    tx.execute(legal_hold.insert().values(**one, placed_at=1, review_at=2, **scope))


def _entries(here: Console, tx: sa.Connection) -> None:
    """Entries of the two years to come; those of one kind are the latest."""
    born, step = here.platform.rig.clock.now_ms(), 2 * 365 * DAY_MS // LOGGED
    own, log = here.platform.organization_id, here.platform.services.log
    for first in range(0, LOGGED, 10_000):
        kind = EntryKind.KEY_CHANGED if first >= LOGGED // 2 else EntryKind.LIMITS_CHANGED
        log.append(tx, [Entry(kind, born + at * step, own) for at in range(first, first + 10_000)])


def test_no_page_works_more_for_what_is_stored(here: Console) -> None:
    fill(here)
    ticks = 0

    def tick() -> int:
        nonlocal ticks
        ticks += 1
        return 0

    engine = here.platform.services.db.engine
    sa.event.listen(engine, "checkout", lambda raw, *_: raw.set_progress_handler(tick, STEPS))
    worked = {}
    for path in PAGES:
        before = ticks
        page = here.page(path)
        worked[path] = ticks - before
        assert len(page) < 150_000, path
    assert {path: count for path, count in worked.items() if count > MOST_TICKS} == {}
    assert "1,000,001" in here.page("/kept")
