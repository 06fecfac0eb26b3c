"""Bad input, named: each gets a clear error in OpenAI's shape, one usage row, and nothing of it is said or kept."""

import json
import socket
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.outside import Answer, Organization, call, comes_true, holding
from tests.support.serve import Served, serve, upstream_models
from tests.support.upstream import MockUpstream

MARKER = "bad-7d20aa-marker"
GOOD = json.dumps({"model": "ok", "messages": [{"role": "user", "content": MARKER}]}).encode()
LIMITS = {"body_bytes": 1 << 20, "header_timeout": 1.0, "body_timeout": 1.0, "json_depth": 50}


def nested(depth: int) -> bytes:
    deep = b'{"a":' * depth + b"1" + b"}" * depth
    tool = b'{"type":"function","function":{"name":"f","parameters":%b}}' % deep
    return GOOD[:-1] + b',"tools":[%b]}' % tool


BODIES: dict[str, tuple[bytes, int, str]] = {
    "nothing": (b"", 400, "invalid_json"),
    "truncated": (GOOD[:-2], 400, "invalid_json"),
    "two values": (GOOD + GOOD, 400, "invalid_json"),
    "not an object": (b"[" + GOOD + b"]", 400, "invalid_json"),
    "duplicate key": (GOOD[:-1] + b',"model":"ok"}', 400, "invalid_json"),
    "duplicate key far down": (GOOD[:-1] + b',"metadata":{"a":"1","a":"2"}}', 400, "invalid_json"),
    "deep nesting": (nested(60), 400, "invalid_json"),
    "nesting that would overflow a stack": (nested(100_000), 400, "invalid_json"),
    "NaN": (GOOD[:-1] + b',"temperature":NaN}', 400, "invalid_json"),
    "Infinity": (GOOD[:-1] + b',"temperature":Infinity}', 400, "invalid_json"),
    "a number beyond every number": (GOOD[:-1] + b',"temperature":1e999}', 400, "invalid_json"),
    "invalid UTF-8": (GOOD.replace(b"bad-", b"\xff\xfe"), 400, "invalid_json"),
    "half a surrogate pair": (GOOD.replace(b"bad-", b"\\ud800"), 400, "invalid_json"),
    "a byte order mark": (b"\xef\xbb\xbf" + GOOD, 400, "invalid_json"),
    "UTF-16": (GOOD.decode().encode("utf-16"), 400, "invalid_json"),
    "too large": (GOOD[:-1] + b" " * (1 << 20) + b"}", 413, "request_too_large"),
    "wrong type": (GOOD.replace(b'"ok"', b"7"), 400, "invalid_type"),
}


@pytest.fixture(scope="module")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream() as mock:
        yield mock


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bad")


@pytest.fixture(scope="module")
def served(folder: Path, upstream: MockUpstream) -> Iterator[Served]:
    limits = {f"limits.{name}": value for name, value in LIMITS.items()}
    with serve(folder, upstream_models(upstream.base_url), settings=limits) as server:
        yield server


@pytest.fixture(scope="module")
def customer(served: Served) -> Organization:
    return Organization.of(served.url, served.told)


def rows(folder: Path, answer: Answer) -> int:
    """Usage rows of one request."""
    with sqlite3.connect(f"file:{folder}/data/keepless.sqlite?mode=ro", uri=True) as db:
        asked = (answer.headers["x-request-id"],)
        (count,) = db.execute("SELECT count(*) FROM usage WHERE request_id = ?", asked).fetchone()
    db.close()
    return count


