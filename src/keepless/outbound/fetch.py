"""One file from a server of an allow-list, into memory and nowhere else.

Holds: `Fetcher`. Leaves out: the connection (pinned), what becomes of the file, what a client is told.

A url, once it was found to be allowed (`target`): GET over one pinned connection, without anything of the request that
named it; 200 alone is an answer, a redirect is not followed; the body as it is, at most `most_bytes`, all within
`seconds`. At most `_AT_ONCE` run in one process, so that what is being fetched fits into memory beside the rest.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

import h11

from keepless.errors import KeeplessError
from keepless.log import Event, failure
from keepless.outbound.pinned import Failure, OutboundError, Pinned
from keepless.outbound.urls import Target, UrlError, target_of

__all__ = ["BusyError", "Fetched", "Fetcher", "UnexpectedError"]

_AT_ONCE: Final = 8
_LONGEST_URL: Final = 8192  # signed ones are long
_HEAD_BYTES: Final = 32 * 1024
_READ_BYTES: Final = 64 * 1024
Fetched = Callable[[bytes | KeeplessError], None]


class BusyError(KeeplessError):
    """As many files as fit are being fetched."""


class UnexpectedError(KeeplessError):
    """A fault of ours; the log has it."""


class Fetcher:
    """`hosts`: names, each with `:port` where that is not 443. Everything is called on the event loop's thread."""

    def __init__(self, hosts: Iterable[str], *, most_bytes: int, seconds: float, pinned: Pinned | None = None) -> None:
        self._hosts: Final = frozenset(host.lower() for host in hosts)
        self.most_bytes: Final = most_bytes
        self._seconds: Final = seconds
        self._pinned: Final = pinned or Pinned()
        self._tasks: Final[set[asyncio.Task[None]]] = set()

    def target(self, url: str) -> Target:
        """The parts of a url that may be fetched. Raises `UrlError`."""
        target = target_of(url, longest=_LONGEST_URL, allow_private=self._pinned.allow_private)
        if target.authority not in self._hosts:
            raise UrlError("its host must be one that the operator of this server allows")
        return target

    def start(self, target: Target, fetched: Fetched) -> Callable[[], None]:
        """Fetch; `fetched` is called once, later, with the file, the `OutboundError`, or `UnexpectedError` when it was
        our own fault. What ends it without a call.

        Raises `BusyError`.
        """
        if len(self._tasks) >= _AT_ONCE:
            raise BusyError
        task = asyncio.get_running_loop().create_task(self._run(target, fetched))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

        def cancel() -> None:
            task.cancel()

        return cancel

    async def fetch(self, target: Target) -> bytes:
        """The file. Raises `OutboundError`."""
        body = bytearray()
        try:
            connected = self._pinned.connected(target, seconds=self._seconds, limit=_READ_BYTES)
            async with connected as (reader, writer):
                http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES)
                writer.write(_request(http, target))
                await writer.drain()
                while True:
                    event = http.next_event()
                    if event is h11.NEED_DATA:
                        http.receive_data(await reader.read(_READ_BYTES))
                    elif isinstance(event, h11.Response):
                        self._check(event)
                    elif isinstance(event, h11.Data):
                        body += event.data
                        if len(body) > self.most_bytes:
                            raise OutboundError(Failure.TOO_LARGE)
                    elif isinstance(event, h11.EndOfMessage):
                        return bytes(body)
        except h11.RemoteProtocolError:  # its text may quote the server
            raise OutboundError(Failure.MALFORMED) from None

    async def _run(self, target: Target, fetched: Fetched) -> None:
        try:
            found: bytes | KeeplessError = await self.fetch(target)
        except OutboundError as failed:
            found = failed
        except Exception as error:  # the last net: whoever waits is told in any case
            failure(Event.SERVER_FAILED, error)
            found = UnexpectedError()
        fetched(found)

    def _check(self, response: h11.Response) -> None:
        fields = dict(response.headers)
        if 300 <= response.status_code < 400:
            raise OutboundError(Failure.REDIRECTED)
        if response.status_code != 200:
            raise OutboundError(Failure.STATUS)
        if fields.get(b"content-encoding", b"identity").lower() != b"identity":
            raise OutboundError(Failure.MALFORMED)
        if int(fields.get(b"content-length", b"0")) > self.most_bytes:
            raise OutboundError(Failure.TOO_LARGE)


def _request(http: h11.Connection, target: Target) -> bytes:
    fields = [
        ("host", target.authority),
        ("user-agent", "keepless"),
        ("accept", "*/*"),
        ("accept-encoding", "identity"),
        ("connection", "close"),
    ]
    head = http.send(h11.Request(method="GET", target=target.path, headers=fields))
    return (head or b"") + (http.send(h11.EndOfMessage()) or b"")
