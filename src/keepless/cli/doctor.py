"""`keepless doctor`: what about this machine or folder would weaken a promise, and what to do about it.

Holds: the checks, each a small function that looks and changes nothing. A `problem` breaks a promise (exit 1); a
`warning` is a choice that the operator should know of. Leaves out: repairs.
"""

import resource
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click
import sqlalchemy as sa

from keepless.accounts.tables import change
from keepless.app.compose import Deployment, open_deployment
from keepless.cli.options import store_command
from keepless.cli.outcome import FindingError
from keepless.cli.output import Screen
from keepless.clock import Clock, SystemClock
from keepless.config import ModelConfig, Settings, UpstreamRetention
from keepless.db import Database
from keepless.errors import ConfigError
from keepless.training.port import is_missing
from keepless.vault.states import PurgeState, TombstoneState
from keepless.vault.tables import kept, purge, tombstone

__all__ = ["Finding", "Grade", "doctor"]

_LATE_MS: Final = 60_000  # due to destroyed within a minute is the goal; later means no sweep is running
_SKEW_MS: Final = 60_000


class Grade(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at."""

    check: str
    grade: Grade
    detail: str


@click.command()
@store_command
def doctor(screen: Screen, settings: Settings, /) -> None:
    """Look for what would weaken a promise: rights, keyring, database, location, purges, clock, memory on disk."""
    if not Path(settings.data_dir).is_dir():
        raise ConfigError("there is no data folder here; run keepless init or keepless serve first")
    findings = [*machine(), *folder(settings), *models(settings.models)]
    deployment = open_deployment(settings)
    try:
        findings += stores(deployment)
    finally:
        deployment.close()
    bad = [finding for finding in findings if finding.grade is Grade.PROBLEM]
    answer = {
        "object": "doctor",
        "ok": not bad,
        "checks": [{"check": f.check, "grade": f.grade.value, "detail": f.detail} for f in findings],
    }
    if bad and screen.json:
        raise FindingError("there are problems", answer)
    screen.rows(answer, "Doctor", ("check", "grade", "detail"), [(f.check, f.grade.value, f.detail) for f in findings])
    if bad:
        raise FindingError("there are problems", {"error": {"message": "there are problems"}})


def machine(proc: Path = Path("/proc")) -> Iterator[Finding]:
    """What the machine may write to disk of a process's memory, and whether it can train."""
    soft, _ = resource.getrlimit(resource.RLIMIT_CORE)
    pattern = _read(proc / "sys/kernel/core_pattern")
    if soft == 0 and not pattern.startswith("|"):
        yield Finding("core dumps", Grade.OK, "off for this user")
    else:
        yield Finding(
            "core dumps",
            Grade.WARNING,
            "the system may take core dumps; Keepless forbids its own processes to make any, other tools are yours",
        )
    swaps = _read(proc / "swaps").splitlines()[1:]
    if swaps:
        yield Finding("swap", Grade.WARNING, "swap is on: memory may reach a disk; encrypt it or switch it off")
    else:
        yield Finding("swap", Grade.OK, "off")
    trains = "not installed here (the extra finetune): trainings wait for a machine that takes --queues fine_tuning"
    yield Finding("fine-tuning", Grade.OK, trains if is_missing() else "this machine can train")


def folder(settings: Settings) -> Iterator[Finding]:
    """Rights of the data folder and the keyring, and whether they share a device."""
    data = Path(settings.data_dir)
    yield from _rights("data folder", data, 0o700)
    keyring = _local(settings.keyring)
    if keyring is None or not keyring.is_dir():
        yield Finding("keyring", Grade.PROBLEM, "there is no keyring: everything kept is unreadable without it")
        return
    yield from _rights("keyring", keyring, 0o700)
    loose = [path for path in keyring.iterdir() if path.is_file() and path.stat().st_mode & 0o077]
    if loose:
        yield Finding("keyring files", Grade.PROBLEM, f"{len(loose)} can be read by others: chmod 600 them")
    else:
        yield Finding("keyring files", Grade.OK, "for this user only")
    if keyring.stat().st_dev == data.stat().st_dev:
        yield Finding(
            "keyring device",
            Grade.WARNING,
            "on the same device as the data: whoever copies the disk has both; set keyring_url to another one",
        )
    else:
        yield Finding("keyring device", Grade.OK, "not the data's")


def models(offered: Iterable[ModelConfig]) -> Iterator[Finding]:
    """What the upstreams of each model promise, and whether the promises leave anybody to fall back on."""
    for model in offered:
        upstreams = model.all_upstreams()
        zero = sum(upstream.retention is UpstreamRetention.ZERO for upstream in upstreams)
        regions = {upstream.region for upstream in upstreams if upstream.region is not None}
        wrong = []
        if upstreams and zero == 0:
            wrong.append("none promises zero retention: organizations under Zero Data Retention cannot use it")
        elif zero == 1 and len(upstreams) > 1:
            wrong.append("only one promises zero retention: under Zero Data Retention there is no failover")
        if any(upstream.retention is UpstreamRetention.UNKNOWN for upstream in upstreams):
            wrong.append("a retention is not declared (unknown)")
        open_ = [upstream for upstream in upstreams if _in_the_open(upstream.base_url)]
        if open_:
            wrong.append(f"{len(open_)} asked over plain http on another machine: requests can be read on the way")
        says = (
            f"{len(upstreams)} upstreams, {zero} with zero retention, regions: {', '.join(sorted(regions)) or 'none'}"
        )
        says = says if upstreams else "embedded: runs here and keeps nothing"
        yield Finding(f"model {model.id}", Grade.WARNING if wrong else Grade.OK, "; ".join([says, *wrong]))


def stores(deployment: Deployment) -> Iterator[Finding]:
    """What the database and the location say of themselves."""
    yield from database(deployment.db)
    report = deployment.location.check()
    why = ", ".join(finding.value for finding in report.refusing)
    says = report.region or "this machine, region undeclared"
    yield Finding("location", Grade.OK if report.holds else Grade.PROBLEM, says if report.holds else f"{says}: {why}")
    yield from purges(deployment.db, deployment.clock)
    yield from clock(deployment.db, SystemClock())


def database(db: Database) -> Iterator[Finding]:
    """Whether deleted rows are overwritten."""
    if not db.sqlite:
        yield Finding(
            "database", Grade.WARNING, "PostgreSQL keeps deleted rows until VACUUM and in backups; destroyed keys bind"
        )
        return
    with db.read() as tx:
        on = tx.exec_driver_sql("PRAGMA secure_delete").scalar() == 1
    yield Finding("secure_delete", Grade.OK if on else Grade.PROBLEM, "on" if on else "off: deleted rows stay on disk")


def purges(db: Database, now: Clock) -> Iterator[Finding]:
    """Whether something due is still there."""
    now_ms = now.now_ms()
    with db.read() as tx:
        running = _count(tx, sa.select(purge.c.id).where(purge.c.state == PurgeState.RUNNING))
        unfinished = _count(tx, sa.select(tombstone.c.object_id).where(tombstone.c.state == TombstoneState.DESTROYING))
        late = _count(tx, sa.select(kept.c.id).where(kept.c.expires_at < now_ms - _LATE_MS, kept.c.hold_id.is_(None)))
    yield Finding("purges", Grade.OK, f"{running} running")
    for name, number, advice in (
        ("unfinished deletions", unfinished, "the next sweep finishes them"),
        ("overdue objects", late, "not served any more, not yet destroyed: is a sweep running?"),
    ):
        yield Finding(name, Grade.WARNING if number else Grade.OK, f"{number}; {advice}" if number else "none")


def clock(db: Database, system: Clock) -> Iterator[Finding]:
    """Whether the operating system's clock stands behind what was already seen (DECISIONS 15)."""
    with db.read() as tx:
        floor = tx.execute(sa.select(change.c.clock_floor)).scalar() or 0
    if floor > system.now_ms() + _SKEW_MS:
        yield Finding(
            "clock", Grade.PROBLEM, "behind the latest time already seen; set it right, expiry uses the later"
        )
    else:
        yield Finding("clock", Grade.OK, "not behind the latest time seen")


def _count(tx: sa.Connection, query: sa.Select[tuple[object]]) -> int:
    return tx.execute(sa.select(sa.func.count()).select_from(query.subquery())).scalar() or 0


def _rights(name: str, path: Path, mode: int) -> Iterator[Finding]:
    found = stat.S_IMODE(path.stat().st_mode)
    if found & ~mode:
        yield Finding(name, Grade.PROBLEM, f"mode {found:o}: others may enter; chmod {mode:o} it")
    else:
        yield Finding(name, Grade.OK, "for this user only")


def _in_the_open(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "::1", "localhost")


def _local(url: str) -> Path | None:
    parts = urlsplit(url)
    return Path(parts.path) if parts.scheme == "file" else None


def _read(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""
