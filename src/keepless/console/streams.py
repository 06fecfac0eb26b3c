"""An answer that is made while it is sent, and ends with its client.

Holds: `Streamed`. One part at a time is made, in a worker thread, and sent before the next one is asked for: a slow
client holds back what makes the parts. When the client leaves, no further part is made. A part that cannot be made cuts
the answer, so nobody takes it for a complete one. `ended` is told once, whatever happened, whether all of it was sent.
"""

import asyncio
import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

__all__ = ["Streamed"]


class Streamed(Response):
    """See the module."""

    def __init__(
        self, parts: Iterator[bytes], ended: Callable[[bool], None], media_type: str, headers: Mapping[str, str]
    ) -> None:
        super().__init__(media_type=media_type, headers=headers)
        del self.headers["content-length"]
        self._parts: Final = parts
        self._ended: Final = ended

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See ASGI."""
        left = asyncio.create_task(_left(receive))
        complete = False
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            while scope["method"] != "HEAD" and not left.done():
                part = await run_in_threadpool(next, self._parts, None)
                if part is None:
                    complete = not left.done()
                    break
                if part:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            left.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await left
            await run_in_threadpool(self._close, complete)

    def _close(self, complete: bool) -> None:
        try:
            if isinstance(self._parts, Generator):
                with contextlib.suppress(ValueError):  # a part is still being made: the server is being stopped
                    self._parts.close()
        finally:
            self._ended(complete)


async def _left(receive: Any) -> None:
    """Returns when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
