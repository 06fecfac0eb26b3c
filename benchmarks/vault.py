"""What forgetting costs: a sweep of many due objects among many more, and a change of data controls beside them.

Holds: `sweep`, `toggle`; `opened` and `fill`, which `pages` uses too. Both run on a folder of their own with SQLite and
local files. One object of each age is put through the door; the others are copies of its row (and, where it is due, of
its blob), made with plain SQL because the door's own pace, an fsync or more each, is not what is measured here.
"""

import resource
import shutil
import threading
import time
from itertools import islice
from pathlib import Path

import sqlalchemy as sa

from benchmarks.targets import OUT
from keepless.accounts.fence import Fence
from keepless.accounts.principal import AdminPrincipal
from keepless.accounts.roles import Role
from keepless.app.compose import Deployment, open_deployment
from keepless.app.initialise import initialise
from keepless.clock import DAY_MS
from keepless.config import Settings
from keepless.content import Content
from keepless.db import insert_many
from keepless.governance.change import Office
from keepless.governance.controls import DataControls
from keepless.governance.patch import Patch
from keepless.ids import Id, Prefix, mint, trusted
from keepless.policy.controls import Controls, RequestControls, effective
from keepless.policy.data_class import DataClass
from keepless.policy.decide import Query, decide
from keepless.policy.decision import Reason, Retain, Trigger
from keepless.vault.rows import Kept
from keepless.vault.tables import kept, kept_total

__all__ = ["fill", "opened", "sweep", "toggle"]

_BYTES = 4096
_AT_ONCE = 5000
_COLUMNS = tuple(column.name for column in kept.columns)


def sweep(stored: int, due: int) -> dict[str, float]:
    """Destroy `due` objects of `stored`, with receipts."""
    deployment, organization, project = _deployment("sweep")
    deployment.sweeper.sweep_once()  # what a first sweep does once (an audit, a roll) is not measured
    fill(deployment, organization, project, stored - due, ends_in_s=20 * 86_400)
    fill(deployment, organization, project, due, ends_in_s=1, blobs=True)
    time.sleep(2)
    memory = _Memory()
    began, used = time.monotonic(), time.process_time()
    report = deployment.sweeper.sweep_once()
    elapsed, used = time.monotonic() - began, time.process_time() - used
    most = memory.end()
    left = _count(deployment)
    deployment.close()
    return {
        "stored": stored,
        "due": due,
        "destroyed": report.destroyed,
        "left": left,
        "failures": report.failures + report.pending,
        "seconds": elapsed,
        "cpu_seconds": used,
        "purges_per_second": report.destroyed / elapsed,
        "memory_before_mb": memory.before,
        "memory_most_mb": most,
    }


def toggle(stored: int, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of turning ZDR on and off with nothing stored, and with `stored` objects. No server runs."""
    deployment, organization, project = _deployment("toggle")
    office = Office(deployment.db, deployment.clock, Fence(deployment.db, deployment.clock), deployment.log)
    controls = DataControls(office)
    owner = AdminPrincipal(mint(Prefix.MEMBER), organization, Role.OWNER, deployment.clock.now_ms() + DAY_MS)
    empty = _toggles(controls, organization, owner, repeats)
    fill(deployment, organization, project, stored, ends_in_s=20 * 86_400)
    full = _toggles(controls, organization, owner, repeats)
    deployment.close()
    return {"empty_ms": empty, f"with_{stored}_ms": full}


def _toggles(controls: DataControls, organization: Id, owner: AdminPrincipal, repeats: int) -> list[float]:
    taken = []
    for step in range(2 * repeats):
        began = time.monotonic()
        controls.change(organization, Patch(zero_data_retention=step % 2 == 0, purge=False), owner)
        taken.append(round((time.monotonic() - began) * 1000, 2))
    return taken


def _deployment(name: str) -> tuple[Deployment, Id, Id]:
    deployment, organization, project, _ = opened(name)
    return deployment, organization, project


def opened(name: str) -> tuple[Deployment, Id, Id, dict[str, str]]:
    """A deployment of its own, its first organization and project, and what was told of it once."""
    folder = OUT / "run" / name
    shutil.rmtree(folder, ignore_errors=True)
    settings = Settings(data_dir=str(folder / "data"))
    first = initialise(settings)
    deployment = open_deployment(settings)
    deployment.location.check()
    return deployment, trusted(first["organization_id"]), trusted(first["project_id"]), first


def fill(d: Deployment, organization: Id, project: Id, count: int, *, ends_in_s: int, blobs: bool = False) -> None:
    """Keep one object, and copies of its row until there are `count`."""
    now_ms = d.clock.now_ms()
    query = Query(
        organization_id=organization,
        project_id=project,
        data_class=DataClass.RELIABILITY_LOG,
        trigger=Trigger.RELIABILITY_ERROR,
        reason=Reason.UPSTREAM_5XX,
        effective=effective(Controls()),
        epoch=_epoch(d, organization),
        created_at_ms=now_ms - 30 * DAY_MS + ends_in_s * 1000,
        request=RequestControls(),
        request_id=mint(Prefix.REQUEST),
    )
    permit = decide(query)
    if not isinstance(permit, Retain):
        raise TypeError("policy does not permit the object that is to be copied")
    one = d.vault.put(Content(bytes(_BYTES)), permit)
    with d.db.read() as tx:
        row = dict(tx.execute(sa.select(kept).where(kept.c.id == one.id)).mappings().one())
    made = ((mint(Prefix.OBJECT), mint(Prefix.BLOB)) for _ in range(count - 1))
    while ids := list(islice(made, _AT_ONCE)):
        if blobs:
            _copy(Path(d.settings.data_dir) / "blobs", one, [blob for _, blob in ids])
        rows = [
            tuple(_plain(value) for value in {**row, "id": object_id, "blob": blob}.values()) for object_id, blob in ids
        ]
        with d.db.write() as tx:
            insert_many(tx, kept, _COLUMNS, rows)
            more = {"objects": kept_total.c.objects + len(ids), "bytes": kept_total.c.bytes + row["bytes"] * len(ids)}
            tx.execute(kept_total.update().values(more))


def _copy(folder: Path, one: Kept, blobs: list[Id]) -> None:
    data = next(folder.rglob(str(one.blob))).read_bytes()
    for blob in blobs:
        place = folder / blob[len(Prefix.BLOB)]
        place.mkdir(exist_ok=True)
        (place / blob).write_bytes(data)


def _plain(value: object) -> object:
    return str(value) if isinstance(value, str) else value


def _epoch(d: Deployment, organization: Id) -> int:
    return int(DataControls(Office(d.db, d.clock, Fence(d.db, d.clock), d.log)).state(organization)["epoch"])


def _count(d: Deployment) -> int:
    with d.db.read() as tx:
        return int(tx.scalar(sa.select(sa.func.count()).select_from(kept)) or 0)


class _Memory:
    """Resident size of this process: when it began, and the most while it was watched."""

    def __init__(self) -> None:
        self.before = self.most = _resident_mb()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.most = max(self.most, _resident_mb())

    def end(self) -> float:
        """The most, MB."""
        self._stop.set()
        self._thread.join()
        return self.most


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
