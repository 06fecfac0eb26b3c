"""A customer's own file server: HTTPS on loopback with a certificate of its own, saying whatever a test wants."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from keepless.outbound.pinned import Pinned
from tests.support.receiver import make_certificate


@dataclass
class FileHost:
    """`answers`: the raw answer of each path; a path that has none is never answered. `asked`: heads, as they came."""

    port: int
    context: ssl.SSLContext
    answers: dict[str, bytes] = field(default_factory=dict)
    asked: list[bytes] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)  # who was not answered has left

    @property
    def authority(self) -> str:
        return f"localhost:{self.port}"

    @property
    def pinned(self) -> Pinned:
        """May connect to this server alone because a test says so: loopback is allowed, its certificate trusted."""
        return Pinned(allow_private=True, context=self.context)

    def url(self, path: str) -> str:
        return f"https://{self.authority}{path}"

    def put(self, path: str, body: bytes, status: str = "200 OK", *fields: str) -> None:
        lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *fields]
        self.answers[path] = "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@contextlib.contextmanager
def file_host(folder: Path) -> Iterator[FileHost]:
    """A file server for the time of a `with`."""
    certificate, key = make_certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listening = socket.create_server(("127.0.0.1", 0))
    host = FileHost(listening.getsockname()[1], ssl.create_default_context(cafile=str(certificate)))
    threads: list[threading.Thread] = []

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as secure:
            secure.settimeout(60)
            head = b""
            while b"\r\n\r\n" not in head and (more := secure.recv(4096)):
                head += more
            if not head:
                return
            host.asked.append(head)
            answer = host.answers.get(head.split(b" ")[1].decode())
            if answer is not None:
                secure.sendall(answer)
            elif not _more(secure):
                host.left.set()

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=serve, args=(connection,)))
            threads[-1].start()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield host
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        for one in (thread, *threads):
            one.join(90)


def _more(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1)
    except OSError:
        return b""
