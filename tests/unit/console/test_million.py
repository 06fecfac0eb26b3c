"""A million kept objects: no page works more for them. Counts, not clocks: steps of SQLite's virtual machine, bytes."""

import pytest
import sqlalchemy as sa

from keepless.clock import DAY_MS
from keepless.vault.tables import kept, kept_day, kept_total
from tests.support.console import Console

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

STORED = 1_000_000
STEPS = 100  # one tick of SQLite's progress handler
MOST_TICKS = 3_000  # 300,000 steps: some milliseconds
PAGES = (
    "/",
    "/controls",
    "/controls/review?zero_data_retention=on",
    "/controls/review?days.reliability_log=1",
    "/kept",
    "/kept?held=yes",
    "/receipts",
    "/captures",
    "/cases",
    "/holds",
    "/usage",
    "/audit",
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
        tx.execute(kept_day.delete())
        tx.execute(
            sa.text(
                "INSERT INTO kept_day SELECT organization_id, project_id, data_class, created_at / 86400000, "
                "coalesce(expires_at / 86400000, -1), count(*) FROM kept GROUP BY 1, 2, 3, 4, 5"
            )
        )


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
