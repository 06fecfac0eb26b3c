"""What a process does to itself before it touches customer content: no core dump, no debugger, private files."""

import ctypes
import os
import resource
from typing import Final

__all__ = ["harden", "raise_file_limit"]

_PR_SET_DUMPABLE: Final = 4


def harden() -> None:
    """Forbid core dumps and tracing by other processes of the same user; new files are for this user only."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    os.umask(0o077)


def raise_file_limit() -> None:
    """Allow as many open sockets as the system lets us."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
