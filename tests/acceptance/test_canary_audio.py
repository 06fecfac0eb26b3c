"""Nothing of what is said survives: neither the recording nor its transcript, however a request ends.

Marked are the words that are spoken (chosen anew each time), the sound itself, the prompt and the file's name. Under
the default policy, where a failed request may be kept: then only as ciphertext.
"""

import json
import os
import signal
import socket
import struct
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from keepless.gateway.multipart import FORM, write_form
from keepless.prover import places
from keepless.prover.markers import Markers, spoken
from keepless.prover.search import Search
from tests.acceptance.test_processes import children
from tests.support.audio_upstream import AudioUpstream, audio_upstream
from tests.support.outside import comes_true
from tests.support.serve import Served, serve
from tests.support.spoken import spoken as recorded

WHISPER = {"id": "whisper-base", "engine": "whisper", "threads": 1, "parallel": 1, "queue": 4}


class Canary:
    """One recording with its marks, and the ways to send it."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.words = spoken(6)
        self.sound = recorded(" ".join(f"The {word} is here." for word in self.words))
        markers = Markers()
        self.prompt, self.name = markers.mint("prompt").text, markers.mint("file name").text
        self.search = Search.of_texts([*self.words, self.prompt, self.name])
        pieces = (self.sound[at : at + 64] for at in range(len(self.sound) // 2, len(self.sound), 64))
        self.piece = next(piece for piece in pieces if len(set(piece)) > 20)  # no silence

    def body(self, model: str = "whisper-base", *, sound: bytes | None = None, **fields: str) -> bytes:
        given = {"model": model, "language": "en", "prompt": self.prompt, **fields}
        encoded = [(name, value.encode()) for name, value in given.items()]
        body = write_form(b"XX", encoded, self.sound if sound is None else sound, extension="wav")
        return body.replace(b'filename="audio.wav"', f'filename="{self.name}.wav"'.encode())

    def send(self, body: bytes, **headers: str) -> tuple[int, bytes]:
        request = urllib.request.Request(f"{self.served.base_url}/audio/transcriptions", body, self.head(**headers))
        try:
            with urllib.request.urlopen(request, timeout=110) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def head(self, **more: str) -> dict[str, str]:
        return {
            "authorization": f"Bearer {self.served.api_key}",
            "content-type": (FORM + b"XX").decode(),
            **more,
        }

    def leave(self, body: bytes, *, part: int) -> socket.socket:
        """Send a part of a request and give the connection back, to be cut."""
        host, port = self.served.url.removeprefix("http://").split(":")
        connection = socket.create_connection((host, int(port)), timeout=30)
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.head().items())
        head = f"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: x\r\n{lines}content-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body[:part])
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return connection

    def found(self, folders: Sequence[Path]) -> list[Any]:
        """Every mark in these folders and in what the server said."""
        found: list[Any] = []
        for folder in folders:
            found += sorted(places.folder(self.search, folder, folder.name).findings)
            found += [path for path in folder.rglob("*") if path.is_file() and self.piece in path.read_bytes()]
        found += sorted(places.output(self.search, {"log": "".join(self.served.log).encode()}).findings)
        return found


@pytest.fixture
def upstream() -> Iterator[AudioUpstream]:
    with audio_upstream() as server:
        yield server


def test_nothing_of_what_is_said_survives(
    tmp_path: Path, upstream: AudioUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    endpoints = ["audio.transcriptions"]
    failing = {"id": "failing", "engine": "openai", "base_url": upstream.base_url, "endpoints": endpoints}
    with serve(tmp_path, [WHISPER, failing]) as served:
        canary = Canary(served)
        folders = [tmp_path / "data", temporary]

        status, answer = canary.send(canary.body())
        assert status == 200
        heard = json.loads(answer)["text"].lower()
        assert sum(word in heard for word in canary.words) >= 4, "the marks are not heard"
        status, answer = canary.send(canary.body(stream="true", response_format="text"))
        assert status == 200
        assert b"transcript.text.done" in answer
        assert canary.send(canary.body(sound=f"no sound: {canary.words}".encode()))[0] == 400
        assert canary.send(canary.body(language=canary.words[0]))[0] == 400
        assert canary.send(canary.body(**{canary.words[0]: "x"}))[0] == 400
        assert canary.send(canary.body(canary.words[0]))[0] == 404
        assert canary.send(canary.body(), authorization=f"Bearer {canary.prompt}")[0] == 401
        assert canary.send(canary.body("failing", prompt="fail"))[0] == 502
        kept = served.ask("GET", "/organization/retained_objects")["data"]
        assert kept, "the failed request was not captured: nothing was tried"

        canary.leave(canary.body(), part=len(canary.body()) // 2).close()
        with canary.leave(canary.body(), part=len(canary.body())):
            comes_true(lambda: _in_flight(served) == 1)
        comes_true(lambda: _in_flight(served) == 0)

        # Too soon, and the engine has not taken it: another one answers. Too late, and it has answered.
        assert any(_killed_under(canary, pause) for pause in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6))

        last = canary.leave(canary.body(), part=len(canary.body()))
        comes_true(lambda: _in_flight(served) == 1)
        assert canary.found(folders) == []
        served.process.kill()
        served.process.wait(30)
        last.close()
        time.sleep(0.1)
        assert canary.found(folders) == []

        # The search itself: it finds what is there.
        (temporary / "planted").write_bytes(b"x" + canary.words[0].encode() + canary.piece)
        assert len(canary.found(folders)) == 2


def _killed_under(canary: Canary, pause: float) -> bool:
    """Kill the engine a while after a recording was sent; whether that ended its request."""
    assert canary.send(canary.body())[0] == 200, "there is an engine again"
    (engine,) = [pid for pid in children(canary.served.process.pid) if _runs(pid, b"whisper_process")]
    with canary.leave(canary.body(), part=len(canary.body())) as killed:
        time.sleep(pause)
        os.kill(engine, signal.SIGKILL)
        return b" 503 " in killed.recv(65536).split(b"\r\n")[0]


def _runs(pid: int, name: bytes) -> bool:
    try:
        return name in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _in_flight(served: Served) -> float:
    with urllib.request.urlopen(f"{served.url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("keepless_requests_in_flight "))
