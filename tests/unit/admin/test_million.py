"""A million kept objects, and as many entries of the log: no answer of the admin API works more for them.

Counts, not clocks: steps of SQLite's virtual machine, as for the pages of the console.
"""

import pytest
import sqlalchemy as sa

from keepless.receipts.statement import EntryKind
from keepless.receipts.tables import log_entry
from tests.support.console import Console
from tests.unit.console.conftest import here
from tests.unit.console.test_million import MOST_TICKS, STEPS, STORED, fill

__all__ = ["here"]
pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def log_much(here: Console) -> None:
    """A capture's entry for each object, all from one, between what was done before and what is done now."""
    columns = [column.name for column in log_entry.c]
    named = "'obj_' || printf('%024d', n)"
    made = {"idx": ":last + n", "object_id": named, "subject_id": named, "at": "at + n"}
    chosen = ", ".join(made.get(name, name) for name in columns)
    with here.platform.services.db.write() as tx:
        last = tx.execute(sa.select(sa.func.max(log_entry.c.idx))).scalar_one()
        tx.execute(
            sa.text(
                f"WITH RECURSIVE many(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM many WHERE n < {STORED}) "
                f"INSERT INTO log_entry ({', '.join(columns)}) SELECT {chosen} FROM many, log_entry "
                "WHERE idx = (SELECT min(idx) FROM log_entry WHERE kind = :kind)"
            ),
            {"kind": EntryKind.CAPTURED.value, "last": last},
        )


def test_no_answer_works_more_for_what_is_stored(here: Console) -> None:
    platform = here.platform
    project = platform.json("POST", "/organization/projects", {"name": "Old"})["id"]
    known = platform.put().id
    fill(here)
    log_much(here)
    start = platform.rig.clock.now_ms() // 1000
    logs, objects = "/organization/audit_logs", "/organization/retained_objects"
    paths = (
        objects,
        f"{objects}?limit=100&after=obj_{500_000:024d}",
        f"{objects}?request_id=req_x",
        f"{objects}?held=true",
        f"{objects}/{known}",
        "/organization/captures?limit=100",
        "/organization/receipts",
        "/organization/data_controls",
        "/organization/legal_holds",
        "/organization/open_requests",
        f"{logs}?limit=100",
        f"{logs}?after=audit_log-500000",
        f"{logs}?before=audit_log-500000",
        f"{logs}?event_types=project.created,legal_hold.placed",
        f"{logs}?project_ids={project}",
        f"{logs}?actor_ids=akey_nobody",
        f"{logs}?resource_ids={project},obj_{700_000:024d}",
        f"{logs}?effective_at[gte]={start - 60}&effective_at[lt]={start}",
        f"{logs}?effective_at[gte]={start + 400}&effective_at[lt]={start + 401}",
        "/organization/costs?start_time=1",
    )
    ticks = 0

    def tick() -> int:
        nonlocal ticks
        ticks += 1
        return 0

    engine = platform.services.db.engine
    sa.event.listen(engine, "checkout", lambda raw, *_: raw.set_progress_handler(tick, STEPS))
    worked = {}
    for path in paths:
        before = ticks
        assert platform.ask("GET", path).status == 200, path
        worked[path] = ticks - before
    assert {path: count for path, count in worked.items() if count > MOST_TICKS} == {}
    assert len(platform.json("GET", f"{logs}?resource_ids=obj_{700_000:024d}")["data"]) == 1
    assert platform.json("GET", f"{objects}?limit=100")["has_more"]
