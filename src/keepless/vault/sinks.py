"""Blobs that are written piece by piece, in bounded memory: into a staging file, into memory, into a bucket.

Holds: `BlobSink`, the Protocol, and one sink a kind of store. Leaves out: whole blobs, reading, deleting (blobs).

write any number of times -> finish: the blob is there and durable. COMMIT POINT of the store, not of the vault. What is
not finished is never a blob: `abort` removes it, and what a kill leaves is a hidden leftover (blobs). A sink that is
begun and not finished within the orphans' grace of an hour may be taken for such a leftover.

obstore pulls; a bucket's sink therefore hands its pieces to a thread through a short queue. The thread ends with its
blob or when the sink is aborted.
"""

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Protocol

from keepless.vault.errors import StoreFailedError

__all__ = ["BlobSink", "FileSink", "PulledSink", "WholeSink", "append_to"]

_WAITING: Final = 4  # pieces of about a mebibyte between the writer and the store
_SOON: Final = 8 << 20  # bytes of a file that wait before its disk is asked to begin
_TURN: Final = 0.5  # seconds after which a writer looks whether the store has failed meanwhile


class BlobSink(Protocol):
    """One blob being written. Every method blocks; one thread at a time. Raises `StoreFailedError`."""

    def write(self, piece: bytes | memoryview) -> None:
        """Take the next bytes; whose memory they are may use it again when this returns."""

    def finish(self) -> None:
        """Make the blob; durable when this returns."""

    def abort(self) -> None:
        """Leave nothing, as far as the store lets us; never raises."""


class FileSink:
    """A file beside its blob's place, renamed to it when it is durable."""

    def __init__(self, staged: Path, path: Path, made_durable: Callable[[Path], None]) -> None:
        self._staged: Final = staged
        self._path: Final = path
        self._made_durable: Final = made_durable
        self._written = self._begun = 0  # bytes, and up to which the disk has been asked to begin
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptor = os.open(staged, flags, 0o600)
        except OSError:
            raise StoreFailedError("the store did not take the blob") from None

    def write(self, piece: bytes | memoryview) -> None:
        """See `BlobSink`."""
        if self._descriptor < 0:
            raise StoreFailedError("the blob has ended")
        view = memoryview(piece)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
            self._written += len(piece)
            if self._written - self._begun >= _SOON:
                self._begin_writing()
        except OSError:
            raise StoreFailedError("the store did not take the blob") from None

    def _begin_writing(self) -> None:
        """Have the kernel begin with what it holds back, so that little is left for the end; no more than a wish."""
        with contextlib.suppress(OSError):
            os.posix_fadvise(self._descriptor, self._begun, self._written - self._begun, os.POSIX_FADV_DONTNEED)
        self._begun = self._written

    def finish(self) -> None:
        """See `BlobSink`."""
        if self._descriptor < 0:
            raise StoreFailedError("the blob has ended")
        try:
            os.fsync(self._descriptor)
            self._close()
            self._staged.replace(self._path)
            self._made_durable(self._path)
        except OSError:
            raise StoreFailedError("the store did not take the blob") from None

    def abort(self) -> None:
        """See `BlobSink`."""
        with contextlib.suppress(OSError):
            self._close()
            self._staged.unlink(missing_ok=True)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class WholeSink:
    """Pieces that are put at once in the end: for memory, where the blob itself is no smaller."""

    def __init__(self, put: Callable[[Iterator[bytes]], None]) -> None:
        self._put: Final = put
        self._pieces: Final[list[bytes]] = []

    def write(self, piece: bytes | memoryview) -> None:
        """See `BlobSink`."""
        self._pieces.append(bytes(piece))

    def finish(self) -> None:
        """See `BlobSink`."""
        self._put(iter(self._pieces))
        self._pieces.clear()

    def abort(self) -> None:
        """See `BlobSink`."""
        self._pieces.clear()


class _AbortedError(Exception):
    """Ends the store's pulling."""


class PulledSink:
    """Pieces that a thread hands to a store which pulls them; a producer that fails makes the store abort by itself."""

    def __init__(self, put: Callable[[Iterator[bytes]], None]) -> None:
        self._put: Final = put
        self._pieces: Final[queue.Queue[bytes | None]] = queue.Queue(_WAITING)
        self._aborted = False
        self._error: BaseException | None = None
        self._thread: Final = threading.Thread(target=self._run, name="blob-sink", daemon=True)
        self._thread.start()

    def write(self, piece: bytes | memoryview) -> None:
        """See `BlobSink`."""
        self._hand_over(bytes(piece))

    def finish(self) -> None:
        """See `BlobSink`."""
        self._hand_over(None)
        self._thread.join()
        self._raise()

    def abort(self) -> None:
        """See `BlobSink`."""
        self._aborted = True
        with contextlib.suppress(queue.Full):
            self._pieces.put_nowait(None)
        self._thread.join()

    def _hand_over(self, piece: bytes | None) -> None:
        while True:
            self._raise()
            try:
                self._pieces.put(piece, timeout=_TURN)
            except queue.Full:
                if not self._thread.is_alive():
                    self._raise()
                    raise StoreFailedError("the store did not take the blob") from None
            else:
                return

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _pulled(self) -> Iterator[bytes]:
        while (piece := self._pieces.get()) is not None:
            if self._aborted:
                break
            yield piece
        if self._aborted:
            raise _AbortedError

    def _run(self) -> None:
        try:
            self._put(self._pulled())
        except StoreFailedError as error:
            self._error = error
        except BaseException:  # whatever ends this thread ends the blob
            self._error = StoreFailedError("the store did not take the blob")


def append_to(path: Path, position: int, group: bytes, made_durable: Callable[[Path], None] | None) -> None:
    """Write bytes into a file at a position, durable when this returns; with `made_durable` the file is made.

    Raises `StoreFailedError`, also when a file that should be there is not: it was destroyed, and stays so.
    """
    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        if made_durable is not None:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            flags |= os.O_CREAT | os.O_EXCL
        descriptor = os.open(path, flags, 0o600)
        try:
            view = memoryview(group)
            while view:
                written = os.pwrite(descriptor, view, position)
                view, position = view[written:], position + written
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if made_durable is not None:
            made_durable(path)
    except OSError:
        raise StoreFailedError("the store did not take the blob") from None
