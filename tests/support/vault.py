"""A whole vault in a folder, and permits for it, for tests of the door and of everything behind it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keepless.clock import DAY_MS
from keepless.content import Content
from keepless.db import Database
from keepless.ids import Id
from keepless.policy.controls import Controls, RequestControls, effective
from keepless.policy.data_class import DataClass
from keepless.policy.decide import Query, decide
from keepless.policy.decision import Reason, Retain, Trigger
from keepless.receipts.log import Log
from keepless.vault.blobs import BlobStore, FileBlobs
from keepless.vault.door import Place, Vault
from keepless.vault.keyring import FileKeyring
from keepless.vault.locations import Check, LocationGuard, check_local
from keepless.vault.rows import Kept
from keepless.vault.states import Step
from tests.support.clock import FakeClock
from tests.support.log import make_log

TRIGGERS = {
    DataClass.RELIABILITY_LOG: (Trigger.RELIABILITY_ERROR, Reason.ENGINE_CRASH),
    DataClass.ABUSE_LOG: (Trigger.ABUSE_CASE, Reason.ABUSE_CASE),
}


class CrashError(BaseException):
    """The process died here. Not an Exception: no handler of ours may clean up after it."""


class CrashAt:
    """A hook that dies at the chosen step, once; None = never."""

    def __init__(self, step: Step | None = None) -> None:
        self.step = step
        self.seen: list[Step] = []

    def __call__(self, step: Step) -> None:
        self.seen.append(step)
        if step is self.step:
            self.step = None
            raise CrashError


@dataclass
class Rig:
    """A vault and the parts it is made of."""

    database: Database
    folder: Path
    clock: FakeClock
    keyring: FileKeyring
    store: BlobStore
    guard: LocationGuard
    log: Log
    crash: CrashAt
    vault: Vault

    def permit(
        self,
        organization_id: Id,
        project_id: Id,
        data_class: DataClass = DataClass.RELIABILITY_LOG,
        *,
        epoch: int = 1,
        controls: Controls | None = None,
        ends_at_ms: int | None = None,
        request_id: Id | None = None,
    ) -> Retain:
        trigger, reason = TRIGGERS.get(data_class, (Trigger.FEATURE, Reason.CUSTOMER_UPLOAD))
        decision = decide(
            Query(
                organization_id=organization_id,
                project_id=project_id,
                data_class=data_class,
                trigger=trigger,
                reason=reason,
                effective=effective(controls or Controls()),
                epoch=epoch,
                created_at_ms=self.clock.now_ms(),
                request=RequestControls(),
                request_id=request_id,
                ends_at_ms=ends_at_ms,
            )
        )
        assert isinstance(decision, Retain)
        return decision

    def put(self, organization_id: Id, project_id: Id, data: bytes = b"marker", **options: Any) -> Kept:
        return self.vault.put(Content(data), self.permit(organization_id, project_id, **options))

    def restart(self) -> None:
        """The same folder, opened by a new process."""
        self.vault = self.hooked(self.crash)

    def hooked(self, at_step: Callable[[Step], None]) -> Vault:
        """Another vault on the same folder, as another process has it, that calls a hook at every step."""
        place = Place(self.store, self.guard)
        return Vault(self.database, self.keyring, [place], self.log, self.clock, at_step=at_step)

    def pass_days(self, days: int) -> None:
        """Let time pass; the location is checked again, as it is every hour."""
        self.clock.advance_ms(days * DAY_MS)
        self.guard.check()


def make_rig(database: Database, folder: Path, *, store: BlobStore | None = None, check: Check | None = None) -> Rig:
    """A vault on a folder of keys and (by default) a folder of blobs."""
    clock = FakeClock()
    keyring = FileKeyring.initialise(folder / "keyring")
    blobs = store or FileBlobs(folder / "blobs")
    guard = LocationGuard(blobs.name, check or (lambda: check_local(None)), clock)
    guard.check()
    log = make_log(database, clock)
    crash = CrashAt()
    vault = Vault(database, keyring, [Place(blobs, guard)], log, clock, at_step=crash)
    return Rig(database, folder, clock, keyring, blobs, guard, log, crash, vault)
