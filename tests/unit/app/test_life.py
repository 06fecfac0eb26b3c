"""A program that is started, told, watched and ended."""

import subprocess
import sys
import threading

from keepless.app.life import tell, watch


def started(code: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def test_what_it_is_told_comes_whole_and_its_end_is_seen() -> None:
    with started("import sys; sys.exit(len(sys.stdin.buffer.read()) // 100_000)") as child:
        tell(child, b"x" * 700_000)
        assert watch(child, threading.Event(), 1) == 7


def test_one_that_died_before_it_was_told_is_seen_as_dead() -> None:
    with started("raise SystemExit(3)") as child:
        child.wait(90)
        tell(child, b"x" * 700_000)
        assert watch(child, threading.Event(), 1) == 3


def test_it_ends_in_order_or_is_killed() -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(99)"
    for code, ended in (("import time; print(flush=True); time.sleep(99)", -15), (deaf, -9)):
        with started(code) as child:
            assert child.stdout is not None
            child.stdout.readline()
            tell(child, b"")
            stopping = threading.Event()
            stopping.set()
            assert watch(child, stopping, 0.5 if ended == -9 else 60) is None
            assert child.returncode == ended


def test_a_program_begins_closed_and_with_its_plan() -> None:
    code = (
        "import ctypes, resource; from keepless.app.life import born; plan = born();"
        "assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0);"
        "assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0;"  # PR_GET_DUMPABLE
        "raise SystemExit(len(plan))"
    )
    with started(code) as child:
        tell(child, b"plan")
        assert watch(child, threading.Event(), 1) == 4
