"""Groups of finished lines: in order, one at a time, again when they could not be written, none after the end."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from keepless.jobs import recorder as module
from keepless.jobs.journal import Outcome, ShardJournal
from keepless.jobs.recorder import Recorder, Recording
from keepless.jobs.results import Record
from tests.unit.jobs.test_shard import together, until

Write = Callable[[list[Record]], bool]


def record(number: int) -> Record:
    return Record(number, True, b"")


class Journal:
    """A shard's journal, as a function."""

    def __init__(self, write: Write) -> None:
        self.write = write


def run(write: Write, act: Callable[[Recording, list[str]], Awaitable[None]]) -> list[str]:
    said: list[str] = []

    async def main() -> None:
        with ThreadPoolExecutor(4) as executor:
            durable: list[int] = []
            recording = Recording(
                Recorder(asyncio.get_running_loop(), executor, together),
                cast("ShardJournal", Journal(write)),
                on_durable=lambda group: durable.extend(one.number for one in group),
                on_lost=lambda: said.append("lost"),
            )
            await act(recording, said)
            assert len(durable) == len(set(durable))

    asyncio.run(main())
    return said


async def drained(recording: Recording) -> None:
    done = asyncio.Event()
    recording.drain(done.set)
    await asyncio.wait_for(done.wait(), 20)


def test_everything_is_written_once_in_order_before_the_end_is_told() -> None:
    groups: list[list[int]] = []
    busy = threading.Lock()

    def write(group: list[Record]) -> bool:
        assert busy.acquire(blocking=False)  # one at a time
        groups.append([one.number for one in group])
        busy.release()
        return True

    async def act(recording: Recording, _: list[str]) -> None:
        for number in range(300):
            recording.add(record(number))
            if number % 50 == 0:
                await asyncio.sleep(module.GROUP_S)
        await drained(recording)
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

    async def act(recording: Recording, _: list[str]) -> None:
        recording.add(record(1))
        await until(lambda: left[0] <= 0)
        stuck.append(recording.stuck)
        recording.add(record(2))
        await drained(recording)
        stuck.append(recording.stuck)

    run(write, act)
    assert written == [1, 2]
    assert stuck == [True, False]


def test_a_shard_that_is_lost_is_told_once_and_takes_no_more() -> None:
    async def act(recording: Recording, said: list[str]) -> None:
        recording.add(record(1))
        await until(lambda: said)
        recording.add(record(2))
        await asyncio.sleep(3 * module.GROUP_S)

    calls: list[int] = []

    def write(group: list[Record]) -> bool:
        calls.append(len(group))
        return False

    assert run(write, act) == ["lost"]
    assert calls == [1]


def test_what_is_discarded_is_never_written() -> None:
    async def act(recording: Recording, said: list[str]) -> None:
        recording.add(record(1))
        recording.drain(lambda: said.append("drained"))
        recording.discard()
        recording.add(record(2))
        await asyncio.sleep(3 * module.GROUP_S)

    written: list[int] = []

    def write(group: list[Record]) -> bool:
        written.extend(one.number for one in group)
        return True

    assert run(write, act) == []
    assert 2 not in written


def test_groups_of_many_shards_are_written_together_and_one_that_fails_holds_up_no_other(monkeypatch) -> None:
    monkeypatch.setattr(module, "_AGAIN_S", 0.01)
    monkeypatch.setattr(module, "GROUP_S", 60.0)  # all are added before the first is waited for, however slowly
    calls: list[int] = []
    written: dict[int, list[int]] = {}

    def all_of(groups: Sequence[tuple[ShardJournal, Sequence[Record]]]) -> list[Outcome]:
        calls.append(len(groups))
        return together(groups)

    def writes(shard: int, failing: list[bool]) -> Write:
        def write(group: list[Record]) -> bool:
            if failing and failing.pop():
                raise OSError
            written.setdefault(shard, []).extend(one.number for one in group)
            return True

        return write

    async def main() -> None:
        with ThreadPoolExecutor(2) as executor:
            recorder = Recorder(asyncio.get_running_loop(), executor, all_of)
            made = [
                Recording(
                    recorder,
                    cast("ShardJournal", Journal(writes(shard, [True] if shard == 3 else []))),
                    on_durable=lambda _: None,
                    on_lost=lambda: None,
                )
                for shard in range(10)
            ]
            for number in range(20):
                for recording in made:
                    recording.add(record(number))
            await asyncio.gather(*(drained(recording) for recording in made))

    asyncio.run(main())
    assert written == {shard: list(range(20)) for shard in range(10)}
    assert calls[0] == 10
    assert len(calls) < 6