def exchange(url: str, sent: bytes, *, seconds: float = 10.0) -> Answer:
    """Send bytes as they are, read to the end of the connection."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=seconds) as client:
        client.sendall(sent)
        got = b""
        while part := client.recv(65536):
            got += part
    head, _, body = got.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}
    return Answer(int(status.split(" ")[1]), headers, body)


def refused(answer: Answer, status: int, code: str) -> None:
    error = answer.json["error"]
    assert (answer.status, error["code"]) == (status, code)
    assert set(error) >= {"message", "type", "param", "code"} and error["message"]
    assert answer.kept == "none" and answer.headers["x-request-id"].startswith("req_")
    assert MARKER not in str(answer)


@pytest.mark.parametrize(("body", "status", "code"), BODIES.values(), ids=BODIES)
def test_bodies(
    served: Served, customer: Organization, folder: Path, upstream: MockUpstream, body: bytes, status: int, code: str
) -> None:
    asked = len(upstream.received)
    answer = call(served.url, "POST", "/v1/chat/completions", customer.api_key, body)
    refused(answer, status, code)
    comes_true(lambda: rows(folder, answer) == 1)
    assert len(upstream.received) == asked, "no engine has seen it"
    assert call(served.url, "POST", "/v1/chat/completions", customer.api_key, GOOD).status == 200, "others go on"


HEAD = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"


@pytest.mark.parametrize(
    ("more", "body", "status", "code"),
    [
        (f"x-filler: {MARKER * 4000}\r\ncontent-length: 2\r\n", b"{}", 431, "headers_too_large"),
        ("".join(f"x-{n}: {MARKER}\r\n" for n in range(3000)) + "content-length: 2\r\n", b"{}", 431,
         "headers_too_large"),
        ("content-length: 2000000\r\n", b"", 413, "request_too_large"),
        (f"content-length: {len(GOOD)}\r\ncontent-length: 5\r\n", GOOD, 400, "bad_http"),
        (f"content-length: {len(GOOD)}\r\ntransfer-encoding: chunked\r\n", GOOD, 400, "bad_http"),
        (f"content-length: {len(GOOD) + 10}\r\n", GOOD, 408, "client_timeout"),
        (f"content-length: {len(GOOD)}\r\ncontent-encoding: gzip\r\n", GOOD, 415, "unsupported_value"),
    ],
    ids=["a huge header", "many headers", "too large by its own word", "two lengths", "CL and TE", "a slow body",
         "a coded body"],
)  # fmt: skip
def test_heads(
    served: Served, customer: Organization, folder: Path, more: str, body: bytes, status: int, code: str
) -> None:
    sent = (HEAD.format(key=customer.api_key) + more + "\r\n").encode() + body
    answer = exchange(served.url, sent)
    refused(answer, status, code)
    comes_true(lambda: rows(folder, answer) == 1)


def test_a_slash_too_many_is_an_unknown_path_and_no_redirect(served: Served, customer: Organization) -> None:
    """A redirect would repeat the Host field that the client sent, and say http behind a proxy that does TLS."""
    for path in ("/v1/chat/completions/", "/v1/organization/data_controls/"):
        answer = call(served.url, "POST", path, customer.api_key, GOOD)
        assert (answer.status, answer.json["error"]["code"]) == (404, "unknown_url")


def test_a_head_that_never_ends_is_cut_off(served: Served, customer: Organization) -> None:
    refused(exchange(served.url, HEAD.format(key=customer.api_key).encode()), 408, "client_timeout")


def test_a_body_that_drips_is_cut_off(served: Served, customer: Organization) -> None:
    """A byte now and then does not buy more time."""
    parts = urlsplit(served.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as client:
        head = HEAD.format(key=customer.api_key) + f"content-length: {len(GOOD)}\r\n\r\n"
        client.sendall(head.encode())
        client.settimeout(0.2)
        got = b""
        for byte in GOOD:
            try:
                client.sendall(bytes([byte]))
                got = client.recv(65536)
                break
            except TimeoutError:
                continue
    assert got.startswith(b"HTTP/1.1 408 ")


def test_nothing_of_it_is_anywhere(served: Served, folder: Path) -> None:
    assert holding(folder, MARKER.encode()) == []
    assert MARKER not in "".join(served.log)
    assert not [line for line in served.log if "server:request:failed" in line], "a refusal is not a fault of ours"
