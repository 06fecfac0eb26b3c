"""The child on its own: what it opens, what it shows of itself, how it ends."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httptools
import msgspec
import pytest

from keepless.inference.embedded.engine import EngineSettings, weights_of
from tests.support.engine import MODEL

SECRET = "walrus-cobalt-9182"


@contextmanager
def child(
    tmp_path: Path, *before: str, pass_fds: tuple[int, ...] = (), **changes
) -> Iterator[tuple[subprocess.Popen, socket.socket, bytes]]:
    """The child behind a command such as strace; its process, our end of its socket, what it said."""
    weights, sha256 = weights_of(MODEL)
    settings = EngineSettings(
        weights=weights,
        sha256=sha256,
        socket=str(tmp_path / "engine.sock"),
        key="the-key",
        alias="model",
        threads=1,
        parallel=1,
        context=512,
    )
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = subprocess.Popen(
                [*before, sys.executable, "-B", "-m", "keepless.inference.embedded.llama_process"],
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=pass_fds,
            )
        try:
            ours.settimeout(60)
            ours.sendall(msgspec.json.encode(msgspec.structs.replace(settings, **changes)) + b"\n")
            yield process, ours, ours.makefile("rb").readline().strip()
        finally:
            ours.close()
            process.wait(20)


class Reading:
    """Enough of an HTTP client for one request on a unix socket."""

    def __init__(self, path: Path, body: dict, key: str = "the-key") -> None:
        self.body, self.done = b"", False
        parser = httptools.HttpResponseParser(self)
        data = msgspec.json.encode(body)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(60)
            sock.connect(str(path))
            sock.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n"
                b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (key.encode(), len(data), data)
            )
            while not self.done:
                parser.feed_data(sock.recv(65536))
        self.status = parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.done = True


def question(**more) -> dict:
    return {"messages": [{"role": "user", "content": f"Say {SECRET}"}], "max_tokens": 5, **more}


def test_it_writes_no_file_and_calls_nobody(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    calls = (
        "open,openat,openat2,creat,rename,renameat,renameat2,link,linkat,mkdir,mkdirat,truncate,memfd_create,connect"
    )
    with child(tmp_path, "strace", "-f", "-qq", "-s", "4096", "-e", f"trace={calls}", "-o", str(trace)) as (_, _, said):
        assert said == b"ready"
        assert Reading(tmp_path / "engine.sock", question()).status == 200
        assert Reading(tmp_path / "engine.sock", question(messages=SECRET)).status == 400
    lines = trace.read_text().splitlines()
    assert any("libllama" in line or "xllamacpp" in line for line in lines), "the trace saw nothing"
    writing = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TMPFILE|creat\(|rename|link(at)?\(|mkdir")
    wrote = [line for line in lines if writing.search(line)]
    assert wrote == []
    assert [line for line in lines if "connect(" in line and "AF_INET" in line] == []
    assert SECRET not in trace.read_text()


def test_it_shows_neither_key_nor_core_nor_environment(tmp_path: Path) -> None:
    with child(tmp_path) as (process, _, said):
        assert said == b"ready"
        folder = Path(f"/proc/{process.pid}")
        assert b"the-key" not in (folder / "cmdline").read_bytes()
        assert re.search(r"Max core file size\s+0\s+0", (folder / "limits").read_text())
        # Not dumpable: its files in /proc belong to root, so no other process of this user can read its memory.
        assert os.stat(folder / "mem").st_uid == 0
        assert oct((tmp_path / "engine.sock").stat().st_mode & 0o777) == "0o700"


def test_it_wants_the_key(tmp_path: Path) -> None:
    with child(tmp_path) as (_, _, said):
        assert said == b"ready"
        assert Reading(tmp_path / "engine.sock", question(), key="another").status == 401


def test_it_ends_when_whoever_started_it_is_gone(tmp_path: Path) -> None:
    with child(tmp_path) as (process, ours, said):
        assert said == b"ready"
        ours.close()
        assert process.wait(10) == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights": "/nonexistent"}, b"weights_missing"),
        ({"sha256": "0" * 64}, b"weights_changed"),
        ({"weights": __file__, "sha256": None}, b"not_loaded"),
    ],
)
def test_what_it_says_when_it_cannot(tmp_path: Path, changes: dict, said: bytes) -> None:
    with child(tmp_path, **changes) as (process, _, word):
        assert word == said
        assert process.wait(10) == 1
