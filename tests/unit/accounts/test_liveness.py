"""A process is certainly dead only when it ran here and runs no more."""

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from keepless.accounts.liveness import Place, certainly_dead, here


def test_the_one_who_asks_is_alive() -> None:
    assert here().host and not certainly_dead(here())


def test_another_process_with_the_same_pid_is_not_the_same() -> None:
    assert certainly_dead(replace(here(), born=here().born - 1))


def test_of_another_machine_nothing_is_certain() -> None:
    assert not certainly_dead(Place("0" * 32, 4_000_000, 1))
    assert not certainly_dead(Place("", 4_000_000, 1))


def test_a_killed_process_is_dead_before_anybody_has_waited_for_it() -> None:
    code = "from keepless.accounts.liveness import here; p = here(); print(p.pid, p.born, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        pid, born = map(int, child.stdout.readline().split())
        place = Place(here().host, pid, born)
        assert not certainly_dead(place)
        child.kill()
        while not certainly_dead(place):  # a zombie: nobody has reaped it; the suite's time-out ends a failure
            pass
        assert child.returncode is None


@pytest.mark.parametrize("why", [errno.EMFILE, errno.EACCES, errno.EIO])
def test_who_cannot_look_knows_nothing(why: int, monkeypatch: pytest.MonkeyPatch) -> None:
    place = replace(here(), pid=4_194_303, born=1)  # beyond every pid there is by default
    assert certainly_dead(place)

    def read_bytes(_: Path) -> bytes:
        raise OSError(why, os.strerror(why))

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert not certainly_dead(place)


def test_a_process_that_is_not_shown_is_not_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    place = here()

    def read_bytes(_: Path) -> bytes:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert not certainly_dead(place)
