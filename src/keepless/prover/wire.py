"""How the prover speaks to a server: whole requests, requests that stop half-way, clients that leave.

Holds: `Request`, `Answer`, `Manner`, `send`, `begin` and `ask` (a call of the admin API). Leaves out: what is sent
(cases). On the standard library: what the official clients do is tested elsewhere, here it matters that nothing is
repeated or tidied up.
"""

import http.client
import json
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

from keepless.errors import KeeplessError

__all__ = ["Answer", "Manner", "ProverError", "Request", "ask", "begin", "send"]

_TIMEOUT_S: Final = 60.0
_FIRST_BYTES: Final = 64


class ProverError(KeeplessError):
    """The prover could not do its work; `why` says it in words of ours."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why: Final = why


_UNREACHABLE: Final = "the server cannot be reached"


class Manner(StrEnum):
    """How the client behaves."""

    WHOLE = "whole"
    LEAVES = "leaves"  # after the first bytes of the answer
    HALF = "half"  # of the body, then the client leaves


@dataclass(frozen=True, slots=True, repr=False)
class Request:
    """One request of a customer."""

    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    manner: Manner = Manner.WHOLE
    method: str = "POST"


@dataclass(frozen=True, slots=True, repr=False)
class Answer:
    """What came back. `status` 0: nothing. `whole`: to its end, as its framing says."""

    status: int = 0
    retention: str = ""
    body: bytes = b""
    whole: bool = False

    @property
    def said_at_last(self) -> str:
        """The retention that the last comment of a stream told."""
        _, found, rest = self.body.rpartition(b": x-keepless-retention ")
        return rest.split(b"\n", 1)[0].decode("ascii", "replace").strip() if found else ""


def _connect(base: str) -> http.client.HTTPConnection:
    url = urlsplit(base)
    if url.scheme == "https":
        return http.client.HTTPSConnection(
            url.hostname or "", url.port, timeout=_TIMEOUT_S, context=ssl.create_default_context()
        )
    return http.client.HTTPConnection(url.hostname or "", url.port, timeout=_TIMEOUT_S)


def begin(base: str, key: str, request: Request) -> http.client.HTTPConnection:
    """Send a request (of `Manner.HALF` the first half) and leave the connection open. Raises `ProverError`."""
    connection = _connect(base)
    try:
        connection.putrequest(request.method, request.path)
        for name, value in {"authorization": f"Bearer {key}", "content-type": "application/json"}.items():
            if name not in request.headers:
                connection.putheader(name, value)
        for name, value in {**request.headers, "content-length": str(len(request.body))}.items():
            connection.putheader(name, value)
        half = request.manner is Manner.HALF
        connection.endheaders(request.body[: len(request.body) // 2] if half else request.body)
    except OSError:
        connection.close()
        raise ProverError(_UNREACHABLE) from None
    return connection


def send(base: str, key: str, request: Request) -> Answer:
    """Send a request in its manner; what came back. Raises `ProverError` when there is no server."""
    connection = begin(base, key, request)
    try:
        if request.manner is Manner.HALF:
            _reset(connection)
            return Answer()
        try:
            response = connection.getresponse()
        except (OSError, http.client.HTTPException):
            return Answer()
        retention = response.getheader("x-keepless-retention", "")
        if request.manner is Manner.LEAVES:
            first = response.read(_FIRST_BYTES)
            _reset(connection)
            return Answer(response.status, retention, first)
        try:
            return Answer(response.status, retention, response.read(), whole=True)
        except http.client.IncompleteRead as cut:
            return Answer(response.status, retention, cut.partial)
        except (OSError, http.client.HTTPException):
            return Answer(response.status, retention)
    finally:
        connection.close()


def _reset(connection: http.client.HTTPConnection) -> None:
    """Leave without a farewell."""
    if isinstance(connection.sock, socket.socket):
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def ask(base: str, key: str, method: str, path: str, body: object = None) -> dict[str, Any]:
    """One call of the admin API. Raises `ProverError` for a refusal."""
    connection = _connect(base)
    try:
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError):
        raise ProverError(_UNREACHABLE) from None
    finally:
        connection.close()
    if response.status >= 300 or not isinstance(answer, dict):
        raise ProverError(f"the server refuses {method} {path.partition('?')[0]} with {response.status}")
    return answer
