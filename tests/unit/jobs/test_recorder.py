"""Groups of finished lines: in order, one at a time, again when they could not be written, none after the end."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from keepless.jobs import recorder as module
from keepless.jobs.recorder import Recorder
from keepless.jobs.results import Record
from tests.unit.jobs.test_shard import until

Write = Callable[[list[Record]], bool]


def record(number: int) -> Record:
    return Record(number, True, b"")


def run(write: Write, act: Callable[[Recorder, list[str]], Awaitable[None]]) -> list[str]:
    said: list[str] = []

    async def main() -> None:
        with ThreadPoolExecutor(4) as executor:
            durable: list[int] = []
            recorder = Recorder(
                asyncio.get_running_loop(),
                executor,
                write,
                on_durable=lambda group: durable.extend(one.number for one in group),
                on_lost=lambda: said.append("lost"),
            )
            await act(recorder, said)
            assert len(durable) == len(set(durable))

    asyncio.run(main())
    return said


async def drained(recorder: Recorder) -> None:
    done = asyncio.Event()
    recorder.drain(done.set)
    await asyncio.wait_for(done.wait(), 20)


def test_everything_is_written_once_in_order_before_the_end_is_told() -> None:
    groups: list[list[int]] = []
    busy = threading.Lock()

    def write(group: list[Record]) -> bool:
        assert busy.acquire(blocking=False)  # one at a time
        groups.append([one.number for one in group])
        busy.release()
        return True

    async def act(recorder: Recorder, _: list[str]) -> None:
        for number in range(300):
            recorder.add(record(number))
            if number % 50 == 0:
                await asyncio.sleep(module.GROUP_S)
        await drained(recorder)
        assert [number for group in groups for number in group] == list(range(300))

    run(write, act)
    assert 1 < len(groups) < 30


def test_a_group_that_failed_is_written_again_with_what_came_meanwhile(monkeypatch) -> None:
    monkeypatch.setattr(module, "_AGAIN_S", 0.01)
    written: list[int] = []
    stuck: list[bool] = []
    left = [3]

    def write(group: list[Record]) -> bool:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError("MARKER")
        written.extend(one.number for one in group)
        return True

    async def act(recorder: Recorder, _: list[str]) -> None:
        recorder.add(record(1))
        await until(lambda: left[0] <= 0)
        stuck.append(recorder.stuck)
        recorder.add(record(2))
        await drained(recorder)
        stuck.append(recorder.stuck)

    run(write, act)
    assert written == [1, 2]
    assert stuck == [True, False]


def test_a_shard_that_is_lost_is_told_once_and_takes_no_more() -> None:
    async def act(recorder: Recorder, said: list[str]) -> None:
        recorder.add(record(1))
        await until(lambda: said)
        recorder.add(record(2))
        await asyncio.sleep(3 * module.GROUP_S)

    calls: list[int] = []

    def write(group: list[Record]) -> bool:
        calls.append(len(group))
        return False

    assert run(write, act) == ["lost"]
    assert calls == [1]


def test_what_is_discarded_is_never_written() -> None:
    async def act(recorder: Recorder, said: list[str]) -> None:
        recorder.add(record(1))
        recorder.drain(lambda: said.append("drained"))
        recorder.discard()
        recorder.add(record(2))
        await asyncio.sleep(3 * module.GROUP_S)

    written: list[int] = []

    def write(group: list[Record]) -> bool:
        written.extend(one.number for one in group)
        return True

    assert run(write, act) == []
    assert 2 not in written
