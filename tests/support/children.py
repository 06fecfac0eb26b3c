"""Processes that were started and are still there, also when nobody has waited for them; and what they do."""

from pathlib import Path


def children() -> set[int]:
    """Their ids; those of other tests' servers among them, so compare with what there was before."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        found.update(int(pid) for pid in (task / "children").read_text().split())
    return found


def worked(pid: int) -> int:
    """Ticks of the processor that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def runs(pid: int, program: bytes) -> bool:
    """Whether a process was started as this program."""
    try:
        return program in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
