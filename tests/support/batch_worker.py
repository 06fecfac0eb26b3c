"""Worker processes over a test's folder: `python -m tests.support.batch_worker`, a program that forks them.

A worker costs two seconds of imports. This program imports once and forks a worker for each line of its standard
input (`{"settings", "log"}`; the answer is its process id), tells how one ended (`{"wait": pid}`), and ends all of them
when its standard input ends. `Nursery` is the tests' side of it.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from keepless.app.harden import silence
from keepless.app.job_worker import run
from keepless.app.plan import Plan
from keepless.config import load
from keepless.jobs.port import Queue
from tests.support.batching import FewFiles


class Nursery:
    """Forks workers. Thread-safe."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.support.batch_worker"]
        self._turn = threading.Lock()
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def fork(self, settings: dict[str, Any], log: Path) -> int:
        return self._ask({"settings": settings, "log": str(log)})

    def wait(self, pid: int) -> int:
        """How a worker has ended, as `subprocess` tells it."""
        return os.waitstatus_to_exitcode(self._ask({"wait": pid}))

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _ask(self, order: dict[str, Any]) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._turn:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            return int(self._process.stdout.readline())


def _work(settings: dict[str, Any], log: str) -> int:
    """In the fork."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for old, new in ((nothing, 0), (descriptor, 1), (descriptor, 2)):
        os.dup2(old, new)
    plan = Plan(settings=load(None, {}, **settings), listening=-1, engines=[], sweeps=False, queues=tuple(Queue))
    code = run(plan, FewFiles())
    sys.stdout.flush()
    return code


def _main() -> None:
    silence()
    alive: set[int] = set()
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            alive.discard(order["wait"])
            answer = os.waitpid(order["wait"], 0)[1]
        else:
            answer = os.fork()
            if answer == 0:
                code = 1
                try:
                    code = _work(**order)
                finally:
                    os._exit(code)
            alive.add(answer)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()
    for pid in alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


if __name__ == "__main__":
    _main()
