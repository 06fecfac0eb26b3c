"""The command line's client of a server, on the standard library.

Holds: `Client`, `UnreachableError`. A redirect is not followed (the key would go with it), and the key is taken from
`KEEPLESS_ADMIN_KEY` (or `KEEPLESS_API_KEY`) rather than the command line, which other users of a machine can read. A
refusal becomes a `FindingError` with the server's own error object. A file is sent as it is read.
"""

import http.client
import json
import secrets
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

import click

from keepless.cli.outcome import FindingError
from keepless.cli.output import Advance

__all__ = ["API_KEY", "Client", "UnreachableError", "segment"]

_TIMEOUT_S: Final = 60
_PAGE: Final = 100
ADMIN_KEY: Final = "an admin key is needed: set KEEPLESS_ADMIN_KEY or give --admin-key"
API_KEY: Final = "an API key is needed: set KEEPLESS_API_KEY or give --api-key"
_PIECE: Final = 1 << 16
Json = dict[str, Any]


class UnreachableError(FindingError):
    """Nothing answered, or nothing of ours."""


def segment(text: str) -> str:
    """A value as one segment of a path."""
    return quote(text, safe="")


def _silent(done: int, total: int | None = None) -> None:
    """Nobody watches."""


@dataclass(frozen=True)
class Client:
    """One server and one key; `needs` is said when there is none."""

    base_url: str
    key: str | None
    needs: str = ADMIN_KEY

    def get(self, path: str, **query: object) -> Json:
        """Raises `FindingError` for a refusal or an unreachable server, as every method here."""
        return self._call("GET", path, None, query)

    def post(self, path: str, body: Mapping[str, object] | None = None, *, idempotency_key: str | None = None) -> Json:
        """Send what is not None."""
        more = None if idempotency_key is None else {"idempotency-key": idempotency_key}
        return self._call("POST", path, {k: v for k, v in (body or {}).items() if v is not None}, {}, more)

    def delete(self, path: str, **query: object) -> Json:
        """Delete one thing."""
        return self._call("DELETE", path, None, query)

    def each(self, path: str, **query: object) -> Iterator[Json]:
        """Every item of a list, page by page."""
        after: str | None = None
        while True:
            page = self.get(path, limit=_PAGE, after=after, **query)
            yield from page["data"]
            if not page.get("has_more"):
                return
            after = page["last_id"]

    def text(self, path: str) -> str:
        """The body of a GET as it came; `path` begins at the server's root."""
        status, raw = self._ask("GET", self._base + path, None)
        if status >= 300:
            raise _refused(status, _json(raw))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise _unreachable() from None

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None,
        query: Mapping[str, object],
        more: Mapping[str, str] | None = None,
    ) -> Json:
        if not self.key:
            raise click.UsageError(self.needs)
        given = {k: str(v).lower() if isinstance(v, bool) else v for k, v in query.items() if v is not None}
        target = f"{self._base}/v1{path}" + (f"?{urlencode(given)}" if given else "")
        status, raw = self._ask(method, target, None if body is None else json.dumps(body).encode(), more)
        return _answered(status, raw)

    def upload(self, path: Path, purpose: str, advance: Advance = _silent) -> Json:
        """Upload a file under its own name; `advance` is told of the bytes that were sent, of how many."""
        if not self.key:
            raise click.UsageError(self.needs)
        boundary = secrets.token_hex(16)
        name = path.name.replace("\\", "\\\\").replace('"', '\\"')
        field = 'content-disposition: form-data; name="purpose"\r\n\r\n'
        file = f'content-disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        head = f"--{boundary}\r\n{field}{purpose}\r\n--{boundary}\r\n{file}".encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        size = len(head) + path.stat().st_size + len(tail)
        headers = {"content-type": f"multipart/form-data; boundary={boundary}", "content-length": str(size)}
        return _answered(*self._ask("POST", f"{self._base}/v1/files", _form(head, path, tail, advance), headers))

    def download(self, path: str, write: Callable[[bytes], object], advance: Advance = _silent) -> int:
        """Hand the body of a GET on as it comes; its bytes. A body that ends too soon is a refusal."""
        if not self.key:
            raise click.UsageError(self.needs)
        size = 0
        try:
            connection = self._connect()
            try:
                connection.request("GET", f"{self._base}/v1{path}", headers={"authorization": f"Bearer {self.key}"})
                answer = connection.getresponse()
                if answer.status != 200:
                    raise _refused(answer.status, _json(answer.read()))
                length = answer.length
                while piece := answer.read(_PIECE):
                    write(piece)
                    size += len(piece)
                    advance(size, length)
            finally:
                connection.close()
        except (http.client.HTTPException, ConnectionError, TimeoutError, ValueError):
            raise _unreachable() from None
        if length is not None and size != length:
            raise _unreachable()
        return size

    def _ask(
        self, method: str, target: str, data: bytes | Iterable[bytes] | None, more: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        headers = {"accept": "application/json"}
        if self.key:
            headers["authorization"] = f"Bearer {self.key}"
        if data is not None:
            headers["content-type"] = "application/json"
        headers.update(more or {})
        try:
            connection = self._connect()
            try:
                connection.request(method, target, data, headers)
                answer = connection.getresponse()
                return answer.status, answer.read()
            finally:
                connection.close()
        except ssl.SSLCertVerificationError:
            raise _untrusted() from None
        except (OSError, http.client.HTTPException, ValueError):
            raise _unreachable() from None

    @property
    def _base(self) -> str:
        path = urlsplit(self.base_url).path.rstrip("/")
        return path.removesuffix("/v1").removesuffix("/openai")

    def _connect(self) -> http.client.HTTPConnection:
        url = urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise click.UsageError("--base-url is http://HOST:PORT or https://HOST:PORT")
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        return kind(url.hostname, url.port, timeout=_TIMEOUT_S)


def _json(raw: bytes) -> object:
    try:
        return json.loads(raw)
    except ValueError:
        raise _unreachable() from None


def _answered(status: int, raw: bytes) -> Json:
    value = _json(raw)
    if not isinstance(value, dict) or status >= 300:
        raise _refused(status, value)
    return value


def _form(head: bytes, path: Path, tail: bytes, advance: Advance) -> Iterator[bytes]:
    yield head
    sent, size = 0, path.stat().st_size
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece
            sent += len(piece)
            advance(sent, size)
    yield tail


def _unreachable() -> FindingError:
    return UnreachableError("the server cannot be reached, or what answered is not Keepless")


def _untrusted() -> FindingError:
    return UnreachableError(
        "the server's certificate is not trusted on this machine; SSL_CERT_FILE can name the authority that signed it"
    )


def _refused(status: int, value: object) -> FindingError:
    error = value.get("error") if isinstance(value, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return FindingError(f"the server answered {status}, which this command does not understand")
    return FindingError(error["message"], {"error": error, "status": status})
