"""The job store's rows of jobs that are over: gone without a trace when no worker lives, else they are the worker's."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from keepless.batches import store
from keepless.batches.values import Batch, BatchEndpoint, NewBatch
from keepless.clock import DAY_MS
from keepless.db import Database
from keepless.ids import Id, Prefix, mint
from keepless.jobs.history import SCHEMA, STORE, History
from keepless.jobs.liveness import SILENT_S, Roll
from keepless.jobs.tables import job_worker
from tests.support.accounts import make_organization
from tests.support.clock import FakeClock

TABLES = ("workflow_status", "workflow_input", "workflow_output", "operation_outputs")


class Store:
    """The engine's tables, as far as jobs are in them (`tests/contract/test_jobs.py` has the engine itself)."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.file = folder / STORE
        self.database = Database(f"sqlite:///{self.file}") if database.sqlite else database
        self.schema = "" if database.sqlite else f"{SCHEMA}."
        with self.database.write() as tx:
            if self.schema:
                tx.exec_driver_sql(f"CREATE SCHEMA {SCHEMA}")
            for name in TABLES:
                tx.exec_driver_sql(f"CREATE TABLE {self.schema}{name} (workflow_uuid TEXT, inputs TEXT)")

    def add(self, *job_ids: str) -> None:
        with self.database.write() as tx:
            for name in TABLES:
                for job_id in job_ids:
                    tx.execute(sa.text(f"INSERT INTO {self.schema}{name} VALUES (:id, 'x')"), {"id": job_id})

    def names(self) -> list[set[str]]:
        with self.database.read() as tx:
            query = "SELECT workflow_uuid FROM {}{}"
            return [set(tx.execute(sa.text(query.format(self.schema, name))).scalars()) for name in TABLES]


@pytest.fixture
def jobs(database: Database, tmp_path: Path) -> Iterator[Store]:
    made = Store(database, tmp_path)
    yield made
    if made.database is database:
        with database.write() as tx:
            tx.exec_driver_sql(f"DROP SCHEMA {SCHEMA} CASCADE")
    else:
        made.database.close()


def active(database: Database) -> Id:
    what = NewBatch(
        *make_organization(database), mint(Prefix.API_KEY), BatchEndpoint.CHAT, mint(Prefix.FILE), window_ms=DAY_MS
    )
    with database.write() as tx:
        return store.create(tx, what, 1_800_000_000_000)[0].id


def test_what_is_over_goes_and_what_is_not_stays(database: Database, tmp_path: Path, jobs: Store) -> None:
    going, over = active(database), mint(Prefix.BATCH)
    jobs.add(f"{going}.v", f"{going}.s0.1", f"{over}.s0.1", f"{over}.f")
    history = History(database, FakeClock(), str(tmp_path))
    assert history.forget() == 2
    assert jobs.names() == [{f"{going}.v", f"{going}.s0.1"}] * 4
    assert history.forget() == 0
    if database.sqlite:
        assert over.encode() not in b"".join(path.read_bytes() for path in tmp_path.glob(f"{STORE}*"))


def test_while_a_worker_lives_nothing_is_touched_and_a_dead_one_is_no_hindrance(
    database: Database, tmp_path: Path, jobs: Store
) -> None:
    clock = FakeClock()
    job_id = f"{mint(Prefix.BATCH)}.s0.1"
    jobs.add(job_id)
    worker = Roll(database, clock)
    worker.beat()
    with database.write() as tx:  # of another machine
        tx.execute(job_worker.update().values(host="another machine"))
    history = History(database, clock, str(tmp_path))
    for _ in range(3):
        worker.beat()
        clock.advance_ms(int(SILENT_S * 1000))
        assert history.forget() == 0
    clock.advance_ms(int(SILENT_S * 1000))
    assert history.forget() == 1
    assert jobs.names() == [set()] * 4


def test_what_begins_while_it_looks_is_not_taken_for_over(
    database: Database, tmp_path: Path, jobs: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch and its job, made between any two steps; and that of a batch that is over goes in the same turn."""
    over = f"{mint(Prefix.BATCH)}.f"
    jobs.add(over)
    begun: list[str] = []
    look = store.active_of

    def looked(tx: sa.Connection) -> list[Batch]:
        found = look(tx)
        begun.append(f"{active(database)}.v")
        jobs.add(begun[-1])
        return found

    monkeypatch.setattr(store, "active_of", looked)
    assert History(database, FakeClock(), str(tmp_path)).forget() == 1
    assert jobs.names() == [set(begun)] * 4


def test_a_worker_that_begins_while_it_looks_is_left_alone(
    database: Database, tmp_path: Path, jobs: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = f"{mint(Prefix.BATCH)}.s0.1"
    jobs.add(job_id)
    look, worker = store.active_of, Roll(database, FakeClock())

    def looked(tx: sa.Connection) -> list[Batch]:
        worker.beat()
        return look(tx)

    monkeypatch.setattr(store, "active_of", looked)
    assert History(database, FakeClock(), str(tmp_path)).forget() == 0
    assert jobs.names() == [{job_id}] * 4


def test_where_no_job_ever_ran_there_is_nothing(database: Database, tmp_path: Path) -> None:
    assert History(database, FakeClock(), str(tmp_path)).forget() == 0
    assert not (tmp_path / STORE).exists()
    if database.sqlite:
        with contextlib.closing(sqlite3.connect(tmp_path / STORE)) as made:
            made.execute("PRAGMA journal_mode=WAL")  # made, and the worker died before its tables were
        assert History(database, FakeClock(), str(tmp_path)).forget() == 0
