"""The server around its connections: limits, the graceful stop, sockets, TLS."""

import asyncio
import contextlib
import datetime as dt
import json
import socket
import ssl
import threading
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from keepless.config import Limits
from keepless.errors import Code
from keepless.gateway.server import Reply, Request, Server, create_listening_socket
from tests.support.http import (
    CHAT,
    Calls,
    Echo,
    answers,
    connect,
    exchange,
    no_app,
    post,
    read_all,
    read_until,
    running,
    wait_for,
)


class Held:
    """Keeps replies for the test to answer later."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.left = 0

    def handle(self, request: Request, reply: Reply) -> None:
        def leave() -> None:
            self.left += 1

        reply.on_disconnect = leave
        self.replies.append(reply)


def test_every_answer_is_dated() -> None:
    with running(Echo()) as server:
        found = answers(exchange(server.port, post() + b"nonsense\r\n\r\n"))
    now = dt.datetime.now(dt.UTC)
    for answer in found:
        assert abs(parsedate_to_datetime(answer.headers["date"]) - now) < dt.timedelta(seconds=5)


def test_small_writes_are_not_delayed() -> None:
    with running(Echo()) as server, connect(server.port):
        wait_for(lambda: server.server.connections)
        [connection] = server.server._serving.connections
        accepted = connection.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_connections_beyond_the_limit_are_told_to_come_back() -> None:
    with running(Echo(), limits=Limits(connections=2)) as server:
        first, second = connect(server.port), connect(server.port)
        wait_for(lambda: server.server.connections == 2)
        [answer] = answers(exchange(server.port, b""))
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert json.loads(answer.body)["error"]["code"] == "overloaded"
        assert [problem.code for problem, _, _ in server.refused] == [Code.OVERLOADED]
        first.close()
        wait_for(lambda: server.server.connections < 2)
        assert answers(exchange(server.port, post(close=True)))[0].status == 200
        second.close()


def test_a_flood_of_connections_beyond_the_limit_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keepless.gateway.connection._REFUSALS", 1)
    with running(Echo(), limits=Limits(connections=1)) as server, connect(server.port):
        wait_for(lambda: server.server.connections == 1)
        with connect(server.port) as told, connect(server.port) as cut:
            assert read_all(told)
            with contextlib.suppress(ConnectionResetError):
                assert read_all(cut) == b""
        assert len(server.refused) == 1


def test_draining_finishes_what_is_in_work_and_closes_the_rest() -> None:
    held = Held()
    with running(held) as server:
        idle, busy = connect(server.port), connect(server.port)
        busy.sendall(post(b"question") + post(b"ahead"))
        wait_for(lambda: held.replies)
        draining = threading.Thread(target=server.drain, args=(10,))
        draining.start()
        assert read_all(idle) == b""
        wait_for(lambda: server.server._serving.draining)
        with pytest.raises(ConnectionRefusedError):
            connect(server.port)
        server.soon(lambda: held.replies[0].full(200, b"", b"answer"))
        [answer] = answers(read_all(busy))
        assert (answer.body, answer.headers["connection"]) == (b"answer", "close")
        draining.join(5)
        assert not draining.is_alive()
        assert (len(held.replies), held.left) == (1, 0)
        idle.close()
        busy.close()


def test_draining_cuts_what_does_not_end_in_time() -> None:
    held = Held()
    with running(held) as server, connect(server.port) as client:
        client.sendall(post())
        wait_for(lambda: held.replies)
        begun = time.monotonic()
        server.drain(0.2)
        assert time.monotonic() - begun < 5
        assert (held.left, server.server.connections) == (1, 0)


def test_a_drained_server_does_nothing_more() -> None:
    async def main() -> None:
        server = Server({}, no_app, Limits())
        listening = create_listening_socket("127.0.0.1", 0)
        await server.listen(listening)
        await server.drain(1)
        assert server._timer.cancelled()
        assert (server.connections, server.accepted, server.requests, server.refused) == (0, 0, 0, 0)

    uvloop.run(main())


def test_the_server_also_runs_on_asyncio() -> None:
    async def main() -> None:
        echo = Echo()
        server = Server({CHAT: echo}, no_app, Limits())
        listening = create_listening_socket("127.0.0.1", 0)
        port = listening.getsockname()[1]
        await server.listen(listening)
        raw = await asyncio.to_thread(exchange, port, post(b"a") + post(b"b", b"/other", close=True))
        assert [answer.body for answer in answers(raw)] == [b"<a>", b"nothing here"]
        await server.drain(1)

    asyncio.run(main())


def test_several_processes_may_listen_on_one_port() -> None:
    first = create_listening_socket("127.0.0.1", 0, reuse_port=True)
    second = create_listening_socket("127.0.0.1", first.getsockname()[1], reuse_port=True)
    assert first.getsockname() == second.getsockname()
    first.close()
    second.close()


def test_a_port_in_use_is_an_error() -> None:
    with create_listening_socket("127.0.0.1", 0) as first, pytest.raises(OSError, match="in use"):
        create_listening_socket("127.0.0.1", first.getsockname()[1])


def test_ipv6() -> None:
    with create_listening_socket("::1", 0) as listening:
        assert listening.family == socket.AF_INET6


def test_tls(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(certificate)
    schemes = []

    async def app(scope: dict, receive: object, send: object) -> None:
        schemes.append(scope["scheme"])
        await no_app(scope, receive, send)

    def ask(port: int, sent: bytes, end: bytes) -> bytes:
        client_side = ssl.create_default_context(cafile=str(certificate))
        with connect(port) as plain, client_side.wrap_socket(plain, server_hostname="localhost") as client:
            client.sendall(sent)
            return read_until(client, end)

    async def main() -> None:
        big = Calls(lambda request, reply: reply.full(200, b"", bytes(300_000)))
        server = Server({CHAT: big}, app, Limits())
        listening = create_listening_socket("127.0.0.1", 0)
        await server.listen(listening, server_side)
        port = listening.getsockname()[1]
        raw = await asyncio.to_thread(ask, port, post() + post(b"", b"/other", close=True), b"here")
        assert [len(answer.body) for answer in answers(raw)] == [300_000, 12]
        [refusal] = answers(await asyncio.to_thread(ask, port, b"nonsense\r\n\r\n", b"}}"))
        assert refusal.status == 400
        await server.drain(1)

    uvloop.run(main())
    assert schemes == ["https"]


def self_signed(folder: Path) -> Path:
    """A key and certificate for localhost in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "localhost.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return file
