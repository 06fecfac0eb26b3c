"""A real run in its own process: it gives what it gives here, leaves nothing behind, and ends when it has to."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepless.content import Content
from keepless.training.order import Checkpoint, Fault, Finished, Prepared, Progress, TrainingError
from keepless.training.port import training
from keepless.training.work import Told, train
from tests.support.children import children
from tests.support.learning import FACTS, bare, counted, example, facts, lines, never, nothing, of_kind, order
from tests.support.tiny_gguf import tiny

MARKER = "walrus-cobalt-5530"
PLACES = [Path(place) for place in ("/tmp", "/var/tmp", "/dev/shm", "/run", str(Path.home()))]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny(tmp_path_factory.mktemp("weights"))


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    before = children()
    yield
    assert children() <= before


def test_the_process_gives_what_is_given_here(weights: str) -> None:
    asked = order(weights)
    with training(asked, facts(), facts(FACTS[:2])) as said:
        events = list(said)
    here = list(train(Told(asked, facts(), facts(FACTS[:2]), nothing()), never, counted([])))
    assert of_kind(Prepared, events) == of_kind(Prepared, here)
    assert of_kind(Progress, events) == of_kind(Progress, here)
    for kind in (Checkpoint, Finished):
        assert [bare(e.content) for e in of_kind(kind, events)] == [bare(e.content) for e in of_kind(kind, here)]


def test_killed_anywhere_it_goes_on_from_its_checkpoint(weights: str) -> None:
    asked = order(weights, n_epochs=3)
    whole = list(train(Told(asked, facts(), nothing(), nothing()), never, counted([])))
    with training(asked, facts()) as said:
        event = next(event for event in said if isinstance(event, Checkpoint) and event.step == 4)
        os.kill(said.pid, signal.SIGKILL)
        with pytest.raises(TrainingError) as caught:
            list(said)
    assert caught.value.fault is Fault.TRAINER_DIED
    with training(asked, facts(), resume=event.content) as said:
        rest = list(said)
    assert of_kind(Progress, rest)[0].step == 5
    assert bare(of_kind(Finished, rest)[0].content) == bare(of_kind(Finished, whole)[0].content)


def found(marker: bytes, places: list[Path], since: float) -> list[Path]:
    """Files in which the marker is, among those that somebody has written to since."""
    hits = []
    for place in places:
        for root, folders, names in os.walk(place):
            folders[:] = [name for name in folders if name not in (".venv", "node_modules")]
            for name in names:
                path = Path(root, name)
                try:
                    if path.stat().st_mtime >= since and path.is_file() and marker in path.read_bytes():
                        hits.append(path)
                except OSError:
                    continue
    return hits


def test_nothing_of_the_examples_is_anywhere_while_it_trains_and_after(weights: str, tmp_path: Path) -> None:
    since = time.time() - 2
    data = lines([example(f"What is {MARKER}?", f"{MARKER} is a secret.")] * 4)
    places = [*PLACES, tmp_path, Path(weights).parent, Path.cwd()]
    with training(order(weights, n_epochs=50, checkpoint_seconds=0), data, data) as said:
        events = [said.wait(None) for _ in range(5)]
        assert found(MARKER.encode(), places, since) == []
        for name in ("cmdline", "environ"):
            assert MARKER.encode() not in Path(f"/proc/{said.pid}/{name}").read_bytes()
        opened = [os.readlink(link) for link in Path(f"/proc/{said.pid}/fd").iterdir()]
    assert any(isinstance(event, Checkpoint) for event in events)
    assert [path for path in opened if not path.startswith(("socket:", "/dev/null", "anon_inode:", weights))] == []
    assert found(MARKER.encode(), places, since) == []
    (tmp_path / "planted").write_text(f"a leak of {MARKER}")
    assert found(MARKER.encode(), places, since) == [tmp_path / "planted"]  # the search does find


def test_it_writes_no_file_and_calls_nobody(weights: str, tmp_path: Path) -> None:
    """Seen from the kernel, whatever a library does: what was tried, beside what was let through."""
    trace = tmp_path / "trace"
    code = (
        "import sys; from tests.support.learning import *; from keepless.training.port import training\n"
        "with training(order(sys.argv[1], n_epochs=1), facts()) as said: print(len(list(said)))"
    )
    calls = (
        "openat,openat2,creat,rename,renameat2,link,linkat,mkdir,mkdirat,truncate,socket,connect,execve,memfd_create"
    )
    done = subprocess.run(
        ["strace", "-f", "-qq", "-e", f"trace={calls}", "-o", str(trace), sys.executable, "-B", "-c", code, weights],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=280,
        check=True,
    )
    assert int(done.stdout) > 5
    lines_of = trace.read_text().splitlines()
    start = next(n for n, line in enumerate(lines_of) if "keepless.training.process" in line)
    let_through = [
        line
        for line in lines_of[start + 1 :]
        if ("O_WRONLY" in line or "O_RDWR" in line or "O_CREAT" in line or "openat" not in line)
        and " = -1 " not in line
        and "/dev/null" not in line
    ]
    assert let_through == []


def test_more_memory_than_was_ordered_is_a_code(weights: str) -> None:
    with pytest.raises(TrainingError) as caught, training(order(weights, memory_mb=64), facts()) as said:
        list(said)
    assert caught.value.fault in (Fault.OUT_OF_MEMORY, Fault.TRAINER_DIED)


def test_without_a_sign_of_life_the_kernel_ends_it(weights: str) -> None:
    with pytest.raises(TrainingError) as caught, training(order(weights, stuck_seconds=0.001), facts()) as said:
        list(said)
    assert caught.value.fault is Fault.TRAINER_STUCK


def test_examples_that_are_none_are_a_code(weights: str) -> None:
    with pytest.raises(TrainingError) as caught, training(order(weights), Content(b"{}")) as said:
        list(said)
    assert caught.value.fault is Fault.EXAMPLES_UNUSABLE


def test_it_dies_with_the_thread_that_started_it(weights: str) -> None:
    code = (
        "import os, sys, time; from tests.support.learning import *; from keepless.training.port import training\n"
        "with training(order(sys.argv[1], n_epochs=50), facts()) as said:\n"
        "    said.wait(None); print(said.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, weights],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    pid = int(done.stdout)
    deadline = time.monotonic() + 90
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
