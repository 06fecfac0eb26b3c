"""The speech engine: what it answers to one request, and as a process."""

import base64
import contextlib
import io
import json
import os
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from keepless.config import Engine, ModelConfig, UpstreamRetention
from keepless.content import Content
from keepless.errors import Code, Problem
from keepless.inference.backend import Call
from keepless.inference.embedded.activated import ActivatedProcess
from keepless.inference.embedded.asks import SpeechHeader
from keepless.inference.embedded.child import GoneError, NotLoadedError
from keepless.inference.embedded.engine import ChildSettings, Word
from keepless.inference.embedded.flite import RATE, Flite, SpeechFailedError
from keepless.inference.embedded.flite_process import Speaking, load
from keepless.inference.embedded.formats import FORMATS
from keepless.inference.embedded.frames import Cost, pack
from keepless.inference.embedded.socket_backend import SocketBackend
from tests.support.channel import FakeChannel
from tests.support.children import children
from tests.support.governed import eventually
from tests.support.sinks import Recorder

LONG = "This is one sentence. " * 30
SECRET = "marzipan zeppelin"
MODEL = ModelConfig(id="speech", engine=Engine.FLITE, retention=UpstreamRetention.ZERO)


@pytest.fixture(scope="module")
def speaking() -> Speaking:
    return Speaking(Flite())


def header(**more: Any) -> bytes:
    asked = {"format": "wav", "rate": RATE, "voice": "kal", "speed": 1.0, "events": False, **more}
    return msgspec.json.encode(SpeechHeader(**asked))


def spoken(speaking: Speaking, text: str, **more: Any) -> tuple[FakeChannel, Cost]:
    channel = FakeChannel()
    return channel, speaking(header(**more), Content(text.encode()), channel)


def test_a_short_text_is_a_wav_that_knows_its_length(speaking: Speaking) -> None:
    channel, cost = spoken(speaking, "Hello world.")
    with wave.open(io.BytesIO(channel.body)) as file:
        assert file.getframerate() == RATE
        assert file.getnframes() * 2 == len(channel.body) - 44
        assert cost == Cost(prompt=12, audio_ms=file.getnframes() * 1000 // RATE)
    assert channel.heads == [("audio/wav", 200)]


def test_a_long_text_is_sent_as_it_is_spoken(speaking: Speaking) -> None:
    channel, cost = spoken(speaking, LONG)
    assert len(channel.pieces) > 3
    assert cost.prompt == len(LONG)
    assert cost.audio_ms == pytest.approx((len(channel.body) - 44) / 2 / RATE * 1000, abs=1)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_says_what_it_is(speaking: Speaking, name: str) -> None:
    channel, cost = spoken(speaking, "Hello world.", format=name, rate=FORMATS[name].default_rate or RATE)
    assert channel.heads == [(FORMATS[name].content_type, 200)]
    assert channel.body
    assert cost.audio_ms > 300


def test_a_rate_and_a_speed_are_obeyed(speaking: Speaking) -> None:
    usual = len(spoken(speaking, "Hello world.", format="pcm")[0].body)
    assert len(spoken(speaking, "Hello world.", format="pcm", rate=8000)[0].body) == pytest.approx(usual / 2, rel=0.01)
    assert len(spoken(speaking, "Hello world.", format="pcm", speed=2.0)[0].body) < usual * 0.6


def test_events_carry_the_same_sound_and_end_with_what_it_cost(speaking: Speaking) -> None:
    sound, _ = spoken(speaking, LONG, format="pcm")
    channel, _ = spoken(speaking, LONG, format="pcm", events=True)
    assert channel.heads == [("text/event-stream; charset=utf-8", 200)]
    assert all(piece.startswith(b"data: ") and piece.endswith(b"\n\n") for piece in channel.pieces)
    events = [json.loads(piece[6:]) for piece in channel.pieces]
    assert {event["type"] for event in events[:-1]} == {"speech.audio.delta"}
    assert b"".join(base64.b64decode(event["audio"]) for event in events[:-1]) == sound.body
    count = len(LONG)
    usage = {"input_tokens": count, "output_tokens": 0, "total_tokens": count}
    assert events[-1] == {"type": "speech.audio.done", "usage": usage}


@pytest.mark.parametrize("text", ["", "  ", "...", "你好", "🎉"])
def test_a_text_that_cannot_be_said_is_refused_before_a_sound(speaking: Speaking, text: str) -> None:
    channel = FakeChannel()
    with pytest.raises(Problem) as caught:
        speaking(header(), Content(text.encode()), channel)
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, Code.INVALID_VALUE, "input")
    assert not channel.heads


