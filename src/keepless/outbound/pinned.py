"""A connection to a server that somebody else named, by the very address that was looked at.

Holds: `Pinned`, `Failure`, `OutboundError`. Leaves out: urls and which addresses are permitted (urls), what is said on
the connection (fetch, webhooks.send).

1. resolve the name, once; refuse when any of its addresses is not permitted
2. TLS to that very address, the certificate checked against the name: the name is not looked up again
3. whatever is said there, all of it within one time-out; then the connection is cut
"""

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from enum import StrEnum
from typing import Final

from keepless.errors import KeeplessError
from keepless.outbound.urls import Address, Target, permitted

__all__ = ["Failure", "OutboundError", "Pinned", "Resolve"]

Resolve = Callable[[str, int], Awaitable[list[str]]]


class Failure(StrEnum):
    """Why there is no answer, or none that can be used."""

    UNRESOLVED = "unresolved"
    ADDRESS_REFUSED = "address_refused"
    UNREACHABLE = "unreachable"
    CERTIFICATE = "certificate"
    TIMEOUT = "timeout"
    MALFORMED = "malformed"
    REDIRECTED = "redirected"
    STATUS = "status"
    TOO_LARGE = "too_large"


class OutboundError(KeeplessError):
    """There was no (usable) answer; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.value)
        self.failure: Final = failure


class Pinned:
    """Connects. `allow_private` is for tests and for servers on the operator's own premises.

    Certificates are checked against the system's authorities (SSL_CERT_FILE) unless `context` says otherwise.
    """

    def __init__(
        self,
        *,
        allow_private: bool = False,
        context: ssl.SSLContext | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        self.allow_private: Final = allow_private
        self._context: Final = context or ssl.create_default_context()
        self._resolve: Final = resolve or _resolved

    @contextlib.asynccontextmanager
    async def connected(
        self, target: Target, *, seconds: float, limit: int
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection, for at most `seconds`; about `limit` bytes are read ahead. Raises `OutboundError`, also for
        what goes wrong with the connection within the `with`.
        """
        try:
            async with asyncio.timeout(seconds):
                address = await self._address(target)
                reader, writer = await asyncio.open_connection(
                    address, target.port, ssl=self._context, server_hostname=target.host, limit=limit
                )
                try:
                    yield reader, writer
                finally:
                    with contextlib.suppress(OSError):
                        writer.transport.abort()
        except TimeoutError:
            raise OutboundError(Failure.TIMEOUT) from None
        except ssl.SSLError:
            raise OutboundError(Failure.CERTIFICATE) from None
        except (OSError, EOFError):
            raise OutboundError(Failure.UNREACHABLE) from None

    async def _address(self, target: Target) -> str:
        try:
            found: list[Address] = [ipaddress.ip_address(a) for a in await self._resolve(target.host, target.port)]
        except (socket.gaierror, UnicodeError, ValueError):
            raise OutboundError(Failure.UNRESOLVED) from None
        if not found:
            raise OutboundError(Failure.UNRESOLVED)
        if not self.allow_private and not all(map(permitted, found)):
            raise OutboundError(Failure.ADDRESS_REFUSED)
        return str(found[0])


async def _resolved(host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]
