"""The processes that this process has started and that are still there, also when nobody has waited for them."""

from pathlib import Path


def children() -> set[int]:
    """Their ids; those of other tests' servers among them, so compare with what there was before."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        found.update(int(pid) for pid in (task / "children").read_text().split())
    return found