def test_a_client_that_leaves_ends_the_voice(speaking: Speaking) -> None:
    others = children()
    for calls in range(6):
        with pytest.raises(GoneError):
            speaking(header(format="pcm"), Content(LONG.encode()), FakeChannel(calls))
    assert children() == others


def test_a_voice_that_fails_is_no_answer(tmp_path: Path) -> None:
    program = tmp_path / "flite"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o700)
    channel = FakeChannel()
    with pytest.raises(SpeechFailedError):
        Speaking(Flite(str(program)))(header(), Content(b"Hello."), channel)
    assert not channel.heads


def test_a_voice_without_a_sound_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "flite"
    program.write_text("#!/bin/sh\ncat >/dev/null\n")
    program.chmod(0o700)
    with pytest.raises(Problem):
        Speaking(Flite(str(program)))(header(), Content(b"Hello."), FakeChannel())


def test_without_the_program_it_says_so(tmp_path: Path) -> None:
    model = msgspec.structs.replace(MODEL, path=str(tmp_path / "none"))
    with pytest.raises(NotLoadedError) as caught:
        load(ChildSettings(model=model, key="k", content_limit=1000))
    assert caught.value.word is Word.PROGRAM_MISSING
    load(ChildSettings(model=MODEL, key="k", content_limit=1000))


# -- the process -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ActivatedProcess]:
    made = ActivatedProcess(
        MODEL,
        tmp_path_factory.mktemp("speech") / "run",
        module="keepless.inference.embedded.flite_process",
        content_limit=1_000_000,
    )
    made.start()
    yield made
    made.stop()


def call(text: str, **more: Any) -> Call:
    metered = more.pop("metered", lambda *_: None)
    return Call("", Content(pack(header(**more), text.encode())), True, "req_" + "a" * 24, metered=metered)


def test_the_process_speaks_and_says_what_it_cost(process: ActivatedProcess) -> None:
    costs: list[tuple[int, ...]] = []

    async def main() -> Recorder:
        backend = SocketBackend(MODEL, process.socket, process.key)
        recorder = Recorder()
        backend.start(call("Hello world.", metered=lambda *cost: costs.append(cost)), recorder)
        await recorder.over()
        await backend.close()
        return recorder

    recorder = uvloop.run(main())
    assert (recorder.status, recorder.content_type) == (200, b"audio/wav")
    assert recorder.body[:4] == b"RIFF"
    assert costs[0][0] == 12
    assert costs[0][2] > 300


def test_a_client_that_leaves_leaves_no_voice_behind(process: ActivatedProcess) -> None:
    async def main() -> None:
        backend = SocketBackend(MODEL, process.socket, process.key)
        recorder = Recorder()
        exchange = backend.start(call(LONG * 5, format="pcm"), recorder)
        await recorder.until(lambda one: one.body)
        recorder.forbidden = True
        exchange.cancel()
        again = Recorder()
        backend.start(call("Hello.", format="pcm"), again)
        await again.over()
        assert again.status == 200
        await backend.close()

    uvloop.run(main())


def test_nothing_said_stays_in_the_process_s_files_or_arguments(process: ActivatedProcess) -> None:
    async def main() -> None:
        backend = SocketBackend(MODEL, process.socket, process.key)
        recorder = Recorder()
        backend.start(call(SECRET), recorder)
        await recorder.over()
        await backend.close()

    uvloop.run(main())
    assert process.pid is not None
    at = Path(f"/proc/{process.pid}")
    assert SECRET.encode() not in (at / "cmdline").read_bytes()
    # The voices of a client that left just now end within a turn of their wait.
    eventually(lambda: not any("memfd" in one for one in _opened(at)))
    allowed = ("socket:", "anon_inode:", "pipe:", "/dev/null", "/dev/urandom")
    assert all(one.startswith(allowed) for one in _opened(at)), _opened(at)


def _opened(process: Path) -> list[str]:
    found = []
    for one in (process / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(one))
    return found
