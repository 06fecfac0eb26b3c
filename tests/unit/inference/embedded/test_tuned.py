"""Who is loaded: one engine a model, as many as may be, the least recently used one goes, and no adapter stays open."""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from keepless.config import FineTuning, ModelConfig
from keepless.inference.backend import FailureKind
from keepless.inference.embedded.tuned import NotHeldError, TunedEngines
from keepless.inference.embedded.tuned_process import TunedProcess
from tests.support.engine import MODEL
from tests.support.sinks import until

SETTINGS = FineTuning(served_models=2, served_memory_mb=100_000, load_seconds=60.0, load_waiting=8)


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TunedProcess, "module", "tests.support.silent_engine")
    monkeypatch.setattr(TunedProcess, "folders", (*TunedProcess.folders, Path(__file__).parents[4]))


class Source:
    """Adapters, counted; what is open of them can be seen."""

    def __init__(self) -> None:
        self.fetched: Counter[str] = Counter()
        self.refused: dict[str, FailureKind] = {}
        self.content = b"an adapter"

    def __call__(self, model: str, base: ModelConfig) -> int:
        self.fetched[model] += 1
        if model in self.refused:
            raise NotHeldError(self.refused[model])
        descriptor = os.memfd_create("adapter", os.MFD_CLOEXEC)
        os.write(descriptor, self.content)
        return descriptor


def open_adapters() -> int:
    """How many of this process's descriptors are adapters."""
    folder = Path("/proc/self/fd")
    names = []
    for one in folder.iterdir():
        try:
            names.append(one.readlink().name)
        except OSError:
            continue
    return sum(name.startswith("memfd:adapter") for name in names)


@asynccontextmanager
async def engines(folder: Path, source: Source, settings: FineTuning = SETTINGS) -> Iterator[TunedEngines]:
    made = TunedEngines(settings, folder / "run", "e", source)
    try:
        yield made
    finally:
        await made.close()
    assert made.loaded == 0
    assert open_adapters() == 0
    assert list((folder / "run").glob("*.sock")) == []


def run(main: Coroutine) -> None:
    uvloop.run(main)


def alive(process: TunedProcess) -> bool:
    return process.pid is not None


def test_a_model_is_loaded_once_for_all_who_want_it(tmp_path: Path) -> None:
    async def main() -> None:
        source = Source()
        async with engines(tmp_path, source) as made:
            found = await asyncio.gather(*(made.hold("a", MODEL) for _ in range(5)))
            assert len(set(map(id, found))) == 1
            assert source.fetched == {"a": 1}
            assert open_adapters() == 0  # the engine has it, and nobody else
            assert alive(found[0]) and found[0].socket.exists()
            for _ in range(5):
                made.release("a", found[0])
            assert await made.hold("a", MODEL) is found[0]

    run(main())


def test_the_least_recently_used_one_goes(tmp_path: Path) -> None:
    async def main() -> None:
        source = Source()
        async with engines(tmp_path, source) as made:
            for model in "ab":
                made.release(model, await made.hold(model, MODEL))
            made.release("a", await made.hold("a", MODEL))  # so b is the one that nobody asked for longest
            await made.hold("c", MODEL)
            assert sorted(made.models) == ["a", "c"]
            assert source.fetched == {"a": 1, "b": 1, "c": 1}

    run(main())


def test_one_that_is_held_stays_and_who_finds_no_room_waits_for_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with engines(tmp_path, Source()) as made:
            held = {model: await made.hold(model, MODEL) for model in "ab"}
            waiting = asyncio.ensure_future(made.hold("c", MODEL))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            made.release("a", held["a"])
            await waiting
            assert sorted(made.models) == ["b", "c"]
            assert alive(held["b"]) and not alive(held["a"])

    run(main())


