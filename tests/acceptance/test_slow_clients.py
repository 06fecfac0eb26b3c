"""Clients that do little, slowly, and many at once: memory stays flat and others are served."""

import asyncio
import resource
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepless.config import Limits
from keepless.gateway.server import Reply, Request
from tests.support.http import Calls, Echo, Running, answers, connect, exchange, post, read_until, running, wait_for

IDLE = 10_000
# Opens connections in a process of its own (each end needs a descriptor), says so, and holds them until told to end.
CLIENTS = textwrap.dedent("""
    import resource, select, socket, sys
    port, count, sent = int(sys.argv[1]), int(sys.argv[2]), bytes.fromhex(sys.argv[3])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    clients = []
    for _ in range(count):
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(sent)
        clients.append(client)
    print("ready", flush=True)
    if sys.argv[4:] == ["until closed"]:
        for client in clients:
            while client.recv(65536):
                pass
        print("closed", flush=True)
    sys.stdin.read()
""")


@pytest.fixture
def descriptors() -> Iterator[None]:
    """As many descriptors as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard >= IDLE + 500, "the hard limit of open files is too low for this test: ulimit -Hn"
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def clients(port: int, count: int, sent: bytes = b"", *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CLIENTS, str(port), str(count), sent.hex(), *more]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.stdin.close()
    process.wait(30)
    process.stdout.close()


def resident() -> int:
    """Bytes of memory this process holds."""
    fields = Path("/proc/self/statm").read_text("ascii").split()
    return int(fields[1]) * resource.getpagesize()


def longest_turn(server: Running, seconds: float) -> float:
    """The longest time that the loop did not come round, within a while."""

    async def watch() -> float:
        longest, last = 0.0, time.monotonic()
        until = last + seconds
        while last < until:
            await asyncio.sleep(0)
            now = time.monotonic()
            longest, last = max(longest, now - last), now
        return longest

    return asyncio.run_coroutine_threadsafe(watch(), server.loop).result(seconds + 20)


@pytest.mark.parametrize("sent", [b"", post(b"hello")], ids=["silent", "served once"])
def test_ten_thousand_idle_connections_are_held(sent: bytes, descriptors: None) -> None:
    with running(Echo(), limits=Limits(header_timeout=4)) as server:
        before = resident()
        process = clients(server.port, IDLE, sent)
        try:
            wait_for(lambda: server.server.connections == IDLE and server.server.requests == (IDLE if sent else 0), 30)
            held = resident()
            assert (held - before) / IDLE < 8192, "bytes for each connection"
            for _ in range(200):
                with connect(server.port) as client:
                    client.sendall(post(b"another"))
                    assert b"<another>" in read_until(client, b">")
            longest_turn(server, 2.5)  # at least two scans over all of them
            assert server.server.connections >= IDLE
            assert resident() - held < 8 << 20
        finally:
            end(process)
        wait_for(lambda: server.server.connections == 0, 30)


def test_a_thousand_clients_that_never_finish_their_heads_are_all_refused() -> None:
    limits = Limits(header_timeout=1, body_timeout=1, keep_alive_timeout=1)
    with running(Echo(), limits=limits) as server:
        heads = clients(server.port, 500, post(b"x" * 100)[:-110], "until closed")
        bodies = clients(server.port, 500, post(b"x" * 100)[:-10], "until closed")
        assert answers(exchange(server.port, post(b"meanwhile", close=True)))[0].body == b"<meanwhile>"
        for process in (heads, bodies):
            assert process.stdout.readline() == "closed\n"
            end(process)
        wait_for(lambda: server.server.connections == 0)
        assert len(server.refused) == 1000
        assert {problem.code for problem, _, _ in server.refused} == {"client_timeout"}


class Endless:
    """A stream that gives as much as it may."""

    def __init__(self) -> None:
        self.given = 0
        self.left = False

    def handle(self, request: Request, reply: Reply) -> None:
        piece = b"data: " + b"x" * 1000 + b"\n\n"

        def give() -> None:
            if not reply.paused and not reply.closed:
                for _ in range(16):
                    reply.data(piece)
                self.given += 16 * len(piece)
                asyncio.get_running_loop().call_soon(give)

        def leave() -> None:
            self.left = True

        reply.on_resume = give
        reply.on_disconnect = leave
        reply.stream_start(200, b"content-type: text/event-stream\r\n")
        give()


def test_a_slow_reader_does_not_fill_the_memory() -> None:
    endless = Endless()
    with running(endless) as server, connect(server.port, receive_buffer=65536) as client:
        client.sendall(post())
        read_until(client, b"\r\n\r\n")
        wait_for(lambda: endless.given > 100_000)
        time.sleep(0.2)
        [connection] = server.server._serving.connections
        assert connection.transport.get_write_buffer_size() < 1 << 20
        before, given = resident(), endless.given
        read = 0
        while read < 64 << 20:
            read += len(client.recv(1 << 16))
            if read % (1 << 20) < 1 << 16:
                time.sleep(0.005)
        assert endless.given - given > 60 << 20
        assert resident() - before < 16 << 20
    wait_for(lambda: endless.left)


def test_many_slow_readers_do_not_fill_the_memory() -> None:
    with running(Calls(lambda request, reply: Endless().handle(request, reply))) as server:
        before = resident()
        process = clients(server.port, 200, post())
        try:
            wait_for(lambda: server.server.requests == 200)
            wait_for(lambda: all(connection.paused for connection in tuple(server.server._serving.connections)), 30)
            assert (resident() - before) / 200 < 512 * 1024, "bytes for each connection"
        finally:
            end(process)
        wait_for(lambda: server.server.connections == 0)
