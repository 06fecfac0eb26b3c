"""Pieces of an upload that a thread writes while the next ones come.

Holds: `Behind` and `written` (a form into a writer). Leaves out: where the pieces come from (file_form), what a
writer is (files).

One thread at a time, in the order of the pieces. At most `_MOST` bytes wait while as many are being written; then the
body is no longer read, and the client waits. What the thread could not write is raised by the next call; after that
nothing more is written. `settle` is what must come before a writer is aborted: no thread is in it any more.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final, Protocol, TypeVar

import anyio

from keepless.content import Content
from keepless.gateway.file_form import FileForm
from keepless.gateway.recorded import in_thread

__all__ = ["Behind", "Writer", "written"]

_WORTH: Final = 1 << 18  # bytes for which a thread is asked
_MOST: Final = 1 << 20
_PIECES: Final = 256  # that wait, however small they are


class Writer(Protocol):
    """What is written until it is committed."""

    def write(self, content: Content, /) -> None:
        """Take the next piece. Blocks."""

    def abort(self) -> None:
        """Leave nothing, if it was not committed. Blocks."""


W = TypeVar("W", bound=Writer)


async def written(
    stack: AsyncExitStack, form: FileForm, body: AsyncIterator[bytes], opened: Callable[[], Awaitable[W]]
) -> W:
    """All of a form's file in a writer that is opened when the file begins. Raises what reading and writing raise.

    Whoever leaves `stack` without a commit leaves nothing behind.
    """
    writers: list[W] = []

    def write(piece: Content) -> None:
        writers[0].write(piece)

    async def begin() -> None:
        writer = await opened()
        stack.push_async_callback(_abort, writer)
        stack.push_async_callback(behind.settle)
        writers.append(writer)

    behind = Behind(write)
    await form.read(body, begin, behind.write)
    await behind.finish()
    return writers[0]


async def _abort(writer: Writer) -> None:
    with anyio.CancelScope(shield=True):
        await in_thread(writer.abort)


class Behind:
    """The pieces of one upload, on the event loop's thread."""

    def __init__(self, write: Callable[[Content], None]) -> None:
        self._write: Final = write
        self._waiting: list[Content] = []
        self._size = 0
        self._writing: asyncio.Task[None] | None = None

    async def write(self, piece: Content) -> None:
        """Take the next piece. Raises what writing an earlier one raised."""
        self._waiting.append(piece)
        self._size += piece.size
        full = self._size >= _MOST or len(self._waiting) >= _PIECES
        if full or (self._size >= _WORTH and (self._writing is None or self._writing.done())):
            await self._written()
            self._begin()

    async def finish(self) -> None:
        """All pieces are written when this returns. Raises as `write`."""
        await self._written()
        self._begin()
        await self._written()

    async def settle(self) -> None:
        """Nothing is being written any more, whatever came of it."""
        self._waiting.clear()
        if self._writing is not None:
            with anyio.CancelScope(shield=True):
                await asyncio.wait([self._writing])
            if not self._writing.cancelled():
                self._writing.exception()  # seen: whoever settles has a reason of its own

    def _begin(self) -> None:
        pieces, self._waiting, self._size = self._waiting, [], 0
        self._writing = asyncio.get_running_loop().create_task(in_thread(lambda: self._write_all(pieces)))

    async def _written(self) -> None:
        writing = self._writing
        if writing is not None:
            await asyncio.wait([writing])
            writing.result()

    def _write_all(self, pieces: Sequence[Content]) -> None:
        for piece in pieces:
            self._write(piece)
