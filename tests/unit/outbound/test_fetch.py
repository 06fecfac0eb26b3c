"""A file of another server: from an allow-list, by the address that was looked at, within bounds, or not at all."""

import asyncio
import io
from collections.abc import Iterator

import pytest

from keepless import log
from keepless.errors import KeeplessError
from keepless.outbound.fetch import BusyError, Fetcher, UnexpectedError
from keepless.outbound.pinned import Failure, OutboundError, Pinned
from keepless.outbound.urls import Target, UrlError
from tests.support.file_host import FileHost, file_host
from tests.support.outside import comes_true

SOUND = b"RIFF" + bytes(5000)
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileHost]:
    with file_host(tmp_path_factory.mktemp("host")) as found:
        yield found


@pytest.fixture(autouse=True)
def _fresh(host: FileHost) -> None:
    host.answers.clear()
    host.asked.clear()


def fetcher(host: FileHost, *, most_bytes: int = 10_000, seconds: float = 60, pinned: Pinned | None = None) -> Fetcher:
    return Fetcher([host.authority], most_bytes=most_bytes, seconds=seconds, pinned=pinned or host.pinned)


def fetch(fetches: Fetcher, url: str) -> bytes:
    async def main() -> bytes:
        return await fetches.fetch(fetches.target(url))

    return asyncio.run(main())


def failure(fetches: Fetcher, url: str) -> Failure:
    with pytest.raises(OutboundError) as caught:
        fetch(fetches, url)
    return caught.value.failure


def test_a_file_comes_as_it_is_and_the_server_learns_nothing_but_its_path(host: FileHost) -> None:
    host.put("/a.wav?signature=x", SOUND)
    assert fetch(fetcher(host), host.url("/a.wav?signature=x")) == SOUND
    assert host.asked == [
        f"GET /a.wav?signature=x HTTP/1.1\r\nhost: {host.authority}\r\nuser-agent: keepless\r\naccept: */*\r\n"
        "accept-encoding: identity\r\nconnection: close\r\n\r\n".encode()
    ]


def test_every_framing_of_http(host: FileHost) -> None:
    host.answers["/chunks"] = OK + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
    host.answers["/end"] = OK + b"\r\nuntil the end"
    host.answers["/hints"] = b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK + b"content-length: 1\r\n\r\nx"
    assert fetch(fetcher(host), host.url("/chunks")) == b"abcde"
    assert fetch(fetcher(host), host.url("/end")) == b"until the end"
    assert fetch(fetcher(host), host.url("/hints")) == b"x"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 302 Found\r\nlocation: https://localhost/\r\n\r\n", Failure.REDIRECTED),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", Failure.STATUS),
        (b"HTTP/1.1 206 Partial Content\r\ncontent-length: 0\r\n\r\n", Failure.STATUS),
        (OK + b"content-length: 10001\r\n\r\n", Failure.TOO_LARGE),
        (OK + b"\r\n" + bytes(10_001), Failure.TOO_LARGE),
        (OK + b"transfer-encoding: chunked\r\n\r\n2711\r\n" + bytes(10_001) + b"\r\n0\r\n\r\n", Failure.TOO_LARGE),
        (OK + b"content-length: 10\r\n\r\nshort", Failure.MALFORMED),
        (OK + b"content-length: 1\r\ncontent-length: 2\r\n\r\nxx", Failure.MALFORMED),
        (OK + b"content-encoding: gzip\r\ncontent-length: 1\r\n\r\nx", Failure.MALFORMED),
        (OK + b"x: " + bytes(40_000), Failure.MALFORMED),
        (b"SSH-2.0-OpenSSH\r\n", Failure.MALFORMED),
        (b"", Failure.MALFORMED),
    ],
)
def test_what_is_no_file(host: FileHost, answer: bytes, expected: Failure) -> None:
    host.answers["/"] = answer
    assert failure(fetcher(host), host.url("/")) is expected
    assert len(host.asked) == 1


def test_a_server_that_never_answers_costs_the_time_out(host: FileHost) -> None:
    assert failure(fetcher(host, seconds=0.5), host.url("/silent")) is Failure.TIMEOUT


@pytest.mark.parametrize(
    "inside", ["127.0.0.1", "::1", "169.254.169.254", "fd00::1", "64:ff9b::a00:1", "::ffff:8.8.8.8"]
)
def test_an_allowed_name_that_leads_inside_is_not_connected_to(host: FileHost, inside: str) -> None:
    async def resolve(*_: object) -> list[str]:
        return ["8.8.8.8", inside]

    name = f"files.example.com:{host.port}"
    fetches = Fetcher([name], most_bytes=10, seconds=60, pinned=Pinned(context=host.context, resolve=resolve))
    assert failure(fetches, f"https://{name}/") is Failure.ADDRESS_REFUSED
    assert host.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "https://other.example.com/", "https://files.example.com:444/", "https://sub.files.example.com/",
        "https://files.example.com@other.example.com/", "https://files.example.com./", "http://files.example.com/",
        "file:///etc/passwd", "https://files.example.com/" + "a" * 8192, "",
    ],
)  # fmt: skip
def test_only_urls_of_allowed_hosts(url: str) -> None:
    with pytest.raises(UrlError):
        Fetcher(["files.example.com"], most_bytes=1, seconds=1, pinned=Pinned()).target(url)


def test_the_names_of_hosts_are_compared_without_case() -> None:
    fetches = Fetcher(["Files.Example.com"], most_bytes=1, seconds=1)
    assert fetches.target("https://FILES.example.com/x") == Target("files.example.com", 443, "/x")


def test_as_many_at_once_as_fit_and_one_that_is_not_wanted_any_more_ends(host: FileHost) -> None:
    async def main() -> list[bytes | KeeplessError]:
        fetches, found = fetcher(host), []
        target = fetches.target(host.url("/silent"))
        cancels = [fetches.start(target, found.append) for _ in range(8)]
        with pytest.raises(BusyError):
            fetches.start(target, found.append)
        await asyncio.to_thread(comes_true, lambda: len(host.asked) == 8)
        for cancel in cancels:
            cancel()
        host.put("/now", SOUND)
        await asyncio.to_thread(host.left.wait, 90)
        fetches.start(fetches.target(host.url("/now")), found.append)
        await asyncio.to_thread(comes_true, lambda: bool(found))
        return found

    host.left.clear()
    assert asyncio.run(main()) == [SOUND]


def test_a_fault_of_ours_is_told_too(host: FileHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits would wait for ever otherwise."""

    async def main() -> bytes | KeeplessError:
        fetches = fetcher(host)
        told: asyncio.Future[bytes | KeeplessError] = asyncio.get_running_loop().create_future()

        async def fails(_: Target) -> bytes:
            raise RuntimeError("zebra")

        monkeypatch.setattr(fetches, "fetch", fails)
        fetches.start(fetches.target(host.url("/a")), told.set_result)
        return await asyncio.wait_for(told, 90)

    said = io.StringIO()
    before = log._sink.stream
    log.redirect(said)
    try:
        assert type(asyncio.run(main())) is UnexpectedError
    finally:
        log.redirect(before)
    assert "RuntimeError" in said.getvalue()
    assert "zebra" not in said.getvalue()
