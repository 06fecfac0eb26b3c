"""An engine that starts when somebody connects: crashes, what is stuck, queues, rest, and clients that leave."""

import asyncio
import contextlib
import io
import os
import select
import signal
import socket
import stat
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from keepless import log
from keepless.inference.backend import FailureKind
from keepless.inference.embedded import supervised
from keepless.inference.embedded.activated import ActivatedProcess
from keepless.inference.embedded.engine import FINAL, Word
from keepless.inference.embedded.frames import Kind, frame, pack
from keepless.inference.embedded.pulse import Pulses, State
from keepless.inference.embedded.socket_backend import SocketBackend
from tests.support.activated import asked, echo, model, told, way_to
from tests.support.sinks import Recorder

SECRET = b"pelican-umber-3316"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ActivatedProcess]:
    with echo(tmp_path_factory.mktemp("echo")) as process:
        yield process


@pytest.fixture
def said() -> Iterator[io.StringIO]:
    """What the log says meanwhile."""
    stream = io.StringIO()
    before = log._sink.stream
    log.redirect(stream)
    yield stream
    log.redirect(before)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def run(main: Coroutine) -> None:
    uvloop.run(main)


async def room_again(backend: SocketBackend) -> None:
    """Until there is room at the engine."""
    for _ in range(3000):
        if (await told(backend, "echo")).kind is not FailureKind.BUSY:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("still busy")


def test_the_first_request_starts_it(tmp_path: Path, said: io.StringIO) -> None:
    with echo(tmp_path) as process:
        assert process.pid is None
        assert stat.S_IMODE(process.socket.stat().st_mode) == 0o600
        costs = []

        async def main() -> None:
            made = way_to(process)
            assert made.healthy
            answer = await told(made, "echo", SECRET, metered=lambda *cost: costs.append(cost))
            assert (answer.calls, answer.status, answer.content_type) == (["head", "data", "end"], 200, b"text/plain")
            assert answer.body == SECRET
            await made.close()

        run(main())
        assert costs == [(1, 2, 3)]
        assert process.ready
        pid = process.pid
        assert pid is not None
        assert os.getpgid(pid) == pid
        process.stop()
        process.stop()
        assert not process.socket.exists()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert SECRET.decode() not in said.getvalue()


