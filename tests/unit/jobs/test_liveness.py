"""Who is alive, on both databases: the kernel's word on one machine, silence on others."""

import pytest
import sqlalchemy as sa

from keepless.accounts.liveness import Place
from keepless.db import Database
from keepless.ids import Id
from keepless.jobs import liveness
from keepless.jobs.liveness import SILENT_S, Roll
from keepless.jobs.tables import job_worker
from tests.support.clock import FakeClock


def elsewhere(database: Database, roll: Roll, host: str = "another machine") -> None:
    """As if that process ran on another machine."""
    with database.write() as tx:
        tx.execute(job_worker.update().where(job_worker.c.id == roll.id).values(host=host, pid=1))


def test_another_machines_process_is_dead_when_it_is_silent_for_long(database: Database) -> None:
    clock = FakeClock()
    mine, his = Roll(database, clock), Roll(database, FakeClock(now_ms=5))  # whose clock says something else
    for roll in (mine, his):
        roll.beat()
    elsewhere(database, his)
    assert mine.dead() == []
    clock.advance_ms(int(SILENT_S * 1000) - 1)
    assert mine.dead() == []
    his.beat()
    elsewhere(database, his)
    clock.advance_ms(1)
    assert mine.dead() == []
    clock.advance_ms(int(SILENT_S * 1000))
    assert mine.dead() == [his.id]


@pytest.mark.parametrize("pid_lives", [True, False])
def test_on_the_same_machine_the_kernel_says_it_however_long_a_process_is_silent(
    database: Database, pid_lives: bool
) -> None:
    clock = FakeClock()
    mine, his = Roll(database, clock), Roll(database, FakeClock())
    for roll in (mine, his):
        roll.beat()
    if not pid_lives:
        with database.write() as tx:
            tx.execute(job_worker.update().where(job_worker.c.id == his.id).values(born=1))
    for _ in range(2):
        assert mine.dead() == ([] if pid_lives else [his.id])
        clock.advance_ms(int(SILENT_S * 1000))


def test_where_the_kernel_says_nothing_silence_does(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()
    monkeypatch.setattr(liveness, "here", lambda: Place("", 1, 0))
    mine, his = Roll(database, clock), Roll(database, FakeClock())
    for roll in (mine, his):
        roll.beat()
    assert mine.dead() == []
    clock.advance_ms(int(SILENT_S * 1000))
    assert mine.dead() == [his.id]


def test_who_leaves_or_is_buried_is_not_known_any_more(database: Database) -> None:
    clock = FakeClock()
    mine, his, third = (Roll(database, clock) for _ in range(3))
    for roll in (mine, his, third, mine):
        roll.beat()
    assert mine.known() == {mine.id, his.id, third.id}
    his.leave()
    mine.bury([third.id])
    mine.bury([])
    assert mine.known() == {mine.id}
    with database.read() as tx:
        assert tx.execute(sa.select(job_worker.c.id, job_worker.c.beats)).all() == [(mine.id, 2)]


def test_nobody_buries_himself(database: Database) -> None:
    clock = FakeClock()
    mine = Roll(database, clock)
    mine.beat()
    clock.advance_ms(10**9)
    assert mine.dead() == list[Id]()
