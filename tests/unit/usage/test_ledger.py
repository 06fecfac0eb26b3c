"""The ledger on both databases: nothing lost on close, nothing blocked by a database that fails, bounded memory."""

import io
import sys
import threading
import time
from typing import NoReturn

import pytest
import sqlalchemy as sa

from keepless import log
from keepless.db import Database
from keepless.errors import Code
from keepless.ids import Id, Prefix, mint
from keepless.usage.ledger import Ledger
from keepless.usage.record import Flag, Phase, Record, Sketch
from keepless.usage.tables import usage, usage_gap, usage_kind, usage_sketch
from tests.support.usage import MODEL, ORGANIZATION, record

HOUR = 3_600_000


def count(database: Database, table: sa.Table = usage) -> int:
    with database.read() as tx:
        return tx.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()


def gaps(database: Database) -> list[tuple[object, ...]]:
    columns = usage_gap.c
    with database.read() as tx:
        query = sa.select(
            columns.at, columns.organization_id, columns.model, columns.status, columns.requests, columns.prompt_tokens
        )
        return sorted((tuple(row) for row in tx.execute(query)), key=str)


def test_what_requests_have_in_common_is_written_once(database: Database) -> None:
    first, second = Ledger(database), Ledger(database)
    for ledger in (first, second):
        for _ in range(3):
            ledger.add(record())
            ledger.add(record(streamed=True, epoch=1))
        assert ledger.flush()
    assert (count(database), count(database, usage_kind)) == (12, 2)


def test_numbers_of_a_transaction_that_failed_are_not_used(database: Database) -> None:
    ledger = Ledger(database)
    break_it(database)
    ledger.add(record(status=500))
    assert not ledger.flush()
    mend_it(database)
    other = Ledger(database)
    other.add(record(status=201))
    assert other.flush()
    assert ledger.flush()
    both = usage.join(usage_kind, usage.c.kind_id == usage_kind.c.id)
    with database.read() as tx:
        statuses = list(tx.execute(sa.select(usage_kind.c.status).select_from(both)).scalars())
    assert sorted(statuses) == [201, 500]


