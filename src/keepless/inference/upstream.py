"""The engine `openai`: any server that speaks OpenAI's HTTP, asked over a pool, its answer handed on byte for byte.

Holds: `UpstreamBackend`, `upstream_backends`. Leaves out: what an answer's status means (faults, DECISIONS 9), who may
be sent here (target), the connection (client).

What leaves this house: our own head (host, the operator's credential, JSON in and out) and the re-encoded body. None
of the client's headers, no address of a client, no id of an organization.
"""

import os
import re
import ssl
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from keepless.config import ModelConfig, UpstreamConfig
from keepless.content import Purpose
from keepless.errors import ConfigError
from keepless.inference.backend import Call, Sink
from keepless.inference.client import Address, Pool, PooledExchange, PoolLimits

__all__ = ["UpstreamBackend", "upstream_backends"]

_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9])?\Z|[0-9A-Fa-f:.]+\Z")
_PATH: Final = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*\Z")
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,4096}\Z")


class UpstreamBackend:
    """One upstream, as `ModelConfig.all_upstreams` says it; `setting` names its place in the configuration.

    Raises `ConfigError` when its address or credential cannot be used.
    """

    def __init__(
        self,
        upstream: UpstreamConfig,
        setting: str = "upstream",
        *,
        environ: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        address, prefix, host = _parse(upstream, setting, tls)
        credential = _credential(upstream, setting, os.environ if environ is None else environ)
        ours = b" HTTP/1.1\r\nhost: " + host + b"\r\n" + credential + b"user-agent: keepless\r\n"
        self._before: Final = b"POST " + prefix
        self._after: Final = ours + b"accept: application/json, text/event-stream\r\naccept-encoding: identity\r\n"
        limits = PoolLimits()
        most = upstream.max_connections or limits.max_connections
        self._pool: Final = Pool(
            address,
            PoolLimits(
                max_connections=most,
                max_waiting=4 * most,
                connect_timeout_s=upstream.connect_timeout or limits.connect_timeout_s,
                first_byte_timeout_s=upstream.first_byte_timeout or limits.first_byte_timeout_s,
                idle_timeout_s=upstream.idle_timeout or limits.idle_timeout_s,
            ),
        )
        # A check has a connection of its own: it must not wait behind requests, nor take the place of one.
        self._checks: Final = Pool(address, PoolLimits(max_connections=1, max_waiting=1, keep_idle_s=0))
        self._check: Final = b"GET " + (upstream.health_path or "/").encode("ascii") + ours + b"accept: */*\r\n\r\n"
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

    def check(self, sink: Sink) -> PooledExchange:
        """Ask its `health_path`; no content is sent. The caller gives up when it takes too long."""
        return self._checks.start(self._check, b"", sink)

    @property
    def healthy(self) -> bool:
        """Whether the last attempt to connect succeeded (true before the first)."""
        return self._pool.reachable

    async def close(self) -> None:
        """See `Backend`."""
        await self._pool.close()
        await self._checks.close()


def upstream_backends(model: ModelConfig) -> list[UpstreamBackend]:
    """An engine for each upstream of a model, in order. Raises `ConfigError`."""
    settings = [f"models[{model.id}].upstreams[{index}]" for index in range(len(model.upstreams))]
    pairs = zip(model.all_upstreams(), settings or [f"models[{model.id}]"], strict=True)
    return [UpstreamBackend(upstream, setting) for upstream, setting in pairs]


def _parse(upstream: UpstreamConfig, setting: str, tls: ssl.SSLContext | None) -> tuple[Address, bytes, bytes]:
    """Where to connect, what stands before every path, and the Host header."""
    wrong = ConfigError(f"{setting}.base_url must be http(s)://host[:port][/path], nothing else")
    try:
        url = urlsplit(upstream.base_url)
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


def _credential(upstream: UpstreamConfig, setting: str, environ: Mapping[str, str]) -> bytes:
    """The Authorization line, or nothing when the upstream asks for none."""
    if upstream.api_key_env is None:
        return b""
    key = environ.get(upstream.api_key_env, "")
    if not _TOKEN.match(key):
        raise ConfigError(f"{setting}.api_key_env names a variable that is unset or no credential")
    return b"authorization: Bearer " + key.encode("ascii") + b"\r\n"
