"""The port of durable jobs, real processes, both databases: run once, survive, be taken over, leave no trace."""

import contextlib
import json
import queue
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from keepless.db import Database
from keepless.ids import Prefix, mint
from keepless.jobs import tables
from keepless.jobs.port import JobKind, Queue
from tests.support.jobs_process import MARKER

assert tables
LONG_S = 40.0


class Process:
    """See `tests.support.jobs_process`."""

    def __init__(self, url: str, folder: Path, *queues: str) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-m", "tests.support.jobs_process", url, str(folder), *queues],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: queue.Queue[list[Any]] = queue.Queue()
        self.seen: list[list[Any]] = []
        self.log = ""
        self.ears = [threading.Thread(target=ear) for ear in (self._listen, self._hear_errors)]
        for ear in self.ears:
            ear.start()
        self.id = self.until("ready")[1]

    def _listen(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            self.lines.put(json.loads(line))

    def _hear_errors(self) -> None:
        assert self.child.stderr is not None
        for line in self.child.stderr:
            self.log += line

    def until(self, word: str, *rest: object) -> list[Any]:
        """The first line that begins so, seen already or not."""
        wanted = [word, *rest]
        for line in self.seen:
            if line[: len(wanted)] == wanted:
                self.seen.remove(line)
                return line
        while True:
            line = self.lines.get(timeout=LONG_S)
            if line[: len(wanted)] == wanted:
                return line
            self.seen.append(line)

    def tell(self, verb: str, *arguments: object) -> Any:
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps([verb, *arguments]) + "\n")
        self.child.stdin.flush()
        while True:
            line = self.lines.get(timeout=LONG_S)
            if line[0] in ("told", "raised"):
                return line[1:] if line[0] == "raised" else line[1]
            self.seen.append(line)

    def submit(self, job_id: str, *arguments: object, priority: int = 1) -> Any:
        return self.tell("submit", JobKind.BATCH_SHARD, job_id, *arguments, priority)

    def kill(self) -> None:
        self.child.kill()
        self.child.wait()
        for ear in self.ears:
            ear.join()
        for pipe in (self.child.stdin, self.child.stdout, self.child.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


@pytest.fixture
def start(database: Database, tmp_path: Path) -> Iterator[Any]:
    url = database.engine.url.render_as_string(hide_password=False)
    started: list[Process] = []

    def make(*queues: str) -> Process:
        started.append(Process(url, tmp_path, *queues))
        return started[-1]

    yield make
    for process in started:
        process.kill()


def everything(database: Database, folder: Path) -> str:
    """All that the job store holds."""
    if database.sqlite:
        store = Database(f"sqlite:///{folder}/jobs.sqlite")
        found = store.engine.raw_connection()
        text = "\n".join(found.driver_connection.iterdump())
        found.close()
        store.close()
        return text
    with database.read() as tx:
        query = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'keepless_jobs'"
        names = [row[0] for row in tx.exec_driver_sql(query)]
        return "\n".join(
            str(row) for name in names for row in tx.exec_driver_sql(f'SELECT * FROM keepless_jobs."{name}"')
        )


def until_quiet(process: Process) -> None:
    deadline = time.monotonic() + LONG_S
    while process.tell("active"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_job_runs_once_however_often_it_is_submitted_and_leaves_no_trace(
    start: Any, database: Database, tmp_path: Path
) -> None:
    process, batch = start(), mint(Prefix.BATCH)
    for number in (1, 2, 1):
        process.submit(f"{batch}.{number}", batch, number)
    process.until("ran", batch, 1)
    process.until("ran", batch, 2)
    until_quiet(process)
    assert not [line for line in process.seen if line[0] == "ran"]
    assert batch in everything(database, tmp_path)
    assert process.tell("forget") == 2
    assert process.tell("forget") == 0
    assert batch not in everything(database, tmp_path)
    assert process.tell("close") is None
    assert process.child.wait(LONG_S) == 0
    assert not list((tmp_path / "cwd").iterdir())


def test_a_job_that_fails_says_nothing_of_why(start: Any, database: Database, tmp_path: Path) -> None:
    process, batch = start(), mint(Prefix.BATCH)
    process.submit(f"{batch}.77", batch, 77)
    process.until("began", batch, 77)
    until_quiet(process)
    told = everything(database, tmp_path)
    assert '"failed":true' in told
    assert MARKER not in told
    assert "ValueError" not in told
    process.tell("close")
    process.child.wait(LONG_S)
    assert "jobs:job:failed" in process.log
    assert MARKER not in process.log


def test_content_does_not_enter(start: Any, database: Database, tmp_path: Path) -> None:
    process, batch = start(), mint(Prefix.BATCH)
    for content in ("two words", MARKER, "batch_short", ["nested", MARKER], {"a": 1}, 1.5):
        raised = process.submit(f"{batch}.1", content, 1)
        assert raised == ["NotAnIdError", "only ids and whole numbers may enter the job store"]
    assert MARKER not in everything(database, tmp_path)
    assert process.tell("active") == []


def test_lower_priorities_run_first_and_what_is_cancelled_never(start: Any) -> None:
    process, hold, batch = start(), mint(Prefix.BATCH), mint(Prefix.BATCH)
    for at in range(4):  # as many as run at once
        process.submit(f"{hold}.{at}", hold, 99)
    for _ in range(4):
        process.until("began", hold)
    for number, priority in ((1, 30), (2, 10), (3, 20), (4, 40), (5, 50), (6, 5)):
        process.submit(f"{batch}.{number}", batch, number, priority=priority)
    process.tell("cancel", f"{batch}.6")
    process.tell("let_go")
    until_quiet(process)
    process.until("ran", batch, 4)
    began = [line[2] for line in process.seen if line[0] == "began"]
    assert sorted(began) == [1, 2, 3, 4, 5]
    assert 6 not in began


def test_what_a_killed_process_had_begun_is_taken_over_at_once_on_the_same_machine(start: Any) -> None:
    first, other, batch = start(), None, mint(Prefix.BATCH)
    first.submit(f"{batch}.99", batch, 99)
    first.until("began", batch, 99)
    first.kill()
    other = start()
    assert other.tell("rescue") == 1
    other.until("began", batch, 99)
    other.tell("let_go")
    other.until("ran", batch, 99)
    until_quiet(other)
    assert other.tell("rescue") == 0


def test_a_pace_that_a_dead_process_has_left_is_set_back_by_another(start: Any) -> None:
    first, other, batch = start(), start(), mint(Prefix.BATCH)
    first.submit(f"{batch}.1", batch, 1)
    idle = max(other.tell("pace"))
    quick = min(other.tell("pace"))
    assert quick < idle
    until_quiet(first)
    first.kill()
    other.tell("rescue")
    assert other.tell("pace") == [idle, idle]


def test_what_runs_in_a_living_process_is_left_to_it(start: Any) -> None:
    first, other, batch = start(), start(), mint(Prefix.BATCH)
    for number in range(8):
        first.submit(f"{batch}.{number}", batch, 99)
    for _ in range(4):
        first.until("began", batch, 99)
        other.until("began", batch, 99)
    assert other.tell("rescue") == first.tell("rescue") == 0
    for process in (first, other):
        process.tell("let_go")
    until_quiet(first)


def test_what_still_runs_in_a_process_that_has_closed_is_not_begun_before_it_is_dead(start: Any) -> None:
    first, other, batch = start(), start(Queue.FINE_TUNING), mint(Prefix.BATCH)
    first.submit(f"{batch}.99", batch, 99)
    first.until("began", batch, 99)
    assert first.tell("close") is None
    assert other.tell("rescue") == 0
    first.kill()
    assert other.tell("rescue") == 1


def test_who_closes_and_runs_nothing_leaves_the_roll(start: Any, database: Database) -> None:
    process = start()
    assert process.tell("close") is None
    with database.read() as tx:
        assert tx.execute(sa.select(tables.job_worker.c.id)).all() == []


CLAIM = "UPDATE {}workflow_status SET status = 'PENDING', executor_id = {} WHERE workflow_uuid = {}"


def claimed(database: Database, folder: Path, process: Process, job_id: str) -> None:
    """What is left when the database goes away between the claim of a job and its beginning."""
    if database.sqlite:
        with contextlib.closing(sqlite3.connect(folder / "jobs.sqlite", timeout=30)) as store, store:
            assert store.execute(CLAIM.format("", "?", "?"), (process.id, job_id)).rowcount == 1
        return
    with database.write() as tx:
        values = (process.id, job_id)
        assert tx.exec_driver_sql(CLAIM.format("keepless_jobs.", "%s", "%s"), values).rowcount == 1


def test_what_a_living_process_has_claimed_and_does_not_run_is_begun(
    start: Any, database: Database, tmp_path: Path
) -> None:
    process, batch = start(), mint(Prefix.BATCH)
    for number in range(4):  # all that it runs at once
        process.submit(f"{batch}.{number}", batch, 99)
        process.until("began", batch, 99)
    process.submit(f"{batch}.4", batch, 4)
    claimed(database, tmp_path, process, f"{batch}.4")
    assert process.tell("rescue") == 0  # it may begin just now
    deadline = time.monotonic() + LONG_S
    while process.tell("rescue") != 1:
        assert time.monotonic() < deadline
    process.tell("let_go")
    process.until("ran", batch, 4)
    until_quiet(process)
    assert process.tell("rescue") == 0
    assert [line[0] for line in process.seen].count("began") == 1, "those that ran were left alone"


def test_a_training_is_taken_only_by_whoever_takes_its_queue_also_after_a_death(start: Any) -> None:
    batches, trainer, job = start(), start(Queue.FINE_TUNING), mint(Prefix.TUNING_JOB)
    trainer.submit(f"{job}.shard", job, 1)
    batches.tell("submit", JobKind.TUNING_TRAIN, f"{job}.train", job, 99, 1)  # it may, though it will not do it
    batches.until("ran", job, 1)
    trainer.until("began", job, 99)
    trainer.kill()
    assert batches.tell("rescue") == 1
    batches.submit(f"{job}.other", job, 2)
    batches.until("ran", job, 2)
    assert f"{job}.train" in batches.tell("active")
    other = start(Queue.FINE_TUNING, Queue.BATCH)
    other.until("began", job, 99)
    other.tell("let_go")
    until_quiet(batches)
    assert ["began", job, 99] not in batches.seen
