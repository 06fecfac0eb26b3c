"""Pieces that are written behind: in their order, bounded, and by nobody any more once that is settled."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from keepless.content import Content, Purpose
from keepless.gateway.behind import Behind

MIB = 1 << 20


class Target:
    """What a thread writes to; it waits at each piece until it may go on."""

    def __init__(self, *, fails_at: int | None = None, free: bool = True) -> None:
        self.fails_at = fails_at
        self.go_on = threading.Event()
        if free:
            self.go_on.set()
        self.begun = threading.Event()
        self.inside = False
        self.pieces: list[bytes] = []

    def write(self, piece: Content) -> None:
        assert not self.inside
        self.inside = True
        self.begun.set()
        assert self.go_on.wait(90)
        self.inside = False
        if len(self.pieces) == self.fails_at:
            raise OSError("full")
        self.pieces.append(piece.reveal(Purpose.PROVE))


def run(target: Target, act: Callable[[Behind], Awaitable[None]]) -> None:
    async def acted() -> None:
        await act(Behind(target.write))

    asyncio.run(acted())


@pytest.mark.parametrize("size", [1, 5000, 70_000, 300_000, 2 * MIB])
def test_pieces_are_written_in_their_order(size: int) -> None:
    target = Target()
    pieces = [bytes([n]) * size for n in range(40)]

    async def act(behind: Behind) -> None:
        for piece in pieces:
            await behind.write(Content(piece))
        await behind.finish()
        await behind.settle()

    run(target, act)
    assert b"".join(target.pieces) == b"".join(pieces)


@pytest.mark.parametrize(("size", "most"), [(MIB // 8, 16), (1, 512), (2 * MIB, 2)])
def test_no_more_waits_than_is_being_written(size: int, most: int) -> None:
    target = Target(free=False)
    taken = 0

    async def act(behind: Behind) -> None:
        async def write() -> None:
            nonlocal taken
            for _ in range(1000):
                await behind.write(Content(bytes(size)))
                taken += 1

        writing = asyncio.get_running_loop().create_task(write())
        assert await asyncio.to_thread(target.begun.wait, 90)
        before = -1
        while before != taken:  # as far as it comes without the thread
            before = taken
            for _ in range(10):
                await asyncio.sleep(0)
        assert taken <= most
        assert not writing.done()
        writing.cancel()
        target.go_on.set()
        await behind.settle()
        assert not target.inside

    run(target, act)
    assert len(target.pieces) <= most


def test_what_cannot_be_written_is_told_and_nothing_follows() -> None:
    target = Target(fails_at=1)

    async def act(behind: Behind) -> None:
        await behind.write(Content(bytes(MIB)))
        await behind.write(Content(bytes(MIB)))
        with pytest.raises(OSError, match="full"):
            await behind.write(Content(bytes(MIB)))
        with pytest.raises(OSError, match="full"):
            await behind.finish()
        await behind.settle()

    run(target, act)
    assert len(target.pieces) == 1


def test_the_last_piece_that_fails_is_told_at_the_end() -> None:
    target = Target(fails_at=0)

    async def act(behind: Behind) -> None:
        await behind.write(Content(b"x"))
        with pytest.raises(OSError, match="full"):
            await behind.finish()

    run(target, act)


def test_who_settles_need_not_know_of_a_failure() -> None:
    target = Target(fails_at=0)
    heard: list[object] = []

    async def act(behind: Behind) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, told: heard.append(told))
        await behind.write(Content(bytes(MIB)))
        await behind.settle()

    run(target, act)
    assert not target.pieces
    assert not heard
