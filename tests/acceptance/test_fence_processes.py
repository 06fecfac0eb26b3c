"""The fence over real processes that are killed and frozen: after a toggle has answered, nothing older happens.

Four processes serve one database and one vault; all the while one is killed with SIGKILL (and replaced) and one is
frozen for longer than its lease and let go. The oracle is in tests/support/fence.py.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import sqlalchemy as sa

from keepless.accounts.tables import process as process_table
from keepless.db import Database
from keepless.governance.patch import Patch
from keepless.ids import Id
from keepless.vault.keyring import FileKeyring
from keepless.vault.tables import kept
from tests.support.fence import Act, Closed, judge
from tests.support.governed import Deployment, deploy, digest

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(ROOT)])}
SECONDS = 6.0  # at least; a busy machine takes longer to have seen enough
PATIENCE = 90.0
PROCESSES = 4
ZDR, OPEN = Patch(zero_data_retention=True, purge=False), Patch(zero_data_retention=False)


class Fleet:
    """The processes, and everything they have said."""

    def __init__(self, here: Deployment, url: str, folder: Path) -> None:
        self.command = [sys.executable, "-m", "tests.support.fence_process", url, str(folder)]
        self.command += [here.organization_id, here.project_id]
        self.folder, self.acts, self.keys = folder, list[Act](), dict[str, str]()
        self.children: list[subprocess.Popen[str]] = []
        self.readers: list[threading.Thread] = []
        self.kills = 0

    def start(self) -> None:
        log = (self.folder / f"{len(self.readers)}.log").open("w")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
        child = subprocess.Popen(self.command, **pipes, text=True, bufsize=1, cwd=ROOT, env=ENVIRONMENT)
        log.close()
        self.children.append(child)
        reader = threading.Thread(target=self._read, args=(child,))
        self.readers.append(reader)
        reader.start()
        for subject in list(self.keys):
            self._tell(child, subject)

    def _read(self, child: subprocess.Popen[str]) -> None:
        assert child.stdout is not None
        for line in child.stdout:
            words = line.split()
            if line.endswith("\n") and len(words) == 5:  # the last line of a killed process may be torn
                began, ended, kind, subject, found_open = words
                self.acts.append(Act(float(began), float(ended), kind, subject, found_open == "1"))
        child.stdout.close()

    def _tell(self, child: subprocess.Popen[str], subject: str) -> None:
        assert child.stdin is not None
        try:
            child.stdin.write(f"{subject} {self.keys[subject]}\n")
        except (BrokenPipeError, ValueError):
            return  # killed just now

    def tell(self, subject: Id, key: bytes) -> None:
        self.keys[subject] = key.hex()
        for child in list(self.children):
            self._tell(child, subject)

    def kill(self, child: subprocess.Popen[str]) -> None:
        self.children.remove(child)
        child.kill()
        child.wait()
        assert child.stdin is not None
        child.stdin.close()
        self.kills += 1

    def end(self) -> None:
        for child in list(self.children):
            self.kill(child)
        for reader in self.readers:
            reader.join()


def committed(database: Database) -> set[Id]:
    with database.read() as tx:
        return set(tx.execute(sa.select(kept.c.id)).scalars())


def serving(database: Database) -> int:
    with database.read() as tx:
        return tx.execute(sa.select(sa.func.count()).where(process_table.c.acknowledged >= 0)).scalar_one()


def test_nothing_older_after_a_toggle_has_answered(database: Database, tmp_path: Path) -> None:
    here = deploy(database)
    FileKeyring.initialise(tmp_path / "keyring")
    url = database.engine.url.render_as_string(hide_password=False)
    fleet, closed, dice = Fleet(here, url, tmp_path), Closed(), random.Random(7)
    grown, failures = set[Id](), list[BaseException]()
    toggles = revocations = 0
    stop = threading.Event()

    def harm() -> None:
        while not stop.wait(1.0):
            victim = fleet.children[0]
            fleet.kill(victim)
            fleet.start()
            frozen = fleet.children[0]
            frozen.send_signal(signal.SIGSTOP)
            stop.wait(1.5 + dice.random())  # longer than its lease
            frozen.send_signal(signal.SIGCONT)

    def turn_over_keys() -> None:
        nonlocal revocations
        while not stop.is_set():
            created = here.access.create_api_key(here.owner, here.organization_id, here.project_id, name="Short")
            fleet.tell(created.record.id, digest(created.secret))
            time.sleep(0.1)
            here.access.revoke_api_key(here.owner, here.organization_id, created.record.id)
            closed.close(created.record.id, time.monotonic())
            revocations += 1

    def seen() -> bool:
        """It was a test: processes were killed, acts were judged, both answers were seen."""
        judged = judge(list(fleet.acts), closed).judged
        kinds = [(kind, side) for kind in ("accept", "route") for side in ("open", "judged")]
        turns = fleet.kills > PROCESSES and toggles >= 2 and revocations >= 2 and len(fleet.acts) > 1000
        return turns and all(judged[kind] > 0 for kind in kinds)

    def enough(passed: float) -> bool:
        return passed > PATIENCE or (passed > SECONDS and seen())

    def guarded(work: object) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)
            stop.set()

    try:
        for _ in range(PROCESSES):
            fleet.start()
        while serving(database) < PROCESSES:
            time.sleep(0.05)
        helpers = [threading.Thread(target=guarded, args=(work,)) for work in (harm, turn_over_keys)]
        for helper in helpers:
            helper.start()
        began = time.monotonic()
        while not stop.is_set() and not enough(time.monotonic() - began):
            here.controls.change(here.organization_id, ZDR, here.owner)
            closed.close("policy", time.monotonic())
            before = committed(database)
            time.sleep(dice.random() * 0.3)
            grown |= committed(database) - before
            closed.open("policy", time.monotonic())
            here.controls.change(here.organization_id, OPEN, here.owner)
            toggles += 1
            time.sleep(dice.random() * 0.3)
        stop.set()
        for helper in helpers:
            helper.join()
    finally:
        fleet.end()
    verdict = judge(fleet.acts, closed)
    assert failures == []
    assert verdict.violations == []
    assert grown == set()
    assert seen(), verdict.judged
    assert committed(database)
