"""A serving process in small, for the fence test with real processes: `python -m tests.support.fence_process URL
FOLDER ORG PROJECT`.

On its event loop it uses keys and routes, in threads it captures into the real vault, all under its own lease, until
it is killed. Standard input tells it keys (`id digest`); standard output tells what it saw, one act a line.
"""

import asyncio
import random
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from keepless.accounts.lease import Lease
from keepless.clock import SystemClock
from keepless.content import Content
from keepless.db import Database
from keepless.errors import KeeplessError, Problem
from keepless.ids import Id
from keepless.policy.data_class import DataClass
from keepless.policy.decide import Query, decide
from keepless.policy.decision import Reason, Retain, Trigger
from keepless.vault.blobs import FileBlobs
from keepless.vault.door import Place, Vault
from keepless.vault.keyring import FileKeyring
from keepless.vault.locations import LocationGuard, check_local
from tests.support.log import make_log


class Process:
    """The lease, the vault and what is done with them."""

    def __init__(self, url: str, folder: Path, organization_id: Id, project_id: Id) -> None:
        self.db, self.clock = Database(url), SystemClock()
        self.organization_id, self.project_id = organization_id, project_id
        self.lease = Lease(self.db, self.clock)
        self.keys: dict[str, bytes] = {}
        self.printing = threading.Lock()
        blobs = FileBlobs(folder / "blobs")
        guard = LocationGuard(blobs.name, lambda: check_local(None), self.clock)
        guard.check()
        log = make_log(self.db, self.clock)
        self.vault = Vault(self.db, FileKeyring(folder / "keyring"), [Place(blobs, guard)], log, self.clock)

    def say(self, kind: str, subject: str, look: Callable[[], bool]) -> None:
        began = time.monotonic()
        found_open = look()
        with self.printing:
            print(began, time.monotonic(), kind, subject, int(found_open), flush=True)

    def accepted(self, key: bytes) -> bool:
        try:
            return self.lease.principal(key) is not None
        except Problem:
            return False

    def may_route(self) -> bool:
        policy = self.lease.snapshot_effective(self.organization_id, self.project_id)
        return policy is not None and not policy.effective.zero_upstream_only

    def capture(self, dice: random.Random) -> None:
        policy = self.lease.snapshot_effective(self.organization_id, self.project_id)
        time.sleep(dice.random() * 1.5)  # a request that takes its time between the decision and the write
        decision = decide(
            Query(
                organization_id=self.organization_id,
                project_id=self.project_id,
                data_class=DataClass.RELIABILITY_LOG,
                trigger=Trigger.RELIABILITY_ERROR,
                reason=Reason.ENGINE_CRASH,
                effective=policy.effective if policy else None,
                epoch=policy.epoch if policy else 0,
                created_at_ms=self.clock.now_ms(),
            )
        )

        def committed() -> bool:
            if not isinstance(decision, Retain):
                return False
            try:
                self.vault.put(Content(b"content"), decision)
            except KeeplessError:
                return False
            return True

        self.say("commit", "policy", committed)

    async def serve(self) -> None:
        await asyncio.to_thread(self.lease.start, asyncio.get_running_loop())
        dice = random.Random()
        while True:
            for subject, key in list(self.keys.items())[-8:]:
                self.say("accept", subject, lambda key=key: self.accepted(key))
            self.say("route", "policy", self.may_route)
            await asyncio.sleep(0.002 + dice.random() * 0.01)


def main() -> None:
    """Serve until killed."""
    url, folder, organization_id, project_id = sys.argv[1:]
    process = Process(url, Path(folder), Id(organization_id), Id(project_id))

    def listen() -> None:
        for line in sys.stdin:
            subject, digest = line.split()
            process.keys[subject] = bytes.fromhex(digest)

    def capture() -> None:
        dice = random.Random()
        while True:
            process.capture(dice)

    for target in (listen, capture, capture):
        threading.Thread(target=target, daemon=True).start()
    asyncio.run(process.serve())


if __name__ == "__main__":
    main()
