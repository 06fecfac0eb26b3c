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
    try:
        born = _born(os.getpid())
    except OSError:
        born = None
    return Place(_host(), os.getpid(), born) if born is not None else Place("", os.getpid(), 0)


def certainly_dead(place: Place) -> bool:
    """True only when the process ran in this boot and namespace and runs no more."""
    if not place.host or place.host != _host():
        return False
    try:
        return _born(place.pid) != place.born
    except (FileNotFoundError, ProcessLookupError):
        return _is_nobodys(place.pid)
    except OSError:  # who has no descriptor left to look with knows nothing
        return False


def _host() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
        space = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return ""
    return hashlib.sha256(f"{boot}{space}".encode("ascii")).hexdigest()[:32]


def _born(pid: int) -> int | None:
    """The start tick of a running process; None when it has died and only waits to be reaped.

    Raises `OSError`; of those `FileNotFoundError` or `ProcessLookupError` when it cannot be seen.
    """
    stat = Path(f"/proc/{pid}/stat").read_bytes()
    fields = stat[stat.rindex(b")") + 2 :].split()  # the name before it may hold anything
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def _is_nobodys(pid: int) -> bool:
    """Whether no process has it, also none that /proc does not show (mounted with hidepid)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
