"""One attempt: post, read the status line, cut.

Holds: `Sender`. Leaves out: resolving and connecting (outbound.pinned), when and how often (deliver), what is signed
(signature).

The request goes out, then the first line of the answer comes in; a redirect is an answer like any other, never
followed, and the rest of the answer is not read. All of it within `TIMEOUT_S`. What the receiver says besides its
status is not looked at, kept or logged.
"""

import re
import ssl
from collections.abc import Mapping
from typing import Final

from keepless.outbound.pinned import Failure, OutboundError, Pinned, Resolve
from keepless.outbound.urls import Target

__all__ = ["TIMEOUT_S", "Sender"]

TIMEOUT_S: Final = 10.0
_LINE_BYTES: Final = 4096
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])[ \r\n]")


class Sender:
    """Posts to endpoints. See `Pinned`."""

    def __init__(
        self,
        *,
        allow_private: bool = False,
        context: ssl.SSLContext | None = None,
        resolve: Resolve | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.allow_private: Final = allow_private
        self._pinned: Final = Pinned(allow_private=allow_private, context=context, resolve=resolve)
        self._timeout_s: Final = timeout_s

    async def post(self, target: Target, headers: Mapping[str, str], body: bytes) -> int:
        """The status of the answer. Raises `OutboundError`."""
        connected = self._pinned.connected(target, seconds=self._timeout_s, limit=_LINE_BYTES)
        async with connected as (reader, writer):
            writer.write(_request(target, headers, body))
            await writer.drain()
            try:
                line = await reader.readline()
            except ValueError:  # longer than any status line
                raise OutboundError(Failure.MALFORMED) from None
            status = _STATUS.match(line)
            if status is None:
                raise OutboundError(Failure.MALFORMED if line else Failure.UNREACHABLE)
            return int(status[1])


def _request(target: Target, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = {
        "host": target.authority,
        "user-agent": "keepless-webhooks",
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        **headers,
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {target.path} HTTP/1.1\r\n{head}\r\n".encode("ascii") + body
