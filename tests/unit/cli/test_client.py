"""The client of the command line: where it asks, what it refuses, what it never sends."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import click
import pytest

from keepless.cli.client import Client, segment
from keepless.cli.outcome import FindingError

SEEN: list[tuple[str, str | None]] = []


class _Strange(BaseHTTPRequestHandler):
    """Answers by path: a redirect, something that is not JSON, something without an error object."""

    def do_GET(self) -> None:
        SEEN.append((self.path, self.headers.get("authorization")))
        if "redirect" in self.path:
            self.send_response(302)
            self.send_header("location", "http://127.0.0.1:1/stolen")
            self.end_headers()
            return
        self.send_response(500 if "broken" in self.path else 200)
        self.end_headers()
        self.wfile.write(b'{"x": 1}' if "json" in self.path else b"<html>")

    def log_message(self, *_: object) -> None:
        """Silence."""


@pytest.fixture
def strange() -> Iterator[str]:
    SEEN.clear()
    server = HTTPServer(("127.0.0.1", 0), _Strange)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/", "/openai/v1", "/openai/v1/"])
def test_any_usual_base_url(strange: str, suffix: str) -> None:
    assert Client(strange + suffix, "k").get("/json", a="b c", none=None, yes=True) == {"x": 1}
    assert SEEN == [("/v1/json?a=b+c&yes=true", "Bearer k")]


def test_a_prefix_of_a_proxy_stays(strange: str) -> None:
    Client(f"{strange}/ai/openai/v1", "k").get("/json")
    assert SEEN[0][0] == "/ai/v1/json"


@pytest.mark.parametrize("path", ["/html", "/broken", "/broken-json", "/redirect"])
def test_what_is_not_keepless_is_a_finding(strange: str, path: str) -> None:
    with pytest.raises(FindingError):
        Client(strange, "k").get(path)
    assert len(SEEN) == 1  # a redirect is not followed: the key would go with it


def test_an_unreachable_server_is_a_finding() -> None:
    with pytest.raises(FindingError, match="cannot be reached"):
        Client("http://127.0.0.1:1", "k").get("/x")


@pytest.mark.parametrize("url", ["ftp://h", "127.0.0.1:8000", "http://", "file:///etc/passwd"])
def test_base_urls_that_are_none(url: str) -> None:
    with pytest.raises(click.UsageError):
        Client(url, "k").get("/x")


def test_no_key_is_wrong_usage() -> None:
    with pytest.raises(click.UsageError, match="KEEPLESS_ADMIN_KEY"):
        Client("http://127.0.0.1:1", None).get("/x")


def test_a_segment_stays_one() -> None:
    assert segment("../a?b#c/d") == "..%2Fa%3Fb%23c%2Fd"
