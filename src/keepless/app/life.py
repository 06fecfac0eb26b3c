"""One life of a program of ours, seen from both sides: who started it, and what it does before anything else.

Holds: `tell` and `watch` (the starter's side), `born` (the program's). Leaves out: whether it is started again (its
starters). What it is to do comes on its standard input: an argument or a variable could be read by others. The kernel
ends it with the thread that started it.
"""

import contextlib
import subprocess
import sys
import threading
from typing import Final

from keepless.app.harden import harden, raise_file_limit, silence
from keepless.app.parent import die_with_parent

__all__ = ["born", "tell", "watch"]

_LOOK_S: Final = 0.2


def tell(child: "subprocess.Popen[bytes]", plan: bytes) -> None:
    """Say what it is to do. One that has died already is found by whoever watches it."""
    if child.stdin is not None:
        with contextlib.suppress(BrokenPipeError), child.stdin as pipe:
            pipe.write(plan)


def watch(child: "subprocess.Popen[bytes]", stopping: threading.Event, stop_s: float) -> int | None:
    """Wait until it ends (its exit code), or until `stopping` (None; it has `stop_s` seconds to end in order)."""
    while not stopping.wait(_LOOK_S):
        if child.poll() is not None:
            return child.returncode
    child.terminate()
    try:
        child.wait(stop_s)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    return None


def born() -> bytes:
    """Begin as such a program: end with the starter, tell nothing; what it is to do, encoded."""
    die_with_parent()
    harden()
    silence()
    raise_file_limit()
    return sys.stdin.buffer.read()
