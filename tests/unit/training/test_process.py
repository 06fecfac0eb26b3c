"""A real run in its own process: it gives what it gives here, leaves nothing behind, and ends when it has to."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from keepless.content import Content
from keepless.training.order import Checkpoint, Fault, Finished, Prepared, Progress, TrainingError
from keepless.training.port import training
from keepless.training.work import Told, train
from tests.support.children import children
from tests.support.learning import bare, counted, example, facts, lines, never, nothing, of_kind, order
from tests.support.tiny_gguf import tiny

ROOT = Path(__file__).parents[3]
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


def found(marker: bytes, places: list[Path], since: float) -> set[Path]:
    """Files in which the marker is, among those that somebody has written to since."""
    # Other tests write at the same time, each below a folder of its own.
    apart = " -o ".join(f"-name {name}" for name in (".venv", ".pyenv", "node_modules", "pytest-of-*")).split()
    command = ["find", *map(str, places), "(", *apart, ")", "-prune", "-o", "-type", "f"]
    listed = subprocess.run(
        [*command, "-newermt", f"@{since}", "-print0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False
    )
    hits = set()
    for name in listed.stdout.split(b"\0")[:-1]:
        with suppress(OSError):  # gone by now
            path = Path(os.fsdecode(name))
            if path.stat().st_size < 100_000_000 and marker in path.read_bytes():
                hits.add(path)
    return hits


def test_nothing_of_the_examples_is_anywhere_and_killed_it_goes_on_where_it_was(weights: str, tmp_path: Path) -> None:
    since = time.time() - 2
    data = lines([example(f"What is {MARKER}?", f"{MARKER} is a secret.")] * 4)
    places = [*PLACES, tmp_path, Path(weights).parent, Path.cwd()]
    asked = order(weights, n_epochs=5)
    whole = list(train(Told(asked, data, data, nothing()), never, counted([])))
    with training(asked, data, data) as said:
        events = [said.wait(None) for _ in range(5)]
        os.kill(said.pid, signal.SIGSTOP)  # in the middle of it
        assert found(MARKER.encode(), places, since) == set()
        for name in ("cmdline", "environ"):
            assert MARKER.encode() not in Path(f"/proc/{said.pid}/{name}").read_bytes()
        opened = [os.readlink(link) for link in Path(f"/proc/{said.pid}/fd").iterdir()]
        os.kill(said.pid, signal.SIGKILL)
        with pytest.raises(TrainingError) as caught:
            events += list(said)
    assert caught.value.fault is Fault.TRAINER_DIED
    assert [path for path in opened if path.startswith(tuple(map(str, PLACES))) and path != weights] == []
    (tmp_path / "planted").write_text(f"a leak of {MARKER}")  # the search does find
    assert found(MARKER.encode(), places, since) == {tmp_path / "planted"}
    checkpoint = of_kind(Checkpoint, events)[-1]
    assert of_kind(Progress, events) == of_kind(Progress, whole)[: len(of_kind(Progress, events))]
    with training(asked, data, data, resume=checkpoint.content) as said:
        rest = list(said)
    assert of_kind(Prepared, rest) == of_kind(Prepared, whole)
    assert of_kind(Progress, rest) == of_kind(Progress, whole)[checkpoint.step :]
    for kind in (Checkpoint, Finished):
        expected = [bare(event.content) for event in of_kind(kind, whole) if event.step > checkpoint.step]
        assert [bare(event.content) for event in of_kind(kind, rest)] == expected


@pytest.mark.long
def test_it_writes_no_file_and_calls_nobody(weights: str, tmp_path: Path) -> None:
    """Seen from the kernel, whatever a library does: what was tried, beside what was let through."""
    trace = tmp_path / "trace"
    code = (
        "import sys; from tests.support.learning import facts, order; from keepless.training.port import training\n"
        "with training(order(sys.argv[1], n_epochs=1), facts()) as said: print(len(list(said)))"
    )
    calls = (
        "openat,openat2,creat,rename,renameat2,link,linkat,mkdir,mkdirat,truncate,socket,connect,execve,memfd_create"
    )
    done = subprocess.run(
        [
            "strace",
            "--seccomp-bpf",
            "-f",
            "-qq",
            "-e",
            f"trace={calls}",
            "-o",
            str(trace),
            sys.executable,
            "-B",
            "-c",
            code,
            weights,
        ],
        env=os.environ | {"PYTHONPATH": os.pathsep.join((f"{ROOT}/src", str(ROOT)))},
        capture_output=True,
        text=True,
        timeout=280,
        check=True,
    )
    assert int(done.stdout) > 5
    lines_of = trace.read_text().splitlines()
    start = next(n for n, line in enumerate(lines_of) if "keepless.training.process" in line)
    assert any("libtorch_cpu" in line for line in lines_of[start + 1 :])  # its libraries were seen
    let_through = [
        line
        for line in lines_of[start + 1 :]
        if ("O_WRONLY" in line or "O_RDWR" in line or "O_CREAT" in line or "openat" not in line)
        and " = -1 " not in line
        and "/dev/null" not in line
        and "+++ " not in line
        and "--- SIG" not in line
    ]
    assert let_through == []


@pytest.mark.long
def test_more_memory_than_was_ordered_is_a_code(weights: str) -> None:
    with pytest.raises(TrainingError) as caught, training(order(weights, memory_mb=64), facts()) as said:
        list(said)
    assert caught.value.fault in (Fault.OUT_OF_MEMORY, Fault.TRAINER_DIED)


@pytest.mark.long
def test_without_a_sign_of_life_the_kernel_ends_it(weights: str) -> None:
    with pytest.raises(TrainingError) as caught, training(order(weights, stuck_seconds=0.001), facts()) as said:
        list(said)
    assert caught.value.fault is Fault.TRAINER_STUCK


@pytest.mark.long
def test_examples_that_are_none_are_a_code(weights: str) -> None:
    with pytest.raises(TrainingError) as caught, training(order(weights), Content(b"{}")) as said:
        list(said)
    assert caught.value.fault is Fault.EXAMPLES_UNUSABLE


@pytest.mark.long
def test_it_dies_with_the_thread_that_started_it(weights: str) -> None:
    code = (
        "import os, sys; from tests.support.learning import facts, order; from keepless.training.port import training\n"
        "with training(order(sys.argv[1], n_epochs=50), facts()) as said:\n"
        "    said.wait(None); print(said.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, weights],
        env=os.environ | {"PYTHONPATH": os.pathsep.join((f"{ROOT}/src", str(ROOT)))},
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
