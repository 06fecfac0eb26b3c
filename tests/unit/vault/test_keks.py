"""The lives of KEKs, on a real database and folder."""

import threading
from pathlib import Path

import pytest

from keepless.clock import DAY_MS
from keepless.content import Content
from keepless.db import Database
from keepless.ids import Id, Prefix, mint
from keepless.receipts.statement import EntryKind
from keepless.vault.errors import StoreFailedError
from keepless.vault.states import Cause, KekState, Step
from keepless.vault.tables import kek
from tests.support.accounts import make_organization
from tests.support.vault import CrashError, Rig, make_rig

LOCATION = Id("local")


@pytest.fixture
def rig(database: Database, tmp_path: Path) -> Rig:
    return make_rig(database, tmp_path)


@pytest.fixture
def owner(database: Database) -> tuple[Id, Id]:
    return make_organization(database)


def states(database: Database) -> dict[Id, KekState]:
    with database.read() as tx:
        return {row.id: row.state for row in tx.execute(kek.select())}


def test_one_key_a_day_a_location_and_a_hold(rig: Rig) -> None:
    keks, hold = rig.vault.keks, mint(Prefix.HOLD)
    wanted = [
        keks.of_end(LOCATION, 0),
        keks.of_end(LOCATION, DAY_MS - 1),
        keks.of_end(LOCATION, DAY_MS),
        keks.of_end(Id("s3:other"), 0),
        keks.of_hold(LOCATION, hold),
        keks.of_hold(LOCATION, hold),
        keks.of_hold(LOCATION, mint(Prefix.HOLD)),
        keks.of_end(LOCATION, None),
        keks.of_end(LOCATION, None),
    ]
    ids = [keks.active(each)[0] for each in wanted]
    assert ids[0] == ids[1]
    assert ids[4] == ids[5]
    assert len(set(ids)) == 7
    assert keks.active(wanted[0]) == (ids[0], rig.keyring.load(ids[0]))


def test_a_retired_key_is_never_chosen_again(rig: Rig, database: Database) -> None:
    keks = rig.vault.keks
    first, _ = keks.active(keks.of_end(LOCATION, 0))
    assert keks.retire(first)
    assert not keks.retire(first)
    assert not keks.retire(mint(Prefix.KEK))
    second, _ = keks.active(keks.of_end(LOCATION, 0))
    assert states(database) == {first: KekState.RETIRING, second: KekState.ACTIVE}
    assert keks.destroy(first)
    assert not keks.destroy(mint(Prefix.KEK))
    assert states(database) == {first: KekState.DESTROYED, second: KekState.ACTIVE}


def test_a_key_whose_file_is_lost_wraps_nothing(rig: Rig) -> None:
    keks = rig.vault.keks
    lost, _ = keks.active(keks.of_end(LOCATION, 0))
    assert keks.has_file(lost)
    rig.keyring.destroy(lost)
    assert not keks.has_file(lost)
    with pytest.raises(StoreFailedError):
        keks.active(keks.of_end(LOCATION, 0))
    assert keks.destroy(lost)  # nothing was wrapped by it: the way out
    assert keks.active(keks.of_end(LOCATION, 0))[0] != lost


def test_many_threads_agree_on_one_key(rig: Rig) -> None:
    keks, found = rig.vault.keks, list[Id]()
    start = threading.Barrier(6)

    def choose() -> None:
        start.wait(10)
        found.append(keks.active(keks.of_end(LOCATION, 0))[0])

    threads = [threading.Thread(target=choose) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 6
    assert len(set(found)) == 1
    assert [file.kek_id for file in rig.keyring.kek_files()] == [found[0]]


def test_of_two_processes_that_make_a_key_one_wins(rig: Rig, owner: tuple[Id, Id], database: Database) -> None:
    end = rig.clock.now_ms() + 30 * DAY_MS
    other: list[Id] = []

    def race(at: Step) -> None:
        if at is Step.KEK_FILE:
            other.append(rig.vault.keks.active(rig.vault.keks.of_end(rig.store.name, end))[0])

    vault = rig.hooked(race)
    one = vault.put(Content(b"marker"), rig.permit(*owner))
    assert one.kek_id == other[0]
    assert [file.kek_id for file in rig.keyring.kek_files()] == [one.kek_id]


@pytest.mark.parametrize("step", [Step.KEK_RETIRING, Step.KEK_GONE])
def test_a_crash_while_a_key_is_destroyed_is_finished(
    rig: Rig, owner: tuple[Id, Id], database: Database, step: Step
) -> None:
    one = rig.put(*owner)
    with database.write() as tx:
        rig.vault.shred(tx, [one.id], Cause.EXPIRED)
    rig.crash.step = step
    with pytest.raises(CrashError):
        rig.vault.keks.destroy(one.kek_id)
    rig.restart()
    assert rig.vault.keks.destroy(one.kek_id)
    assert not rig.vault.keks.has_file(one.kek_id)
    with database.read() as tx:
        told = rig.log.entries(tx, kinds=[EntryKind.KEY_DESTROYED])
    assert [entry.organization_id for entry in told] == [owner[0], None]
