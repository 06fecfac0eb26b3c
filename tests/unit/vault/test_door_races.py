"""Many hands at the door at once: puts, purges, rolls and changes of policy, on both databases.

No deadlock (the one order of locks), nothing committed under a stale epoch, totals equal to what is kept, one receipt
for each object destroyed, and everything that is still kept opens.
"""

import json
import random
import threading
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from keepless.accounts import tables as accounts
from keepless.content import Content, Purpose
from keepless.db import Database
from keepless.ids import Id
from keepless.policy.data_class import DataClass
from keepless.receipts.statement import EntryKind
from keepless.vault.errors import KeyMissingError, StaleEpochError
from keepless.vault.states import Cause, TombstoneState
from keepless.vault.tables import kek, kept, kept_total, tombstone
from tests.support.accounts import make_organization
from tests.support.vault import Rig, make_rig

CLASSES = [DataClass.RELIABILITY_LOG, DataClass.BATCH_INPUT]
PUTS = 15


class Hands:
    """Threads that all begin together and whose errors are not lost."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.tasks: list[Callable[[], None]] = []

    def run(self) -> None:
        start = threading.Barrier(len(self.tasks))

        def guarded(task: Callable[[], None]) -> None:
            try:
                start.wait(10)
                task()
            except BaseException as error:
                self.errors.append(error)

        threads = [threading.Thread(target=guarded, args=(task,)) for task in self.tasks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(100)
        if self.errors:
            raise self.errors[0]


def epoch_now(database: Database, organization_id: Id) -> int:
    with database.read() as tx:
        query = sa.select(accounts.organization.c.epoch).where(accounts.organization.c.id == organization_id)
        return tx.execute(query).scalar_one()


def putter(rig: Rig, owner: tuple[Id, Id], seed: int) -> Callable[[], None]:
    def task() -> None:
        chance = random.Random(seed)
        for number in range(PUTS):
            epoch = epoch_now(rig.database, owner[0])
            permit = rig.permit(*owner, chance.choice(CLASSES), epoch=epoch)
            try:
                one = rig.vault.put(Content(f"{seed}-{number}".encode()), permit)
            except StaleEpochError:
                continue
            assert one.epoch == epoch

    return task


def changer(rig: Rig, owner: tuple[Id, Id], answered: list[tuple[Id, int, int]]) -> Callable[[], None]:
    """Changes policy again and again; notes the epoch and how long the log was once a change had answered."""

    def task() -> None:
        table = accounts.organization
        for _ in range(10):
            with rig.database.write() as tx:
                tx.execute(table.update().where(table.c.id == owner[0]).values(epoch=table.c.epoch + 1))
            epoch = epoch_now(rig.database, owner[0])
            with rig.database.read() as tx:
                answered.append((owner[0], epoch, rig.log.size(tx)))

    return task


def destroyer(rig: Rig, seed: int, done: list[int]) -> Callable[[], None]:
    def task() -> None:
        chance = random.Random(seed)
        for _ in range(8):
            with rig.database.read() as tx:
                ids = list(tx.execute(sa.select(kept.c.id)).scalars())
            some = chance.sample(ids, min(5, len(ids)))
            with rig.database.write() as tx:
                shredding = rig.vault.shred(tx, some, Cause.CUSTOMER)
            erased = rig.vault.erase(shredding.shredded)
            with rig.database.write() as tx:
                done.append(rig.vault.settle(tx, erased))

    return task


def roller(rig: Rig) -> Callable[[], None]:
    def task() -> None:
        for _ in range(4):
            with rig.database.read() as tx:
                row = tx.execute(sa.select(kek).where(kek.c.early_deletions > 0, kek.c.state == "active")).first()
            if row is None:
                continue
            rig.vault.keks.retire(row.id)
            with rig.database.read() as tx:
                survivors = tx.execute(sa.select(kept.c.id, kept.c.expires_at).where(kept.c.kek_id == row.id)).all()
            if survivors:
                new, _ = rig.vault.keks.active(rig.vault.keks.of_end(row.location, survivors[0].expires_at))
                with rig.database.write() as tx:
                    try:
                        rig.vault.rewrap(tx, [one.id for one in survivors], new)
                    except KeyMissingError:
                        continue
            rig.vault.keks.destroy(row.id)

    return task


def test_many_hands(database: Database, tmp_path: Path) -> None:
    rig = make_rig(database, tmp_path)
    owners = [make_organization(database), make_organization(database)]
    hands, answered, done = Hands(), list[tuple[Id, int, int]](), list[int]()
    for number in range(20):  # whoever comes first finds something to destroy
        rig.vault.put(Content(b"before"), rig.permit(*owners[number % 2], CLASSES[number % len(CLASSES)]))
    hands.tasks = [putter(rig, owners[seed % 2], seed) for seed in range(4)]
    hands.tasks += [changer(rig, owner, answered) for owner in owners]
    hands.tasks += [destroyer(rig, seed, done) for seed in range(2)]
    hands.tasks.append(roller(rig))
    hands.run()
    with database.read() as tx:
        rows = tx.execute(sa.select(kept)).all()
        stones = tx.execute(sa.select(tombstone)).all()
        counted = {
            (row.organization_id, row.data_class): (row.objects, row.bytes)
            for row in tx.execute(sa.select(kept_total))
            if row.objects
        }
        receipts = rig.log.entries(tx, kinds=[EntryKind.DELETED], limit=1000)
        captures = rig.log.entries(tx, kinds=[EntryKind.CAPTURED], limit=1000)
    assert len(answered) == 20
    for organization_id, epoch, size in answered:
        later = [one for one in captures if one.index >= size and one.organization_id == organization_id]
        assert all(json.loads(one.body or b"")["epoch"] >= epoch for one in later)
    assert all(stone.state is TombstoneState.DESTROYED for stone in stones)
    assert sorted(entry.receipt_id for entry in receipts) == sorted(stone.receipt_id for stone in stones)
    assert sum(done) == len(stones) > 0
    expected: dict[tuple[Id, DataClass], tuple[int, int]] = {}
    for row in rows:
        objects, size = expected.get((row.organization_id, row.data_class), (0, 0))
        expected[row.organization_id, row.data_class] = (objects + 1, size + row.bytes)
    assert counted == expected
    assert sorted(rig.store.listed(2**62)) == sorted(row.blob for row in rows)
    for row in rows:
        assert rig.vault.read(row.id, row.organization_id, Purpose.PROVE).size >= 3
