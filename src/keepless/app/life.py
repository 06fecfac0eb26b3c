"""One life of a program of ours, seen from both sides: who started it, and what it does before anything else.

Holds: `begin` (or `tell`) and `watch` (the starter's side), `born` (the program's). Leaves out: whether it is started
again (its starters). What it is to do comes on its standard input, behind a line with its starter's process id: an
argument or a variable could be read by others. The kernel ends it with the thread that started it.
"""

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Final

from keepless import log
from keepless.app.harden import harden, raise_file_limit, silence
from keepless.app.parent import die_with_parent

__all__ = ["begin", "born", "tell", "watch"]

Child = subprocess.Popen[bytes]
_LOOK_S: Final = 0.2


def begin(start: Callable[[], Child], plan: bytes) -> Child | None:
    """Start a program of ours and say what it is to do; None when this machine cannot start one at the moment.

    No descriptor, no memory or no process may be left: whoever keeps it running tries again after a pause.
    """
    try:
        child = start()
    except OSError as error:
        log.failure(log.Event.PROCESS_NOT_STARTED, error)
        return None
    tell(child, plan)
    return child


def tell(child: Child, plan: bytes) -> None:
    """Say what it is to do. One that has died already is found by whoever watches it."""
    if child.stdin is not None:
        with contextlib.suppress(BrokenPipeError), child.stdin as pipe:
            pipe.write(b"%d\n" % os.getpid() + plan)


def watch(child: Child, stopping: threading.Event, stop_s: float) -> int | None:
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
    harden()
    silence()
    raise_file_limit()
    starter, _, plan = sys.stdin.buffer.read().partition(b"\n")
    die_with_parent(int(starter) if starter.isdigit() else 0)
    return plan
