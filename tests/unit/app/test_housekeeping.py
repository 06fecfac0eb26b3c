"""What is done beside answering, on a real deployment whose hours are short."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from keepless.accounts.liveness import here
from keepless.accounts.tables import change, place, process, project
from keepless.app import housekeeping
from keepless.app.compose import Deployment, open_deployment
from keepless.app.housekeeping import Housekeeping
from keepless.app.initialise import initialise
from keepless.clock import DAY_MS
from keepless.config import load
from keepless.content import Content
from keepless.expiry.report import Report
from keepless.files.service import Intended
from keepless.files.tables import file, upload
from keepless.files.values import FilePurpose
from keepless.ids import Prefix, mint
from keepless.incidents.states import CaseState, CloseReason, Signal
from keepless.incidents.tables import abuse_case, capture_count
from keepless.policy.data_class import DataClass
from keepless.policy.decision import Reason
from keepless.usage.ledger import Ledger
from keepless.usage.tables import usage
from keepless.vault.tables import kept
from tests.support.rows import kept_rows
from tests.support.usage import record


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    settings = load(environ={"KEEPLESS_USAGE_DAYS": "30"}, data_dir=str(tmp_path / "data"))
    initialise(settings)
    opened = open_deployment(settings)
    yield opened
    opened.close()


@pytest.fixture
def working(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> Iterator[Housekeeping]:
    for name in ("_KEEP_TIME_S", "_FORGET_S", "_FIRST_SWEEP_S", "_RETRY_S"):
        monkeypatch.setattr(housekeeping, name, 0.02)
    made = Housekeeping(deployment)
    yield made
    made.stop()


def one(deployment: Deployment, column: sa.Column[object], **where: object) -> object:
    query = sa.select(column).where(*(column.table.c[name] == value for name, value in where.items()))
    with deployment.db.read() as tx:
        return tx.execute(query).scalar()


def comes_true(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.02)


def add(deployment: Deployment, table: sa.Table, **values: object) -> None:
    with deployment.db.write() as tx:
        tx.execute(table.insert().values(values))


def test_the_time_is_kept_while_it_works_and_at_its_end(deployment: Deployment, working: Housekeeping) -> None:
    began = deployment.wall.now_ms()
    working.start()
    comes_true(lambda: one(deployment, change.c.clock_floor) >= began)
    before_the_end = deployment.wall.now_ms()
    working.stop()
    assert one(deployment, change.c.clock_floor) >= before_the_end


def test_a_case_whose_time_is_over_is_closed(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    short = dataclasses.replace(deployment, settings=load(data_dir="d", sweep_seconds=1))
    case = {"organization_id": mint(Prefix.ORGANIZATION), "signal": Signal.MANY_KEYS, "refusals": 10, "opened_at": 1}
    case |= {"state": CaseState.CONFIRMED, "confirmed_at": 2, "ends_at": 3, "captured": 0, "captured_total": 0}
    add(deployment, abuse_case, id=mint(Prefix.CASE), **case)
    made = Housekeeping(short)
    made.start()
    comes_true(lambda: one(deployment, abuse_case.c.closed_for) is CloseReason.LAPSED)
    made.stop()


def test_what_is_needed_for_a_while_only_is_forgotten(deployment: Deployment, working: Housekeeping) -> None:
    now_ms = deployment.clock.now_ms()
    counted = {"project_id": mint(Prefix.PROJECT), "model": "m", "captured": 1, "refused": 0}
    for age_h in (1, 8 * 24):
        add(deployment, capture_count, hour=now_ms // 3_600_000 - age_h, reason=Reason.ENGINE_CRASH, **counted)
    ledger = Ledger(deployment.db)
    for days in (31, 1):
        ledger.add(record(now_ms - days * DAY_MS))
    assert ledger.flush()
    working.start()
    comes_true(lambda: one(deployment, sa.func.count(usage.c.id)) == 1)
    assert one(deployment, sa.func.count(capture_count.c.hour)) == 1


def test_a_clock_that_jumped_makes_nothing_forgotten_before_a_person_confirms(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    with deployment.db.read() as tx:
        found = tx.execute(sa.select(project)).one()
    deployment.location.check()
    deployment.uploads.create(found.organization_id, found.id, purpose=FilePurpose.BATCH, size=1, name=Content(b"n"))
    now_ms = deployment.clock.now_ms()
    counted = {"project_id": mint(Prefix.PROJECT), "model": "m", "captured": 1, "refused": 1}
    add(deployment, capture_count, hour=now_ms // 3_600_000, reason=Reason.ENGINE_CRASH, **counted)
    gone = {"organization_id": found.organization_id, "created_at": now_ms, "gone_at": now_ms}
    add(deployment, place, id=mint(Prefix.FILE), **gone)
    ledger = Ledger(deployment.db)
    ledger.add(record(now_ms - DAY_MS))
    assert ledger.flush()
    kinds = (usage.c.id, capture_count.c.hour, place.c.id, upload.c.id)

    def left() -> list[object]:
        return [one(deployment, sa.func.count(column)) for column in kinds]

    made = Housekeeping(deployment)
    monkeypatch.setattr(type(deployment.wall), "now_ms", lambda _clock: now_ms + 400 * DAY_MS)
    made._forget()
    made._sweep_once()
    assert left() == [1, 1, 1, 1]
    deployment.sweeper.sweep_once(confirm=True)
    made._forget()
    made._sweep_once()
    assert left() == [0, 0, 0, 0]


def test_results_that_nobody_has_downloaded_are_announced(deployment: Deployment, working: Housekeeping) -> None:
    with deployment.db.read() as tx:
        found = tx.execute(sa.select(project)).one()
    deployment.location.check()
    with deployment.files.writing(found.organization_id, found.id) as writer:
        writer.write(Content(b"{}\n"))
        wanted = Intended(FilePurpose.BATCH_OUTPUT, DataClass.BATCH_OUTPUT, Content(b"name"), ends_after_s=3600)
        made = writer.commit(wanted)[0]
    working.start()
    comes_true(lambda: one(deployment, file.c.warned_at, id=made.id) is not None)


def test_a_process_that_died_is_forgotten(deployment: Deployment, working: Housekeeping) -> None:
    place = here()
    row = {"started_at": 1, "seen_at": 1, "acknowledged": 1, "host": place.host, "pid": place.pid}
    add(deployment, process, id=mint(Prefix.PROCESS), born=place.born - 1, **row)
    add(deployment, process, id=mint(Prefix.PROCESS), born=place.born, **row)
    working.start()
    comes_true(lambda: one(deployment, sa.func.count(process.c.id)) == 1)


def test_it_sweeps_when_it_is_asked_to_and_a_failure_does_not_end_it(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = [RuntimeError(), type("PanicException", (BaseException,), {})()]  # as libraries in Rust raise it
    sweep_once = deployment.sweeper.sweep_once

    def flaky(**more: object) -> object:
        if failing:
            raise failing.pop()
        return sweep_once(**more)

    monkeypatch.setattr(deployment.sweeper, "sweep_once", flaky)
    made = Housekeeping(deployment)
    made.start()
    with deployment.db.write() as tx:
        row = tx.execute(sa.select(project)).one()
        kept_rows(tx, 1, row.organization_id, row.id, created_at=1, expires_at=2)
    comes_true(lambda: (made.nudge(), one(deployment, sa.func.count(kept.c.id)) == 0)[1])
    made.stop()
    assert failing == []


def test_a_sweep_that_was_asked_for_is_tried_again_when_another_process_has_the_turn(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "_SWEEP_AGAIN_S", 0.02)
    reports = [Report(), Report(busy=True), Report(busy=True), Report()]
    made = Housekeeping(deployment)
    monkeypatch.setattr(deployment.sweeper, "sweep_once", lambda **_: reports.pop(0))
    made.start()
    comes_true(lambda: len(reports) == 3)
    made.nudge()
    comes_true(lambda: reports == [])
    made.stop()


def test_a_process_that_does_not_sweep_leaves_what_is_due(deployment: Deployment) -> None:
    swept: list[object] = []
    made = Housekeeping(deployment, sweeps=False)
    made._sweep.act = lambda: swept.append(1)
    made.start()
    made.nudge()
    comes_true(lambda: not made._wake.is_set())
    made.stop()
    assert swept == []