def test_waiting_has_bounds(tmp_path: Path) -> None:
    async def main() -> None:
        source = Source()
        source.content = b"slow"
        few = FineTuning(served_models=1, load_seconds=0.5, load_waiting=2)
        async with engines(tmp_path, source, few) as made:
            first, second = (asyncio.ensure_future(made.hold("a", MODEL)) for _ in range(2))
            await asyncio.sleep(0)
            with pytest.raises(NotHeldError) as too_many:
                await made.hold("a", MODEL)
            assert too_many.value.kind is FailureKind.BUSY
            for one in (first, second):
                with pytest.raises(NotHeldError) as too_long:
                    await one
                assert too_long.value.kind is FailureKind.BUSY

    run(main())


def test_memory_is_a_bound_too_but_one_may_always_be_there(tmp_path: Path) -> None:
    async def main() -> None:
        async with engines(tmp_path, Source(), FineTuning(served_models=4, served_memory_mb=1)) as made:
            made.release("a", await made.hold("a", MODEL))
            await made.hold("b", MODEL)
            assert made.models == ["b"]

    run(main())


def test_nobody_asks_and_it_ends(tmp_path: Path) -> None:
    async def main() -> None:
        source = Source()
        async with engines(tmp_path, source, FineTuning(served_idle_stop=0.2)) as made:
            process = await made.hold("a", MODEL)
            await asyncio.sleep(1.2)
            assert alive(process)  # held
            made.release("a", process)
            await until(lambda: not alive(process))
            await made.hold("a", MODEL)
            assert source.fetched == {"a": 2}

    run(main())


def test_ended_at_once_while_it_is_held_and_while_it_is_loaded(tmp_path: Path) -> None:
    async def main() -> None:
        source = Source()
        async with engines(tmp_path, source) as made:
            process = await made.hold("a", MODEL)
            made.end("a")
            assert made.models == []
            await until(lambda: not alive(process))
            made.release("a", process)  # whoever held it lets go later, and that is nothing
            source.content = b"slow"
            waiting = asyncio.ensure_future(made.hold("b", MODEL))
            await until(lambda: source.fetched["b"] == 1)
            made.end("b")
            with pytest.raises(NotHeldError) as error:
                await waiting
            assert error.value.kind is FailureKind.WITHDRAWN

    run(main())


def test_an_engine_that_dies_is_not_started_again_but_loaded_anew(tmp_path: Path) -> None:
    async def main() -> None:
        source = Source()
        async with engines(tmp_path, source) as made:
            process = await made.hold("a", MODEL)
            os.kill(process.pid, signal.SIGKILL)
            await until(lambda: made.models == [])
            again = await made.hold("a", MODEL)
            assert again is not process and again.key != process.key
            assert source.fetched == {"a": 2}

    run(main())


def test_what_cannot_be_loaded_is_told_and_forgotten(tmp_path: Path) -> None:
    async def main() -> None:
        source = Source()
        source.refused["gone"] = FailureKind.WITHDRAWN
        async with engines(tmp_path, source) as made:
            with pytest.raises(NotHeldError) as refused:
                await made.hold("gone", MODEL)
            assert refused.value.kind is FailureKind.WITHDRAWN
            source.content = b"broken"
            with pytest.raises(NotHeldError) as broken:
                await made.hold("a", MODEL)
            assert broken.value.kind is FailureKind.CRASHED
            await until(lambda: made.models == [])
            source.content = b"an adapter"
            await made.hold("a", MODEL)

    run(main())


def test_who_leaves_while_it_is_loaded_holds_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with engines(tmp_path, Source(), FineTuning(served_models=1)) as made:
            waiting = asyncio.ensure_future(made.hold("a", MODEL))
            await until(lambda: made.models == ["a"])
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            await made.hold("b", MODEL)  # so a was free to go
            assert made.models == ["b"]

    run(main())


def test_sockets_that_a_killed_process_left_are_removed(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "run").mkdir(mode=0o700)
        (tmp_path / "run" / "e-t9.sock").touch()
        async with engines(tmp_path, Source()):
            pass

    run(main())
