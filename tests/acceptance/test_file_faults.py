"""Uploads on a bad day: a full disk half way, a kill half way, and the largest file in flat memory."""

import http.client
import json
import os
import resource
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import openai
import pytest

from tests.support.outside import keepless
from tests.support.serve import Served, serve

MARKER = b"marker-f00d"
MODEL = {"id": "m", "engine": "openai", "base_url": "http://127.0.0.1:9/v1", "retention": "zero"}
HEAD = b'--b0\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
HEAD += b'--b0\r\nContent-Disposition: form-data; name="file"; filename="marker-name"\r\n\r\n'
TAIL = b"\r\n--b0--\r\n"
MIB = 1 << 20


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path, [MODEL]) as server:
        yield server


class Upload:
    """One upload by hand: of so many bytes, as far as the test lets it come."""

    def __init__(self, served: Served, size: int) -> None:
        at = urlsplit(served.url)
        self.raw = socket.create_connection((at.hostname, at.port), timeout=60)
        head = f"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {served.api_key}\r\n"
        head += (
            f"content-type: multipart/form-data; boundary=b0\r\ncontent-length: {len(HEAD) + size + len(TAIL)}\r\n\r\n"
        )
        self.raw.sendall(head.encode() + HEAD)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.raw.close()

    def send(self, size: int) -> None:
        piece = (MARKER * (MIB // len(MARKER) + 1))[:MIB]
        while size > 0:
            self.raw.sendall(piece[: min(size, MIB)])
            size -= MIB

    def answer(self) -> tuple[int, Any]:
        reply = http.client.HTTPResponse(self.raw)
        reply.begin()
        return reply.status, json.loads(reply.read())


def staged(folder: Path) -> list[Path]:
    return list((folder / "data" / "blobs").rglob("*#*"))


def comes_true(what: Callable[[], bool]) -> None:
    for _ in range(400):
        if what():
            return
        time.sleep(0.05)
    raise AssertionError


def rows(folder: Path, table: str) -> int:
    with sqlite3.connect(folder / "data" / "keepless.sqlite") as db:
        return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def test_a_disk_that_is_full_half_way_is_told_and_keeps_nothing(served: Served, tmp_path: Path) -> None:
    with Upload(served, 8 * MIB) as upload:
        upload.send(4 * MIB)
        comes_true(lambda: bool(staged(tmp_path)) and staged(tmp_path)[0].stat().st_size > MIB)
        soft, hard = resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, (1, hard))
        try:
            upload.send(4 * MIB)
            upload.raw.sendall(TAIL)
            status, body = upload.answer()
        finally:
            resource.prlimit(served.process.pid, resource.RLIMIT_FSIZE, (soft, hard))
    assert (status, body["error"]["code"]) == (503, "store_failed")
    assert "marker" not in json.dumps(body)
    assert staged(tmp_path) == []
    assert rows(tmp_path, "kept") == rows(tmp_path, "file") == 0
    assert not [line for line in served.log if "marker" in line]
    with openai.OpenAI(api_key=served.api_key, base_url=served.base_url, max_retries=0) as client:
        assert client.files.create(file=("a", b"x"), purpose="batch").bytes == 1


def test_a_kill_half_way_leaves_ciphertext_that_the_next_sweep_destroys(tmp_path: Path) -> None:
    with serve(tmp_path, [MODEL]) as served, Upload(served, 8 * MIB) as upload:
        upload.send(4 * MIB)
        comes_true(lambda: bool(staged(tmp_path)) and staged(tmp_path)[0].stat().st_size > MIB)
        os.kill(served.process.pid, signal.SIGKILL)
        served.process.wait(30)
    (left,) = staged(tmp_path)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert MARKER not in data
            assert b"marker-name" not in data
    assert rows(tmp_path, "intent") == 1
    long_ago = time.time() - 2 * 3600
    os.utime(left, (long_ago, long_ago))
    with sqlite3.connect(tmp_path / "data" / "keepless.sqlite") as db:
        db.execute("UPDATE intent SET created_at = created_at - 7200000")
    code, told = keepless("sweep", "--once", "--data-dir", str(tmp_path / "data"))
    assert code == 0, told
    assert staged(tmp_path) == []
    assert rows(tmp_path, "intent") == rows(tmp_path, "kept") == 0


def test_the_largest_file_goes_through_flat_memory_both_ways(served: Served, tmp_path: Path) -> None:
    size = 190 * MIB
    with openai.OpenAI(api_key=served.api_key, base_url=served.base_url, max_retries=0) as client:
        warm = client.files.create(file=("a", b"x" * 5 * MIB), purpose="batch")
        client.files.content(warm.id).read()
        before = peak(served.process.pid)
        with Upload(served, size) as upload:
            upload.send(size)
            upload.raw.sendall(TAIL)
            status, made = upload.answer()
        assert (status, made["bytes"]) == (200, size)
        with client.files.with_streaming_response.content(made["id"]) as answer:
            assert sum(len(piece) for piece in answer.iter_bytes(MIB)) == size
    assert peak(served.process.pid) - before < 64 * MIB


def peak(process: int) -> int:
    """The most memory that a process has had resident, bytes."""
    (line,) = [one for one in Path(f"/proc/{process}/status").read_text().splitlines() if one.startswith("VmHWM")]
    return int(line.split()[1]) * 1024
