"""The fence: it waits for everybody who might act on what was before, for nobody else, and never for ever."""

import threading

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.accounts.fence import MARGIN_S, Fence, Reach, forget_dead
from keepless.accounts.lease import KEY_GRACE_S, LEASE_S
from keepless.accounts.liveness import here
from keepless.accounts.store import generation_of, prepare, touch
from keepless.accounts.tables import process
from keepless.db import Database
from keepless.ids import Id, Prefix, mint
from tests.support.clock import FakeClock
from tests.support.governed import FlakyDatabase


@pytest.fixture
def ready(database: Database) -> Database:
    with database.write() as tx:
        prepare(tx, now_ms=0)
    return database


class SteppingClock(FakeClock):
    """Every look at the monotonic clock takes a little while, so that waiting ends without sleeping for real."""

    def monotonic(self) -> float:
        self.tick += 0.1
        return self.tick


def register(database: Database, *, acknowledged: int, host: str = "elsewhere", seen_at: int = 0) -> Id:
    own = mint(Prefix.PROCESS)
    with database.write() as tx:
        tx.execute(
            process.insert().values(
                id=own, started_at=0, seen_at=seen_at, acknowledged=acknowledged, host=host, pid=1, born=1
            )
        )
    return own


def remaining(database: Database) -> dict[Id, int | None]:
    with database.read() as tx:
        return {row.id: row.condemned_at for row in tx.execute(sa.select(process))}


def waited(database: Database, clock: SteppingClock, reach: Reach = Reach.POLICY) -> float:
    began = clock.tick
    Fence(database, clock).change(touch, reach)
    return clock.tick - began


def test_it_answers_with_the_result_of_the_change(ready: Database) -> None:
    assert Fence(ready, SteppingClock()).change(lambda tx: (touch(tx), "done")[1]) == "done"
    with ready.read() as tx:
        assert generation_of(tx) == 1


def test_a_failed_change_changes_nothing(ready: Database) -> None:
    def failing(tx: Connection) -> None:
        touch(tx)
        raise ValueError

    with pytest.raises(ValueError):
        Fence(ready, SteppingClock()).change(failing)
    with ready.read() as tx:
        assert generation_of(tx) == 0


def test_with_nobody_registered_nobody_is_waited_for(ready: Database) -> None:
    assert waited(ready, SteppingClock()) < LEASE_S / 2


def test_who_has_acknowledged_is_not_waited_for(ready: Database) -> None:
    register(ready, acknowledged=1)
    register(ready, acknowledged=7)
    assert waited(ready, SteppingClock()) < LEASE_S / 2


@pytest.mark.parametrize(("reach", "bound"), [(Reach.POLICY, LEASE_S), (Reach.KEYS, KEY_GRACE_S)])
def test_a_silent_process_is_waited_for_as_long_as_it_might_act(ready: Database, reach: Reach, bound: float) -> None:
    clock = SteppingClock()
    register(ready, acknowledged=0, seen_at=clock.now_ms())
    took = waited(ready, clock, reach)
    assert bound + MARGIN_S <= took < bound + MARGIN_S + 1


def test_it_answers_as_soon_as_the_last_one_acknowledges(ready: Database) -> None:
    own, asked = register(ready, acknowledged=0), threading.Event()
    answered: list[int] = []

    class Frozen(FakeClock):
        """On this clock no time passes: only the acknowledgement can end the waiting."""

        def monotonic(self) -> float:
            asked.set()
            return 0.0

    changing = threading.Thread(target=lambda: answered.append(Fence(ready, Frozen()).change(touch)))
    changing.start()
    assert asked.wait(20) and not answered
    with ready.write() as tx:
        tx.execute(process.update().where(process.c.id == own).values(acknowledged=1))
    changing.join()
    assert answered == [1]


def test_a_process_that_died_here_is_not_waited_for_and_its_row_goes(ready: Database) -> None:
    register(ready, acknowledged=0, host=here().host)  # pid 1 was not born at tick 1
    assert waited(ready, SteppingClock()) < LEASE_S / 2
    assert remaining(ready) == {}


def test_the_dead_of_this_machine_can_be_forgotten_at_once(ready: Database) -> None:
    register(ready, acknowledged=0, host=here().host)
    other = register(ready, acknowledged=0)
    assert forget_dead(ready) == 1
    assert list(remaining(ready)) == [other]
    assert forget_dead(ready) == 0


def test_who_has_been_silent_for_minutes_is_condemned_first_and_removed_much_later(ready: Database) -> None:
    clock = SteppingClock()
    own = register(ready, acknowledged=0, seen_at=clock.now_ms() - 60_000)
    waited(ready, clock)
    assert remaining(ready) == {own: None}
    clock.advance_ms(60_000)
    assert waited(ready, clock) >= LEASE_S  # still waited for: what it knew may still be acted on
    assert remaining(ready) == {own: clock.now_ms()}
    clock.advance_ms(60_000)
    assert waited(ready, clock, Reach.KEYS) >= KEY_GRACE_S
    clock.advance_ms(120_000)
    waited(ready, clock)
    assert remaining(ready) == {}


def test_a_database_that_fails_while_waiting_does_not_fail_the_change(database_url: str) -> None:
    flaky = FlakyDatabase(database_url.replace("postgresql://", "postgresql+psycopg://", 1))
    flaky.create_all()
    with flaky.write() as tx:
        prepare(tx, now_ms=0)
    clock = SteppingClock()

    def hurry() -> None:
        flaky.down = True

    began = clock.tick
    assert Fence(flaky, clock, hurry).change(touch) == 1
    assert clock.tick - began >= LEASE_S + MARGIN_S  # nobody can be asked, so the whole time is waited
    flaky.close()


def test_what_others_have_committed_is_waited_for_as_well(ready: Database) -> None:
    clock = SteppingClock()
    began = clock.tick
    with ready.write() as tx:
        generation = touch(tx)
    register(ready, acknowledged=generation)
    Fence(ready, clock).settle()
    assert clock.tick - began < LEASE_S / 2
    register(ready, acknowledged=generation - 1, seen_at=clock.now_ms())
    Fence(ready, clock).settle()
    assert clock.tick - began >= LEASE_S + MARGIN_S


def test_a_change_that_changes_nothing_waits_for_what_was_changed_before(ready: Database) -> None:
    clock = SteppingClock()
    with ready.write() as tx:
        touch(tx)  # somebody who died before he had waited
    register(ready, acknowledged=0, seen_at=clock.now_ms())
    began = clock.tick
    Fence(ready, clock).change(lambda _: None)
    assert clock.tick - began >= LEASE_S + MARGIN_S
