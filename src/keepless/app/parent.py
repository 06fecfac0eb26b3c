"""A child ends when the process that started it does, however that ends."""

import ctypes
import os
import signal
from typing import Final

__all__ = ["die_with_parent"]

_PR_SET_PDEATHSIG: Final = 1


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGTERM at the parent's death; end now when it is dead already (prctl(2)).

    `parent`: its process id, as it said itself. Whose parent has died is given to another process, often the one with
    the id 1; but in a container that is the server, so the number alone says nothing.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(1)
