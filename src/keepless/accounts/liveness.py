"""Whether a process of this machine is certainly dead, so that a change of policy need not wait for it.

Holds: `Place`, `here`, `certainly_dead`. A process is named by the boot and process-id namespace it lives in, its pid
and the kernel's start tick of that pid (proc(5)), because pids are used again. Of another machine, or without /proc,
nothing is certain: then the fence waits for the lease to end.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Place", "certainly_dead", "here"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process lives. `host` is "" when it cannot be told."""

    host: str
    pid: int
    born: int


def here() -> Place:
    """The process that asks."""
    born = _born(os.getpid())
    return Place(_host(), os.getpid(), born) if born is not None else Place("", os.getpid(), 0)


def certainly_dead(place: Place) -> bool:
    """True only when the process ran in this boot and namespace and runs no more."""
    return bool(place.host) and place.host == _host() and _born(place.pid) != place.born


def _host() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
        space = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return ""
    return hashlib.sha256(f"{boot}{space}".encode("ascii")).hexdigest()[:32]


def _born(pid: int) -> int | None:
    """The start tick of a running process; None when there is none or it has died and only waits to be reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()  # the name before it may hold anything
    return None if fields[0] in (b"Z", b"X") else int(fields[19])
