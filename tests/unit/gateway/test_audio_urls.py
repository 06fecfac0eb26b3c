"""Audio by url through the whole way, from a real TLS server: fetched for whom the operator allows, or refused."""

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec
import pytest

from keepless.config import Endpoint, Engine, ModelConfig, UpstreamRetention
from keepless.content import Content, Purpose
from keepless.errors import Code
from keepless.gateway.line import Collector
from keepless.inference.router import Route
from keepless.outbound.fetch import Fetcher
from keepless.outbound.pinned import Pinned
from keepless.usage.record import Endpoint as Recorded
from tests.support.file_host import FileHost, file_host
from tests.support.outside import comes_true
from tests.support.way import FakeBackend, FakeReply, Harness, answer

SOUND = b"RIFF" + bytes(96)
HEARD = b'{"text":"so","usage":{"type":"duration","seconds":2.5}}'
WHISPER = ModelConfig(id="whisper", engine=Engine.WHISPER, retention=UpstreamRetention.ZERO)
ELSEWHERE = ModelConfig(
    id="elsewhere",
    engine=Engine.OPENAI,
    base_url="http://x",
    retention=UpstreamRetention.ZERO,
    endpoints=[Endpoint.TRANSCRIPTIONS, Endpoint.TRANSLATIONS],
)
SECRET = "MARKER"  # of the url's path: a signature, say


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FileHost]:
    with file_host(tmp_path_factory.mktemp("host")) as found:
        found.put(f"/{SECRET}.wav", SOUND)
        found.put("/empty", b"")
        found.put("/large", bytes(1001))
        found.put("/moved", b"", "302 Found", "location: https://elsewhere.example.com/")
        found.put("/gone", b"", "404 Not Found")
        found.answers["/odd"] = b"MARKER\r\n\r\n"
        yield found


def through(
    use: Callable[[Harness, FakeBackend], Awaitable[None]], host: FileHost | None, *, pinned: Pinned | None = None
) -> None:
    async def main() -> None:
        fetcher = None
        if host is not None:
            fetcher = Fetcher([host.authority], most_bytes=1000, seconds=60, pinned=pinned or host.pinned)
        backend = FakeBackend(answer(HEARD))
        harness = Harness(routes=[Route(WHISPER, backend), Route(ELSEWHERE, backend)], fetcher=fetcher)
        try:
            await use(harness, backend)
        finally:
            harness.close()

    asyncio.run(main())


async def hear(harness: Harness, url: str, to: Endpoint = Endpoint.TRANSCRIPTIONS, **more: Any) -> FakeReply:
    reply = harness.send({"model": "whisper", "url": url, **more}, to=to)
    await asyncio.wait_for(reply.done.wait(), 90)
    return reply


@pytest.mark.parametrize("to", [Endpoint.TRANSCRIPTIONS, Endpoint.TRANSLATIONS])
def test_an_engine_hears_what_was_fetched(host: FileHost, to: Endpoint) -> None:
    async def use(harness: Harness, backend: FakeBackend) -> None:
        reply = await hear(harness, host.url(f"/{SECRET}.wav"), to)
        assert (reply.status, reply.body) == (200, HEARD)
        assert backend.bodies[0][1] == SOUND
        (row,) = harness.rows
        assert (row.endpoint, row.status, row.audio_ms) == (Recorded(to.value), 200, 2500)
        assert row.bytes_in < 200
        assert SECRET not in repr(row)

    through(use, host)


def test_an_upstream_is_sent_the_audio_and_not_the_url(host: FileHost) -> None:
    async def use(harness: Harness, backend: FakeBackend) -> None:
        reply = await hear(harness, host.url(f"/{SECRET}.wav"), model="elsewhere")
        assert reply.status == 200
        form: Any = backend.bodies[0]
        assert SOUND in form
        assert SECRET.encode() not in form

    through(use, host)


def test_a_line_of_a_batch_fetches_too(host: FileHost) -> None:
    async def use(harness: Harness, backend: FakeBackend) -> None:
        told: asyncio.Future[tuple[int, Content]] = asyncio.get_running_loop().create_future()
        assert harness.lease.known is not None
        body = msgspec.json.encode({"model": "whisper", "url": host.url(f"/{SECRET}.wav")})
        collector = Collector(lambda status, content: told.set_result((status, content)))
        harness.handlers[Endpoint.TRANSCRIPTIONS].line(harness.lease.known, body, collector)
        status, content = await asyncio.wait_for(told, 90)
        assert (status, content.reveal(Purpose.PROVE)) == (200, HEARD)
        assert backend.bodies[0][1] == SOUND

    through(use, host)


