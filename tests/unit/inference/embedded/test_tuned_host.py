"""Workers and the host of tuned models: a model is held for as long as a request needs it, whoever leaves, however."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import uvloop

from keepless.config import FineTuning, ModelConfig
from keepless.content import Content
from keepless.inference.backend import FailureKind
from keepless.inference.embedded.engine import Held, Hold
from keepless.inference.embedded.tuned import NotHeldError, TunedEngines
from keepless.inference.embedded.tuned_backend import HostAt, TunedBackend
from keepless.inference.embedded.tuned_host import TunedHost
from keepless.inference.embedded.tuned_process import in_memory
from tests.support.engine import LONG, MODEL, chat
from tests.support.sinks import Recorder, ask, call, until
from tests.support.tuned import base, saying

WORDS = {"a": "zebra", "b": "cobalt"}
SETTINGS = FineTuning(served_models=2, served_memory_mb=100_000)
BASE = msgspec.structs.replace(MODEL, parallel=2, queue=2)


@dataclass
class Rig:
    engines: TunedEngines
    host: TunedHost
    at: HostAt
    refused: dict[str, FailureKind] = field(default_factory=dict)
    backends: list[TunedBackend] = field(default_factory=list)

    def backend(self, model: str, **more) -> TunedBackend:
        made = TunedBackend(self.at, model, BASE, load_seconds=60.0, generation=lambda: 7, news_s=0.1, **more)
        self.backends.append(made)
        return made


@asynccontextmanager
async def rig(folder: Path, settings: FineTuning = SETTINGS) -> AsyncIterator[Rig]:
    def adapter(model: str, _: ModelConfig) -> int:
        return in_memory(Content(saying(WORDS[model])), base())

    async def base_of(model: str, generation: int) -> ModelConfig:
        assert generation == 7
        if model in made.refused:
            raise NotHeldError(made.refused[model])
        return BASE

    (folder / "run").mkdir(mode=0o700)
    at = HostAt(str(folder / "run" / "host.sock"), "the-key")
    engines = TunedEngines(settings, folder / "run", "e", adapter)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(at.socket)
    listening.listen()
    made = Rig(engines, TunedHost(engines, at.key, base_of), at)
    server = await made.host.serve(listening)
    try:
        yield made
    finally:
        for backend in made.backends:
            await backend.close()
        await until(lambda: made.host.connections == 0)
        server.close()
        await engines.close()


def run(main: Coroutine) -> None:
    uvloop.run(main)


def text(recorder: Recorder) -> str:
    return recorder.json["choices"][0]["message"]["content"]


def test_each_model_says_its_own_and_is_let_go_of(tmp_path: Path) -> None:
    async def main() -> None:
        async with rig(tmp_path) as made:
            a, b = made.backend("a"), made.backend("b")
            asked = chat(max_tokens=4, temperature=0)
            answers = await asyncio.gather(ask(a, asked), ask(b, asked), ask(a, asked))
            assert [text(one).split() for one in answers] == [["zebra"] * 4, ["cobalt"] * 4, ["zebra"] * 4]
            assert a.idle and b.idle and a.healthy
            await until(lambda: made.host.connections == 0)
            assert sorted(made.engines.models) == ["a", "b"]  # still loaded, held by nobody
            await stream_cut_short(made, a)
            await killed(made, a)
            await ended_for_a_reason_that_is_read_meanwhile(made, a)
            await ended_while_it_answers(made, a)

    async def stream_cut_short(made: Rig, a: TunedBackend) -> None:
        recorder = Recorder()
        exchange = a.start(call(chat(stream=True, response_format=LONG)), recorder)
        await recorder.until(lambda r: "data" in r.calls)
        exchange.pause()
        exchange.resume()
        recorder.forbidden = True
        exchange.cancel()
        await until(lambda: made.host.connections == 0)
        assert a.idle

    async def killed(made: Rig, a: TunedBackend) -> None:
        recorder = Recorder()
        a.start(call(chat(stream=True, response_format=LONG)), recorder)
        await recorder.until(lambda r: "data" in r.calls)
        process = await made.engines.hold("a", BASE)
        os.kill(process.pid, signal.SIGKILL)
        await recorder.over()
        assert recorder.kind is FailureKind.CRASHED
        await until(lambda: "a" not in made.engines.models)
        assert text(await ask(a, chat(max_tokens=2, temperature=0))).split() == ["zebra"] * 2  # loaded anew

    async def ended_for_a_reason_that_is_read_meanwhile(made: Rig, a: TunedBackend) -> None:
        recorder = Recorder()
        exchange = a.start(call(chat(stream=True, response_format=LONG)), recorder)
        await recorder.until(lambda r: "data" in r.calls)
        made.engines.end("a")
        await until(lambda: "a" not in made.engines.models)
        recorder.forbidden = True
        exchange.cancel()
        await asyncio.sleep(2 * a.news_s)
        assert a.idle

    async def ended_while_it_answers(made: Rig, a: TunedBackend) -> None:
        recorder = Recorder()
        a.start(call(chat(stream=True, response_format=LONG)), recorder)
        await recorder.until(lambda r: "data" in r.calls)
        made.engines.end("a")
        made.refused["a"] = FailureKind.WITHDRAWN
        await recorder.over()
        assert recorder.kind is FailureKind.CRASHED  # unless policy says before what it is about
        assert (await ask(a, chat())).kind is FailureKind.WITHDRAWN

    run(main())


def test_who_leaves_while_it_is_loaded_leaves_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with rig(tmp_path) as made:
            a = made.backend("a")
            recorder = Recorder()
            exchange = a.start(call(chat()), recorder)
            await until(lambda: made.engines.models == ["a"])
            recorder.forbidden = True
            exchange.cancel()
            await until(lambda: made.host.connections == 0)
            assert a.idle

    run(main())


def test_more_than_a_worker_may_have_are_busy(tmp_path: Path) -> None:
    async def main() -> None:
        async with rig(tmp_path) as made:
            a = made.backend("a")
            recorders = [Recorder() for _ in range(BASE.parallel + BASE.queue + 1)]
            for recorder in recorders:
                a.start(call(chat(max_tokens=1)), recorder)
            for recorder in recorders:
                await recorder.over()
            assert [recorder.kind for recorder in recorders] == [None] * 4 + [FailureKind.BUSY]

    run(main())


def test_without_a_host_it_is_busy(tmp_path: Path) -> None:
    async def main() -> None:
        at = HostAt(str(tmp_path / "none.sock"), "x")
        backend = TunedBackend(at, "a", BASE, load_seconds=1.0, generation=lambda: 7, news_s=0.1)
        assert (await ask(backend, chat())).kind is FailureKind.BUSY
        await backend.close()

    run(main())


def test_the_host_answers_nobody_without_its_key(tmp_path: Path) -> None:
    async def said(at: HostAt, line: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(at.socket)
        writer.write(line)
        writer.write_eof()
        try:
            return await reader.read()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def main() -> None:
        async with rig(tmp_path) as made:
            wrong = msgspec.json.encode(Hold(key="another", model="a", generation=7)) + b"\n"
            for line in (wrong, b"no json\n", b"x" * 200_000, b""):
                assert await said(made.at, line) == b""
            assert made.engines.models == []
            made.refused["a"] = FailureKind.MISSING
            right = msgspec.json.encode(Hold(key="the-key", model="a", generation=7)) + b"\n"
            reader, writer = await asyncio.open_unix_connection(made.at.socket)
            writer.write(right)
            assert msgspec.json.decode(await reader.readline(), type=Held).refused is FailureKind.MISSING
            writer.close()

    run(main())