def test_processes_agree_on_kinds_they_meet_at_the_same_time(database: Database) -> None:
    ledgers = [Ledger(database) for _ in range(4)]
    for at in range(200):
        for ledger in ledgers if at % 2 else reversed(ledgers):
            ledger.add(record(status=200 + at % 50, epoch=at))
    threads = [threading.Thread(target=ledger.flush) for ledger in ledgers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(ledger.counters.failures == 0 for ledger in ledgers)
    assert (count(database), count(database, usage_kind)) == (800, 200)


def break_it(database: Database) -> None:
    with database.write() as tx:
        tx.exec_driver_sql("ALTER TABLE usage RENAME TO away")


def mend_it(database: Database) -> None:
    with database.write() as tx:
        tx.exec_driver_sql("ALTER TABLE away RENAME TO usage")


def test_a_row_comes_back_as_it_was(database: Database) -> None:
    ledger = Ledger(database)
    shape = Sketch(phase=Phase.FIRST_BYTE, flags=Flag.TOOLS | Flag.STREAM, messages=3, roles=0o131)
    failed = record(status=502, code=Code.UPSTREAM_CUT, streamed=True, sketch=shape)
    ledger.add(failed)
    ledger.add(record(organization_id=None, project_id=None, key_id=None, model=None, status=401))
    assert ledger.close()
    with database.read() as tx:
        both = usage.join(usage_kind, usage.c.kind_id == usage_kind.c.id)
        columns = [column for column in (*usage.c, *usage_kind.c) if column.name != "id"]
        row, other = tx.execute(sa.select(*columns).select_from(both).order_by(usage.c.id)).all()
        sketch = tx.execute(sa.select(usage_sketch)).one()
    for name in ("request_id", "status", "code", "model", "prompt_tokens", "streamed", "outcome", "route", "endpoint"):
        assert getattr(row, name) == getattr(failed, name), name
    assert row.at == failed.at_ms
    assert (other.organization_id, other.model, other.code) == (None, None, None)
    assert (sketch.request_id, sketch.phase, sketch.flags) == (failed.request_id, Phase.FIRST_BYTE, 9)
    assert (sketch.messages, sketch.roles) == (3, 0o131)


def test_the_writer_writes_by_itself(database: Database) -> None:
    ledger = Ledger(database, flush_seconds=0.01)
    ledger.start()
    ledger.add(record())
    deadline = time.monotonic() + 30
    while count(database) == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert count(database) == 1
    assert ledger.close()


def test_what_comes_while_it_writes_waits_for_the_next_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(database)
    write = ledger._write

    def busy(batch: list[Record]) -> bool:
        ledger.add(record())
        return write(batch)

    monkeypatch.setattr(ledger, "_write", busy)
    ledger.add(record())
    assert ledger.flush()
    assert (count(database), ledger.waiting) == (1, 1)
    monkeypatch.undo()
    assert ledger.close()
    assert count(database) == 2


def test_nothing_is_lost_on_close_whatever_the_threads(database: Database) -> None:
    ledger = Ledger(database, flush_seconds=0.005)
    ledger.start()
    threads = [threading.Thread(target=lambda: [ledger.add(record()) for _ in range(2_000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger.add(record())
    assert ledger.close()
    assert ledger.waiting == 0
    assert count(database) == ledger.counters.added == ledger.counters.written == 8_001


def test_rows_wait_while_the_database_fails_and_are_written_in_order_after(database: Database) -> None:
    ledger = Ledger(database)
    break_it(database)
    ids = [mint(Prefix.REQUEST) for _ in range(5)]
    for request_id in ids[:3]:
        ledger.add(record(request_id=request_id))
    assert not ledger.flush()
    assert not ledger.flush()
    for request_id in ids[3:]:
        ledger.add(record(request_id=request_id))
    assert (ledger.counters.failures, ledger.waiting) == (2, 5)
    mend_it(database)
    assert ledger.flush()
    with database.read() as tx:
        assert list(tx.execute(sa.select(usage.c.request_id).order_by(usage.c.id)).scalars()) == ids
    assert gaps(database) == []


def test_what_does_not_fit_becomes_one_gap_row_for_each_kind(database: Database) -> None:
    ledger = Ledger(database, max_rows=2)
    break_it(database)
    for at in range(6):
        ledger.add(record(at_ms=HOUR + at))
    ledger.add(record(at_ms=HOUR + 7, status=502, code=Code.UPSTREAM_CUT))
    ledger.add(record(at_ms=2 * HOUR))
    assert not ledger.flush()
    assert ledger.waiting == 2
    mend_it(database)
    assert ledger.flush()
    assert count(database) == 2
    assert gaps(database) == [
        (HOUR, ORGANIZATION, MODEL, 200, 4, 40),
        (HOUR, ORGANIZATION, MODEL, 502, 1, 10),
        (2 * HOUR, ORGANIZATION, MODEL, 200, 1, 10),
    ]
    assert ledger.counters.gapped == 6


def test_a_batch_that_failed_gives_way_to_newer_rows(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(database, max_rows=3)
    for _ in range(3):
        ledger.add(record(at_ms=HOUR))

    def late() -> NoReturn:
        for _ in range(2):
            ledger.add(record(at_ms=2 * HOUR))
        raise sa.exc.OperationalError("", {}, Exception())

    with monkeypatch.context() as patched:
        patched.setattr(database, "write", late)
        assert not ledger.flush()
    assert ledger.flush()
    assert count(database) == 3
    assert gaps(database) == [(HOUR, ORGANIZATION, MODEL, 200, 2, 20)]


def test_sums_are_bounded_too(database: Database) -> None:
    ledger = Ledger(database, max_rows=0, max_gaps=2)
    for model in ("a", "b", "c", "d"):
        ledger.add(record(at_ms=HOUR, model=Id(model)))
    for _ in range(3):
        ledger.add(record(at_ms=HOUR, organization_id=mint(Prefix.ORGANIZATION)))
    assert ledger.flush()
    assert sum(int(str(row[4])) for row in gaps(database)) == 7
    assert (HOUR, None, None, 200, 5, 50) in gaps(database)


def test_a_database_that_never_comes_back_does_not_hold_up_the_end(database: Database) -> None:
    stream = io.StringIO()
    ledger = Ledger(database)
    break_it(database)
    ledger.add(record())
    log.redirect(stream)
    assert not ledger.close(seconds=0.3)
    log.redirect(sys.stderr)
    assert ledger.waiting == 1
    assert '"event":"usage:ledger:failed"' in stream.getvalue()
    mend_it(database)
    assert ledger.flush()


def test_the_writer_rests_between_a_few_rows_unless_too_many_wait(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(database, max_rows=2_000)
    rests: list[float] = []
    own, flood = threading.get_ident(), False

    def rest(seconds: float) -> None:
        if threading.get_ident() == own:  # whoever else may be running in this process sleeps on
            rests.append(seconds)
            for _ in range(501 if flood else 0):
                ledger.add(record())

    monkeypatch.setattr(time, "sleep", rest)
    for _ in range(640):
        ledger.add(record())
    assert ledger.flush()
    assert len(rests) > 10
    rests.clear()
    flood = True
    for _ in range(640):
        ledger.add(record())
    assert ledger.flush()
    assert len(rests) == 1
    assert ledger.close()
    assert count(database) == 640 + 640 + 501


def test_a_writer_for_which_nobody_waits_does_not_rest_and_writes_as_much(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(database, rests=False)
    rests: list[float] = []
    own = threading.get_ident()
    monkeypatch.setattr(time, "sleep", lambda seconds: rests.append(seconds) if threading.get_ident() == own else None)
    for _ in range(641):
        ledger.add(record())
    assert ledger.close()
    assert rests == []
    assert count(database) == 641


@pytest.mark.parametrize("rows", [1, 639, 640, 641, 5_001])
def test_batches_of_every_size_are_complete(database: Database, rows: int) -> None:
    ledger = Ledger(database)
    added: list[Record] = [record() for _ in range(rows)]
    for each in added:
        ledger.add(each)
    assert ledger.flush()
    with database.read() as tx:
        assert set(tx.execute(sa.select(usage.c.request_id)).scalars()) == {each.request_id for each in added}
