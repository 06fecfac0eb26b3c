"""The engine `openai`: any server that speaks OpenAI's HTTP, asked over a pool, its answer handed on byte for byte.

Holds: `UpstreamBackend`. Leaves out: what an answer's status means (pipeline, DECISIONS 9), who may be sent here
(router), the connection (client).

What leaves this house: our own head (host, the operator's credential, JSON in and out) and the re-encoded body. None
of the client's headers, no address of a client, no id of an organization.
"""

import os
import re
import ssl
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from keepless.config import ModelConfig
from keepless.content import Purpose
from keepless.errors import ConfigError
from keepless.inference.backend import Call, Sink
from keepless.inference.client import Address, Pool, PooledExchange, PoolLimits

__all__ = ["UpstreamBackend"]

_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9])?\Z|[0-9A-Fa-f:.]+\Z")
_PATH: Final = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*\Z")
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,4096}\Z")


class UpstreamBackend:
    """One upstream. Raises `ConfigError` when its address or credential cannot be used."""

    def __init__(
        self, model: ModelConfig, *, environ: Mapping[str, str] | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        address, prefix, host = _parse(model, tls)
        credential = _credential(model, os.environ if environ is None else environ)
        self._before: Final = b"POST " + prefix
        self._after: Final = (
            b" HTTP/1.1\r\nhost: " + host + b"\r\n" + credential + b"user-agent: keepless\r\n"
            b"accept: application/json, text/event-stream\r\naccept-encoding: identity\r\n"
        )
        self._pool: Final = Pool(
            address,
            PoolLimits(
                max_connections=model.max_connections,
                max_waiting=4 * model.max_connections,
                connect_timeout_s=model.connect_timeout,
                first_byte_timeout_s=model.first_byte_timeout,
                idle_timeout_s=model.idle_timeout,
            ),
        )
        self._heads: Final[dict[str, bytes]] = {}

    def start(self, call: Call, sink: Sink) -> PooledExchange:
        """See `Backend`."""
        body = call.body.reveal(Purpose.INFERENCE)
        head = self._heads.get(call.path)
        if head is None:
            # Paths are our own few; the table cannot grow by what clients send.
            head = self._heads[call.path] = self._before + call.path.encode("ascii") + self._after
        extra = b"".join(name + b": " + value + b"\r\n" for name, value in call.headers) if call.headers else b""
        head = b"%b%bcontent-type: %b\r\ncontent-length: %d\r\n\r\n" % (head, extra, call.content_type, len(body))
        return self._pool.start(head, body, sink, call.permitted)

    @property
    def healthy(self) -> bool:
        """Whether the last attempt to connect succeeded (true before the first)."""
        return self._pool.reachable

    async def close(self) -> None:
        """See `Backend`."""
        await self._pool.close()


def _parse(model: ModelConfig, tls: ssl.SSLContext | None) -> tuple[Address, bytes, bytes]:
    """Where to connect, what stands before every path, and the Host header."""
    wrong = ConfigError(f"models[{model.id}].base_url must be http(s)://host[:port][/path], nothing else")
    try:
        url = urlsplit(model.base_url or "")
        host, port = url.hostname or "", url.port
    except ValueError:
        raise wrong from None
    path = url.path.rstrip("/")
    if url.scheme not in ("http", "https") or url.query or url.fragment or "@" in url.netloc:
        raise wrong
    if not _HOST.match(host) or not _PATH.match(path):
        raise wrong
    context = (tls or ssl.create_default_context()) if url.scheme == "https" else None
    address = Address(host=host, port=port or (443 if context else 80), tls=context)
    return address, path.encode("ascii"), url.netloc.encode("ascii")


def _credential(model: ModelConfig, environ: Mapping[str, str]) -> bytes:
    """The Authorization line, or nothing when the upstream asks for none."""
    if model.api_key_env is None:
        return b""
    key = environ.get(model.api_key_env, "")
    if not _TOKEN.match(key):
        raise ConfigError(f"models[{model.id}].api_key_env names a variable that is unset or no credential")
    return b"authorization: Bearer " + key.encode("ascii") + b"\r\n"