@pytest.mark.parametrize(
    ("path", "status", "code", "why"),
    [
        ("/empty", 400, Code.INVALID_VALUE, "The audio file is empty."),
        ("/large", 413, Code.REQUEST_TOO_LARGE, "The audio is larger than 1000 bytes"),
        ("/moved", 400, Code.URL_UNREACHABLE, "redirects, which is not followed."),
        ("/gone", 400, Code.URL_UNREACHABLE, "its host does not give the file."),
        ("/odd", 400, Code.URL_UNREACHABLE, "an answer that cannot be understood."),
    ],
)
def test_what_cannot_be_fetched_is_said_in_our_words(
    host: FileHost, path: str, status: int, code: Code, why: str
) -> None:
    async def use(harness: Harness, backend: FakeBackend) -> None:
        reply = await hear(harness, host.url(path))
        assert (reply.status, reply.error["code"], reply.error["param"]) == (status, code, "url")
        assert why in reply.error["message"]
        assert b"MARKER" not in reply.body
        assert b"localhost" not in reply.body
        assert [row.code for row in harness.rows] == [code]
        assert not backend.calls

    through(use, host)


def test_a_fault_of_ours_is_answered_as_one(host: FileHost, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object) -> bytes:
        raise RuntimeError(SECRET)

    async def use(harness: Harness, backend: FakeBackend) -> None:
        reply = await hear(harness, host.url(f"/{SECRET}.wav"))
        assert (reply.status, reply.error["code"]) == (500, Code.INTERNAL)
        assert SECRET.encode() not in reply.body
        assert [row.code for row in harness.rows] == [Code.INTERNAL]
        assert not backend.calls

    monkeypatch.setattr(Fetcher, "fetch", fails)
    through(use, host)


@pytest.mark.parametrize("allowed", [False, True])
def test_what_is_not_allowed_is_not_asked_for(host: FileHost, allowed: bool) -> None:
    async def use(harness: Harness, _: FakeBackend) -> None:
        reply = await hear(harness, f"https://other.example.com/{SECRET}")
        code = Code.INVALID_VALUE if allowed else Code.UNSUPPORTED_VALUE
        assert (reply.status, reply.error["code"], reply.error["param"]) == (400, code, "url")
        assert SECRET.encode() not in reply.body
        reply = harness.send({"model": "whisper", "url": host.url("/silent")}, key=None, to=Endpoint.TRANSCRIPTIONS)
        assert reply.status == 401

    before = len(host.asked)
    through(use, host if allowed else None)
    assert len(host.asked) == before


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "10.1.2.3", "64:ff9b::7f00:1", "::ffff:127.0.0.1"])
def test_an_allowed_host_that_leads_inside_is_refused(host: FileHost, address: str) -> None:
    async def resolve(*_: object) -> list[str]:
        return [str(ipaddress.ip_address(address))]

    async def main() -> None:
        fetcher = Fetcher(["files.example.com"], most_bytes=9, seconds=60, pinned=Pinned(resolve=resolve))
        harness = Harness(routes=[Route(WHISPER, FakeBackend())], fetcher=fetcher)
        reply = await hear(harness, "https://files.example.com/")
        assert (reply.status, reply.error["code"]) == (400, Code.URL_UNREACHABLE)
        assert "not public" in reply.error["message"]
        harness.close()

    asyncio.run(main())


def test_a_client_that_leaves_ends_the_fetch_and_leaves_a_row(host: FileHost) -> None:
    async def use(harness: Harness, backend: FakeBackend) -> None:
        before = len(host.asked)
        reply = harness.send({"model": "whisper", "url": host.url("/silent")}, to=Endpoint.TRANSCRIPTIONS)
        await asyncio.to_thread(comes_true, lambda: len(host.asked) > before)
        reply.leave()
        assert await asyncio.to_thread(host.left.wait, 90)
        assert [(row.status, row.code) for row in harness.rows] == [(499, Code.CLIENT_CLOSED)]
        assert not backend.calls

    host.left.clear()
    through(use, host)


def test_more_than_fit_are_told_to_come_again(host: FileHost) -> None:
    async def use(harness: Harness, _: FakeBackend) -> None:
        silent = {"model": "whisper", "url": host.url("/silent")}
        waiting = [harness.send(silent, to=Endpoint.TRANSCRIPTIONS) for _ in range(8)]
        reply = await hear(harness, host.url("/silent"))
        assert (reply.status, reply.error["code"], reply.headers["retry-after"]) == (503, Code.OVERLOADED, "1")
        for one in waiting:
            one.leave()
        assert len(harness.rows) == 9

    through(use, host)
