"""The client's side of a request that has no socket: a line of a batch.

Holds: `Collector`, an `Outlet` that takes one whole answer. Leaves out: lines and their order (jobs), checks
(handler.line, which lets no line stream).
"""

from collections.abc import Callable
from typing import Final

from keepless.content import Content
from keepless.errors import Code, KeeplessError
from keepless.gateway.reply import Outlet

__all__ = ["Collector", "StreamedLineError"]


class StreamedLineError(KeeplessError):
    """A line of a batch was answered as a stream."""


_RETRY_AFTER: Final = b"retry-after: "


def _retry_after_s(headers: bytes) -> float | None:
    _, found, rest = headers.partition(_RETRY_AFTER)
    value = rest.partition(b"\r\n")[0]
    return float(value) if found and value.isdigit() else None


class Collector(Outlet):
    """Calls `done(status, body)` once, on the event loop's thread, unless `cancel` came first.

    `retry_after_s`: when a refusal asks to be tried again; not after an engine's death, which the line may have caused.
    """

    __slots__ = ("_done", "retry_after_s")

    def __init__(self, done: Callable[[int, Content], None]) -> None:
        self._done: Final = done
        self.closed = False
        self.code = None
        self.retry_after_s: float | None = None
        self.on_disconnect = self.on_pause = self.on_resume = None

    def cancel(self) -> None:
        """The answer is not wanted any more: stop the engine. Idempotent."""
        if self.closed:
            return
        self.closed = True
        if self.on_disconnect is not None:
            self.on_disconnect()

    def full(self, status: int, headers: bytes, body: bytes) -> None:
        """See `Outlet`. Headers are for sockets, but one: when to come again."""
        if not self.closed:
            self.closed = True
            if status != 200 and not (status == 503 and self.code is Code.ENGINE_FAILED):
                self.retry_after_s = _retry_after_s(headers)
            self._done(status, Content(body))

    def stream_start(self, status: int, headers: bytes, length: int | None = None) -> None:
        """See `Outlet`. Raises `StreamedLineError`."""
        raise StreamedLineError

    def data(self, data: bytes) -> None:
        """See `Outlet`. Raises `StreamedLineError`."""
        raise StreamedLineError

    def finish(self) -> None:
        """See `Outlet`. Raises `StreamedLineError`."""
        raise StreamedLineError

    def abort(self) -> None:
        """See `Outlet`. Raises `StreamedLineError`."""
        raise StreamedLineError
