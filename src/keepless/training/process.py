"""The process of a training run: confined before a single library is loaded, then it works.

`python -m keepless.training.process`, started by the port with a socket as standard input. Holds: the order of the two.
Leaves out: the fences (confined), the work (work, which imports torch and is therefore loaded afterwards).
"""

import runpy
import signal
from typing import Final

from keepless.training.confined import confine

__all__ = ["main"]

_LOAD_S: Final = 300.0  # for libraries and examples to come in


def main() -> None:
    """Train what the socket says."""
    # The kernel ends this process when it does not come round any more; work sets the clock anew.
    signal.setitimer(signal.ITIMER_REAL, _LOAD_S)
    confine()
    runpy.run_module("keepless.training.work", run_name="__main__")


if __name__ == "__main__":
    main()