def test_a_machine_that_can_start_nothing_at_the_moment_is_asked_again(
    tmp_path: Path, said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawn, tries = supervised._spawn, iter((OSError(11, "no process is left"), OSError(24, "no descriptor is left")))

    def spawned(*arguments: Any) -> int:
        for error in tries:
            raise error
        return spawn(*arguments)

    monkeypatch.setattr(supervised, "_spawn", spawned)
    with echo(tmp_path) as process:

        async def main() -> None:
            made = way_to(process)
            assert (await told(made, "echo", SECRET)).body == SECRET
            await made.close()

        run(main())
    assert said.getvalue().count("server:process:not_started") == 2


def test_preloaded_it_starts_at_once(tmp_path: Path) -> None:
    with echo(tmp_path, preload=True) as process:
        assert process.wait_ready(60)


@pytest.mark.parametrize("how", ["kill", "exit"])
def test_a_crash_fails_what_was_in_work_and_the_next_request_is_answered(
    tmp_path: Path, said: io.StringIO, how: str
) -> None:
    with echo(tmp_path) as process:

        async def main() -> None:
            made, running = way_to(process), Recorder()
            made.start(asked("hold" if how == "kill" else "exit", SECRET), running)
            await running.until(lambda r: r.body) if how == "kill" else await running.over()
            if how == "kill":
                os.kill(process.pid or 0, signal.SIGKILL)
            await running.over()
            assert (running.kind, running.calls[-1]) == (FailureKind.CRASHED, "failure")
            assert (await told(made, "echo")).body == b"hello"  # waited for the next child
            assert made.healthy
            await made.close()

        run(main())
        assert process.restarts == 1
    assert SECRET.decode() not in said.getvalue()


@pytest.mark.parametrize("how", ["stuck", "stuck-with-lock"])
def test_what_is_stuck_ends_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    with echo(tmp_path, first_byte_timeout=2) as process:

        async def main() -> None:
            made = way_to(process)
            assert (await told(made, "echo")).calls[-1] == "end"
            assert (await told(made, how)).kind is FailureKind.CRASHED
            assert (await told(made, "echo")).calls[-1] == "end"
            await made.close()

        run(main())
        assert process.restarts == 1


def test_it_is_told_how_the_engine_is(tmp_path: Path) -> None:
    pulses = Pulses(1)
    with echo(tmp_path, idle_stop=0.2, pulse=pulses[0]) as process:
        assert pulses[0].state is State.RESTING

        async def main() -> None:
            made, running = way_to(process), Recorder()
            made.start(asked("hold"), running)
            await running.until(lambda r: r.body)
            assert pulses[0].state is State.RUNNING
            os.kill(process.pid or 0, signal.SIGKILL)
            await asyncio.to_thread(until, lambda: pulses[0].state is State.CRASHED)  # until somebody asks again
            await running.over()
            assert (await told(made, "echo")).calls[-1] == "end"
            assert pulses[0].crashes == 1
            await asyncio.to_thread(until, lambda: pulses[0].state is State.RESTING)
            await made.close()

        run(main())
    os.close(pulses.fd)


@pytest.mark.parametrize("word", sorted(FINAL))
def test_an_engine_that_is_not_here_is_told_as_missing_for_good(tmp_path: Path, word: Word) -> None:
    pulses = Pulses(1)
    with echo(tmp_path, preload=True, path=word.value, pulse=pulses[0]):
        until(lambda: pulses[0].state is State.MISSING)
    os.close(pulses.fd)


def test_with_nothing_to_do_it_ends_and_starts_again_without_a_pause(tmp_path: Path, said: io.StringIO) -> None:
    with echo(tmp_path, idle_stop=0.1) as process:

        async def main() -> None:
            made = way_to(process)
            assert (await told(made, "echo")).calls[-1] == "end"
            await asyncio.to_thread(until, lambda: process.pid is None)
            assert (await told(made, "echo")).calls[-1] == "end"
            await made.close()

        run(main())
        assert process.restarts == 0
    assert "engine:process:rests" in said.getvalue()
    assert "engine:process:died" not in said.getvalue()


def test_a_queue_that_is_full_is_busy_at_the_engine_and_before_it(shared: ActivatedProcess) -> None:
    async def main() -> None:
        mine, other = way_to(shared), way_to(shared)
        recorders = [Recorder() for _ in range(4)]
        exchanges = [mine.start(asked("hold"), recorder) for recorder in recorders]
        for recorder in recorders[:2]:
            await recorder.until(lambda r: r.body)
        before = await told(mine, "echo")
        assert (before.kind, before.failure.retry_after_s) == (FailureKind.BUSY, 1)
        at_engine = await told(other, "echo", b"x" * 900_000)  # more than a socket holds
        assert (at_engine.kind, at_engine.failure.retry_after_s) == (FailureKind.BUSY, 1)
        assert recorders[2].calls == recorders[3].calls == []
        assert mine.healthy
        for exchange in exchanges:
            exchange.cancel()
            exchange.cancel()
        await room_again(other)
        await mine.close()
        await other.close()

    run(main())


def test_a_client_that_left_is_noticed_by_the_work(shared: ActivatedProcess) -> None:
    """More clients leave than there is room for, and the process stays."""

    async def main() -> None:
        made = way_to(shared)
        assert (await told(made, "echo")).calls[-1] == "end"
        pid = shared.pid
        for _ in range(6):
            running = Recorder()
            exchange = made.start(asked("hold"), running)
            await running.until(lambda r: r.body)
            running.forbidden = True
            exchange.cancel()
        await room_again(made)
        assert shared.pid == pid
        await made.close()

    run(main())


def test_work_that_does_not_give_up_when_its_only_client_left_ends_with_the_process(tmp_path: Path) -> None:
    with echo(tmp_path) as process:

        async def main() -> None:
            made, running = way_to(process), Recorder()
            exchange = made.start(asked("stuck"), running)
            await running.until(lambda r: r.body)
            first = process.pid
            exchange.cancel()
            await asyncio.to_thread(until, lambda: process.pid != first)
            assert (await told(made, "echo")).calls[-1] == "end"
            await made.close()

        run(main())
        assert process.restarts == 0


def test_who_leaves_while_waiting_gives_the_place_to_another(tmp_path: Path) -> None:
    """Seen while the work in front goes on. Connections are judged in order: with the third, the others were."""
    with echo(tmp_path, parallel=1, queue=2) as process, contextlib.ExitStack() as open_to_the_end:

        def comes(header: bytes, stack: contextlib.ExitStack) -> socket.socket:
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.settimeout(90)
            sock.connect(str(process.socket))
            sock.sendall(frame(Kind.KEY, process.key.encode()) + pack(header, b"x"))
            return sock

        working = comes(b"hold", open_to_the_end)
        assert working.recv(1) == bytes([Kind.HEAD])
        pid = process.pid
        for attempt in range(3000):
            with contextlib.ExitStack() as stack:
                first, second, third = (comes(b"echo", stack) for _ in range(3))
                ready = select.select([first, second, third], [], [], 90)[0]
                if attempt and ready == [third]:  # turned away, and the two before it, whose places others left, not
                    working.close()
                    assert [first.recv(1), second.recv(1)] == [bytes([Kind.HEAD])] * 2
                    assert process.pid == pid
                    return
        raise AssertionError("the places of those who left are not free")


@pytest.mark.parametrize(
    ("what", "calls", "kind"),
    [
        ("raise", ["failure"], FailureKind.CRASHED),
        ("memory", ["failure"], FailureKind.CRASHED),
        ("raise-late", ["head", "data", "failure"], FailureKind.CRASHED),
    ],
)
def test_an_exception_fails_one_request(
    shared: ActivatedProcess, what: str, calls: list[str], kind: FailureKind
) -> None:
    async def main() -> None:
        made = way_to(shared)
        assert (await told(made, "echo")).calls[-1] == "end"
        pid = shared.pid
        answer = await told(made, what, SECRET)
        assert (answer.calls, answer.kind) == (calls, kind)
        assert shared.pid == pid
        await made.close()

    run(main())


def test_a_refusal_is_an_answer(shared: ActivatedProcess) -> None:
    async def main() -> None:
        made = way_to(shared)
        answer = await told(made, "refuse", SECRET)
        assert (answer.status, answer.content_type, answer.calls[-1]) == (400, b"application/json", "end")
        assert answer.json["error"]["param"] == "file"
        assert SECRET not in answer.body
        await made.close()

    run(main())


def test_a_slow_client_is_waited_for(shared: ActivatedProcess) -> None:
    async def main() -> None:
        made, running = way_to(shared), Recorder()
        exchange = made.start(asked("flood", b"x" * 1000), running)
        await running.until(lambda r: r.body)
        exchange.pause()
        await asyncio.sleep(0)
        heard = len(running.body)
        await asyncio.sleep(0.3)
        assert len(running.body) == heard < 3_000_000
        exchange.resume()
        await running.over()
        assert len(running.body) == 1000 + 64 * 100_000
        await made.close()

    run(main())


def test_what_policy_withdraws_is_not_sent(shared: ActivatedProcess) -> None:
    async def main() -> None:
        made = way_to(shared)
        assert (await told(made, "exit", permitted=lambda: False)).kind is FailureKind.WITHDRAWN
        assert (await told(made, "echo")).calls[-1] == "end"
        await made.close()

    run(main())


def test_another_key_or_another_order_is_not_answered(shared: ActivatedProcess) -> None:
    key = frame(Kind.KEY, shared.key.encode())
    header, content = frame(Kind.HEADER, b"echo"), frame(Kind.CONTENT, b"x")
    for wrong in (
        frame(Kind.KEY, b"another") + header + content,
        key + content + header,
        header + key + content,
        key + header + frame(Kind.CONTENT, b"x" * 1_000_001),
        b"GET / HTTP/1.1\r\n\r\n",
    ):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(60)
            sock.connect(str(shared.socket))
            with contextlib.suppress(ConnectionError):
                sock.sendall(wrong)
            with contextlib.suppress(ConnectionError):
                assert sock.recv(100) == b""


def test_the_child_has_nothing_of_ours(shared: ActivatedProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        made = way_to(shared)
        _, names, errors, limits = (await told(made, "seen")).body.decode().split("|")
        assert set(names.split(",")) - {"LC_CTYPE"} == {
            "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_OFFLINE", "LANG", "OMP_WAIT_POLICY", "ORT_DISABLE_TELEMETRY", "PATH",
            "OPENBLAS_NUM_THREADS", "PYTHONPATH",
        }  # fmt: skip
        assert errors == "/dev/null"
        table = {line[:26].strip(): line[26:].split()[:2] for line in limits.splitlines()}
        assert table["Max core file size"] == ["0", "0"]
        assert table["Max data size"] == [str(2048 * 1024 * 1024)] * 2
        await made.close()

    run(main())
    folder = Path(f"/proc/{shared.pid}")
    assert shared.key not in (folder / "cmdline").read_text()
    assert (folder / "mem").stat().st_uid == 0  # not dumpable


def test_what_will_never_start_is_missing(tmp_path: Path, said: io.StringIO) -> None:
    with echo(tmp_path, path=Word.WEIGHTS_CHANGED.value) as process:

        async def main() -> None:
            made = way_to(process)
            for _ in range(2):
                answer = await told(made, "echo")
                assert answer.kind is FailureKind.MISSING
                assert not made.healthy
            await made.close()

        run(main())
        assert (process.word, process.restarts) == (Word.WEIGHTS_CHANGED, 0)


def test_while_it_does_not_come_up_requests_are_turned_away(
    tmp_path: Path, said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keepless.inference.embedded.supervised._FIRST_DELAY_S", 30.0)
    with echo(tmp_path, path=Word.NOT_LOADED.value) as process:

        async def main() -> None:
            made = way_to(process)
            assert (await told(made, "echo")).kind is FailureKind.BUSY
            assert made.healthy
            await made.close()

        run(main())


def test_without_a_supervisor_it_is_busy_and_not_healthy(tmp_path: Path) -> None:
    async def main() -> None:
        made = SocketBackend(model(), tmp_path / "none.sock", "key")
        answer = await told(made, "echo")
        assert (answer.kind, made.healthy) == (FailureKind.BUSY, False)
        gone = SocketBackend(model(), tmp_path / "none.sock", "key", missing=True)
        assert not gone.healthy
        assert (await told(gone, "echo")).kind is FailureKind.MISSING
        await made.close()

    run(main())


def test_an_engine_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keepless.inference.embedded.socket_backend._MARGIN_S", 0.1)

    async def main() -> None:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(tmp_path / "s"))
            listening.listen()
            made = SocketBackend(model(first_byte_timeout=0.1), tmp_path / "s", "key")
            assert (await told(made, "echo")).kind is FailureKind.TIMEOUT_FIRST_BYTE
            await made.close()

    run(main())
