"""One attempt: resolve once, look at every address, connect to the first of them, post, read the status line.

Holds: `Sender`, `UndeliverableError`, `Failure`. Leaves out: when and how often (deliver), what is signed (signature).

1. resolve the name, once; refuse when any of its addresses is not permitted
2. TLS to that very address, the certificate checked against the name: the name is not looked up again
3. the request, then the first line of the answer; a redirect is an answer like any other, never followed
4. the connection is cut: the rest of the answer is not read

All of it within `TIMEOUT_S`. What the receiver says besides its status is not looked at, kept or logged.
"""

import asyncio
import contextlib
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Final

from keepless.errors import KeeplessError
from keepless.webhooks.urls import Address, Target, permitted

__all__ = ["TIMEOUT_S", "Failure", "Sender", "UndeliverableError"]

TIMEOUT_S: Final = 10.0
_LINE_BYTES: Final = 4096
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])[ \r\n]")
Resolve = Callable[[str, int], Awaitable[list[str]]]


class Failure(StrEnum):
    """Why there is no status."""

    UNRESOLVED = "unresolved"
    ADDRESS_REFUSED = "address_refused"
    UNREACHABLE = "unreachable"
    CERTIFICATE = "certificate"
    TIMEOUT = "timeout"
    MALFORMED = "malformed"


class UndeliverableError(KeeplessError):
    """There was no answer; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.value)
        self.failure: Final = failure


class Sender:
    """Posts to endpoints. `allow_private` is for tests and for receivers on the operator's own premises."""

    def __init__(
        self,
        *,
        allow_private: bool = False,
        context: ssl.SSLContext | None = None,
        resolve: Resolve | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.allow_private: Final = allow_private
        self._context: Final = context or ssl.create_default_context()
        self._resolve: Final = resolve or _resolved
        self._timeout_s: Final = timeout_s

    async def post(self, target: Target, headers: Mapping[str, str], body: bytes) -> int:
        """The status of the answer. Raises `UndeliverableError`."""
        try:
            async with asyncio.timeout(self._timeout_s):
                address = await self._address(target)
                return await self._exchange(address, target, _request(target, headers, body))
        except TimeoutError:
            raise UndeliverableError(Failure.TIMEOUT) from None
        except ssl.SSLError:
            raise UndeliverableError(Failure.CERTIFICATE) from None
        except (OSError, EOFError):
            raise UndeliverableError(Failure.UNREACHABLE) from None

    async def _address(self, target: Target) -> str:
        try:
            found: list[Address] = [ipaddress.ip_address(a) for a in await self._resolve(target.host, target.port)]
        except (socket.gaierror, UnicodeError, ValueError):
            raise UndeliverableError(Failure.UNRESOLVED) from None
        if not found:
            raise UndeliverableError(Failure.UNRESOLVED)
        if not self.allow_private and not all(map(permitted, found)):
            raise UndeliverableError(Failure.ADDRESS_REFUSED)
        return str(found[0])

    async def _exchange(self, address: str, target: Target, request: bytes) -> int:
        reader, writer = await asyncio.open_connection(
            address, target.port, ssl=self._context, server_hostname=target.host, limit=_LINE_BYTES
        )
        try:
            writer.write(request)
            await writer.drain()
            try:
                line = await reader.readline()
            except ValueError:  # longer than any status line
                raise UndeliverableError(Failure.MALFORMED) from None
            status = _STATUS.match(line)
            if status is None:
                raise UndeliverableError(Failure.MALFORMED if line else Failure.UNREACHABLE)
            return int(status[1])
        finally:
            with contextlib.suppress(OSError):
                writer.transport.abort()


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


async def _resolved(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]
