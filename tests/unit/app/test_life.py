"""A program that is started, told, watched and ended."""

import errno
import io
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from keepless import log
from keepless.app.life import begin, tell, watch


def started(code: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def test_what_it_is_told_comes_whole_and_its_end_is_seen() -> None:
    code = "import os, sys; line, _, plan = sys.stdin.buffer.read().partition(b'\\n');"
    code += "assert int(line) == os.getppid(); sys.exit(len(plan) // 100_000)"
    with started(code) as child:
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


@pytest.fixture
def said() -> Iterator[io.StringIO]:
    lines = io.StringIO()
    log.redirect(lines)
    yield lines
    log.redirect(sys.stderr)


def test_a_machine_that_can_start_nothing_is_told_and_not_an_end(said: io.StringIO) -> None:
    def start() -> "subprocess.Popen[bytes]":
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    assert begin(start, b"plan") is None
    assert "server:process:not_started" in said.getvalue()


def test_what_belongs_to_nobody_any_more_does_not_begin() -> None:
    """Its starter died between starting it and its first step; in a container that is not seen by the number 1."""
    with started("from keepless.app.life import born; born(); print('on')") as child:
        assert child.stdin is not None
        child.communicate(b"%d\nplan" % (os.getpid() + 1), timeout=90)
        assert child.returncode == 1
    with started("from keepless.app.life import born; born(); print('on')") as child:
        child.communicate(b"", timeout=90)
        assert child.returncode == 1
