"""Clients that read slowly get every byte of a sound or a transcript, in every format, from engines without patience.

One server; a voice that is quick and says much, so that a reader is what everything waits for.
"""

import json
import socket
import stat
import threading
import time
import wave
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest

from keepless.inference.embedded.formats import FORMATS
from tests.support.audio_upstream import AudioUpstream, audio_upstream
from tests.support.serve import Served, serve
from tests.support.spoken import spoken

RATE = 16_000
SECONDS = 30
TEXT = (
    "This is a sentence. This is another one, and it is one that goes on for a little while, as they sometimes do. " * 2
)
PATIENCE_S = 1.0  # of engines and of the gateway with them
RESTS_S = 2 * PATIENCE_S + 0.5  # how long a reader does nothing
# Whatever is asked: noise of half a minute.
VOICE = "#!/bin/sh\ncat > /dev/null\nexec cat {sound}\n"
FORMS = [*FORMATS, "sse"]


@pytest.fixture(scope="module")
def upstream() -> Iterator[AudioUpstream]:
    with audio_upstream() as server:
        yield server


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, upstream: AudioUpstream) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("voice")
    noise = np.random.default_rng(5).normal(0, 3000, SECONDS * RATE).astype("<i2")
    with wave.open(str(folder / "noise.wav"), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(noise.tobytes())
    voice = folder / "flite"
    voice.write_text(VOICE.format(sound=folder / "noise.wav"))
    voice.chmod(stat.S_IRWXU)
    patience = {"first_byte_timeout": PATIENCE_S, "idle_timeout": PATIENCE_S}
    models: list[dict[str, Any]] = [
        {"id": "flite", "engine": "flite", "path": str(voice), "parallel": 16, **patience},
        {
            "id": "elsewhere", "engine": "openai", "base_url": upstream.base_url,
            "endpoints": ["audio.transcriptions"], **patience,
        },
    ]  # fmt: skip
    with serve(tmp_path_factory.mktemp("served"), models) as server:
        yield server


class Reader(threading.Thread):
    """One request on a socket with hardly any buffer, read after a rest and in small pieces."""

    def __init__(self, served: Served, request: bytes) -> None:
        super().__init__()
        self._at = served.url.removeprefix("http://").split(":")
        self._request = request
        self.answer = b""

    def run(self) -> None:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(90)
            client.connect((self._at[0], int(self._at[1])))
            client.sendall(self._request)
            pieces = [client.recv(512)]
            time.sleep(RESTS_S)
            while piece := client.recv(8192):
                pieces.append(piece)
        self.answer = b"".join(pieces)


def request_of(served: Served, path: str, **body: Any) -> httpx.Request:
    head = {"authorization": f"Bearer {served.api_key}", "connection": "close"}
    if "file" in body:
        file = body.pop("file")
        return httpx.Request("POST", served.base_url + path, headers=head, data=body, files={"file": ("a.wav", file)})
    return httpx.Request("POST", served.base_url + path, headers=head, json=body)


def slowly(served: Served, requests: list[httpx.Request]) -> list[bytes]:
    """The bodies of the answers to several slow readers at once."""
    readers = []
    for request in requests:
        lines = [f"POST {request.url.raw_path.decode()} HTTP/1.1", *(f"{n}: {v}" for n, v in request.headers.items())]
        readers.append(Reader(served, "\r\n".join(lines).encode() + b"\r\n\r\n" + request.read()))
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(120)
    return [whole(reader.answer) for reader in readers]


def whole(answer: bytes) -> bytes:
    """The body of an answer in chunks; it must have its end."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    assert b"transfer-encoding: chunked" in head.lower()
    body = bytearray()
    while True:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            return bytes(body)
        assert len(rest) >= length + 2, "cut"
        body += rest[:length]
        rest = rest[length + 2 :]


def test_every_format_of_speech_comes_whole(served: Served) -> None:
    asked: list[dict[str, Any]] = [
        {"response_format": "wav", "stream_format": "sse"} if form == "sse" else {"response_format": form}
        for form in FORMS
    ]
    made = [request_of(served, "/audio/speech", model="flite", voice="slt", input=TEXT, **more) for more in asked]
    with httpx.Client(timeout=120) as client:
        quick = [client.send(request).content for request in made]
    for form, one, other in zip(FORMS, quick, slowly(served, made), strict=True):
        assert len(one) > 100_000, form
        assert len(one) == len(other), form
        assert form == "ogg" or one == other, form  # a stream's serial number is random there


def test_a_streamed_transcript_of_an_upstream_comes_whole(served: Served, upstream: AudioUpstream) -> None:
    upstream.repeat = 20_000
    asked = {"model": "elsewhere", "stream": "true", "file": spoken()}
    (body,) = slowly(served, [request_of(served, "/audio/transcriptions", **asked)])
    events = [json.loads(block.removeprefix(b"data: ")) for block in body.split(b"\n\n") if block]
    assert len(events) == 20_002
    assert events[-1]["type"] == "transcript.text.done"
