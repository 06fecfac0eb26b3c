"""What a million kept objects change: nothing but what is due (issue: cost follows what is due, not what is stored).

Counts, not clocks: objects destroyed and left, receipts, the memory that a sweep takes, and the steps that SQLite's
virtual machine takes for a change of controls and for a sweep that finds nothing due.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from benchmarks import vault

from keepless.accounts.fence import Fence
from keepless.accounts.principal import AdminPrincipal
from keepless.accounts.roles import Role
from keepless.app.compose import Deployment
from keepless.clock import DAY_MS
from keepless.governance.change import Office
from keepless.governance.controls import DataControls
from keepless.governance.patch import Patch
from keepless.ids import Id, Prefix, mint
from keepless.receipts.statement import EntryKind
from keepless.receipts.tables import log_entry
from keepless.vault.tables import kept, tombstone

STORED, DUE = 1_000_000, 100_000
STEPS = 100  # one tick of SQLite's progress handler

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


class Work:
    """Ticks of SQLite's virtual machine since it was last asked."""

    def __init__(self, deployment: Deployment) -> None:
        self.ticks = 0
        sa.event.listen(deployment.db.engine, "checkout", lambda raw, *_: raw.set_progress_handler(self.tick, STEPS))

    def tick(self) -> int:
        self.ticks += 1
        return 0

    def of(self, act: object) -> int:
        before = self.ticks
        act()
        return self.ticks - before


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Deployment, Id, Id]]:
    monkeypatch.setattr(vault, "OUT", tmp_path)
    deployment, organization, project = vault._deployment("million")
    yield deployment, organization, project
    deployment.close()


def count(deployment: Deployment, table: sa.Table, *where: sa.ColumnElement[bool]) -> int:
    with deployment.db.read() as tx:
        return tx.execute(sa.select(sa.func.count()).select_from(table).where(*where)).scalar_one()


def test_a_sweep_destroys_what_is_due_and_its_cost_does_not_follow_what_is_stored(
    filled: tuple[Deployment, Id, Id],
) -> None:
    deployment, organization, project = filled
    controls = DataControls(
        Office(deployment.db, deployment.clock, Fence(deployment.db, deployment.clock), deployment.log)
    )
    owner = AdminPrincipal(mint(Prefix.MEMBER), organization, Role.OWNER, deployment.clock.now_ms() + DAY_MS)

    def toggle() -> None:
        controls.change(organization, Patch(zero_data_retention=True, purge=False), owner)
        controls.change(organization, Patch(zero_data_retention=False), owner)

    deployment.sweeper.sweep_once()  # what a first sweep does once
    work = Work(deployment)
    toggle()
    empty_toggle, empty_sweep = work.of(toggle), work.of(deployment.sweeper.sweep_once)
    vault.fill(deployment, organization, project, STORED - DUE, ends_in_s=20 * 86_400)
    deployment.sweeper.sweep_once()
    assert work.of(deployment.sweeper.sweep_once) <= 2 * empty_sweep + 50

    vault.fill(deployment, organization, project, DUE, ends_in_s=-1, blobs=True)
    memory = vault._Memory()
    report = deployment.sweeper.sweep_once()
    most = memory.end()
    assert (report.destroyed, report.failures, report.pending) == (DUE, 0, 0)
    assert most - memory.before < 64
    assert count(deployment, kept) == STORED - DUE
    assert count(deployment, tombstone) == count(deployment, log_entry, log_entry.c.kind == EntryKind.DELETED) == DUE
    assert work.of(toggle) <= 2 * empty_toggle + 50  # the purge that it asks for is the sweep's work
