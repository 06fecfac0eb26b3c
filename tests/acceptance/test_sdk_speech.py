"""The official clients, unchanged, ask for speech: of the embedded voices, and of an upstream."""

import asyncio
import base64
import io
import json
import os
import signal
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import groq
import openai
import pytest
import soundfile

from tests.support.outside import Organization
from tests.support.serve import Served, serve
from tests.support.upstream import MockUpstream

FLITE = {"id": "flite", "engine": "flite"}
TEXT = "Hello there. This is a test."
LONG = "This is a sentence that takes a while to say. " * 80
OPENAI = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg; codecs=opus",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
GROQ = {"flac": "audio/flac", "mp3": "audio/mpeg", "mulaw": "audio/basic", "ogg": "audio/ogg", "wav": "audio/wav"}


@pytest.fixture(scope="module")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream() as mock:
        yield mock


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, upstream: MockUpstream) -> Iterator[Served]:
    far = {"engine": "openai", "base_url": upstream.base_url, "endpoints": ["audio.speech"], "retention": "zero"}
    models = [FLITE, *({"id": name, **far} for name in ("far", "cut-stream", "error-500"))]
    with serve(tmp_path_factory.mktemp("served"), models) as server:
        yield server


@pytest.fixture(scope="module")
def clients(served: Served) -> Iterator[dict[str, Any]]:
    with (
        openai.OpenAI(api_key=served.api_key, base_url=f"{served.url}/openai/v1", max_retries=0) as one,
        groq.Groq(api_key=served.api_key, base_url=served.url, max_retries=0) as other,
    ):
        yield {"openai": one, "groq": other}


@pytest.fixture
def speech(clients: dict[str, Any]) -> Any:
    return clients["openai"].audio.speech


def seconds(data: bytes, name: str, rate: int) -> float:
    if name in ("pcm", "mulaw"):
        return len(data) / rate / (2 if name == "pcm" else 1)
    if name == "ogg":
        samples, found = soundfile.read(io.BytesIO(data))
        return len(samples) / found
    with av.open(io.BytesIO(data)) as container:
        return sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))


@pytest.mark.parametrize("name", OPENAI)
def test_every_format_of_openai_s(speech: Any, name: str) -> None:
    answer = speech.create(model="flite", voice="alloy", input=TEXT, response_format=name)
    assert answer.response.headers["content-type"] == OPENAI[name]
    assert 1.5 < seconds(answer.content, name, 24000) < 4


@pytest.mark.parametrize("name", GROQ)
def test_every_format_of_groq_s(clients: dict[str, Any], name: str) -> None:
    answer = clients["groq"].audio.speech.create(model="flite", voice="rms", input=TEXT, response_format=name)
    assert 1.5 < seconds(answer.read(), name, 8000) < 4


def test_groq_s_client_gets_a_wav_that_knows_its_length(clients: dict[str, Any], tmp_path: Path) -> None:
    clients["groq"].audio.speech.create(model="flite", voice="slt", input="Hello there.").write_to_file(
        tmp_path / "a.wav"
    )
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getframerate(), file.getnchannels()) == (16000, 1)
        assert 0.5 < file.getnframes() / 16000 < 3


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 24000, 32000, 44100, 48000])
def test_every_sample_rate_of_groq_s(clients: dict[str, Any], rate: int) -> None:
    answer = clients["groq"].audio.speech.create(model="flite", voice="slt", input="Hello there.", sample_rate=rate)
    with wave.open(io.BytesIO(answer.read())) as file:
        assert file.getframerate() == rate


def test_speed_is_obeyed(speech: Any) -> None:
    usual = len(speech.create(model="flite", voice="kal", input=TEXT, response_format="pcm").content)
    quick = len(speech.create(model="flite", voice="kal", input=TEXT, response_format="pcm", speed=2).content)
    slow = len(speech.create(model="flite", voice="kal", input=TEXT, response_format="pcm", speed=0.5).content)
    assert quick < usual * 0.7
    assert slow > usual * 1.5


@pytest.mark.parametrize("name", ["wav", "pcm", "mp3"])
def test_a_long_text_is_heard_before_its_end_is_spoken(speech: Any, name: str) -> None:
    """The first sound is here before the engine can have spoken the last: counted in sizes, not in time."""
    with speech.with_streaming_response.create(model="flite", voice="kal", input=LONG, response_format=name) as answer:
        assert answer.headers["transfer-encoding"] == "chunked"
        pieces = [len(piece) for piece in answer.iter_bytes()]
    assert len(pieces) > 5
    assert pieces[0] < sum(pieces) / 10


def test_events(speech: Any) -> None:
    plain = speech.create(model="flite", voice="slt", input=TEXT, response_format="pcm").content
    with speech.with_streaming_response.create(
        model="flite", voice="slt", input=TEXT, response_format="pcm", stream_format="sse"
    ) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")]
    assert {event["type"] for event in events[:-1]} == {"speech.audio.delta"}
    assert b"".join(base64.b64decode(event["audio"]) for event in events[:-1]) == plain
    assert events[-1]["type"] == "speech.audio.done"
    assert events[-1]["usage"]["input_tokens"] == len(TEXT)


def test_the_asynchronous_clients(served: Served) -> None:
    async def main() -> None:
        async with openai.AsyncOpenAI(api_key=served.api_key, base_url=served.base_url) as one:
            asking = (one.audio.speech.create(model="flite", voice="kal", input=TEXT) for _ in range(3))
            assert all(answer.content for answer in await asyncio.gather(*asking))
            async with one.audio.speech.with_streaming_response.create(
                model="flite", voice="kal", input=TEXT, response_format="wav"
            ) as answer:
                assert (await answer.read())[:4] == b"RIFF"
        async with groq.AsyncGroq(api_key=served.api_key, base_url=served.url) as other:
            answer = await other.audio.speech.create(model="flite", voice="kal", input=TEXT)
            assert (await answer.read())[:4] == b"RIFF"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("more", "code", "named"),
    [
        ({"input": ""}, "invalid_value", "input"),
        ({"input": "你好"}, "invalid_value", "input"),
        ({"input": "x" * 4097}, "invalid_value", "4096 characters"),
        ({"voice": "nobody"}, "invalid_value", "awb, kal, rms, slt"),
        ({"speed": 5}, "invalid_value", "speed"),
        ({"response_format": "aiff"}, "invalid_value", "mulaw"),
        ({"instructions": "sing"}, "unsupported_parameter", "instructions"),
        ({"extra_body": {"sample_rate": 44100}, "response_format": "opus"}, "invalid_value", "sample_rate"),
    ],
)
def test_refusals_say_what_is_wrong(speech: Any, more: dict[str, Any], code: str, named: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        speech.create(**{"model": "flite", "voice": "slt", "input": TEXT, **more})
    assert caught.value.code == code
    assert named in caught.value.message


def test_an_upstream_is_passed_through(speech: Any, upstream: MockUpstream) -> None:
    answer = speech.create(model="far", voice="fritz", input="QUESTION", response_format="mp3")
    assert answer.content == b"QUESTIONand the rest"
    assert upstream.received[-1].json == {
        "model": "far",
        "voice": "fritz",
        "input": "QUESTION",
        "response_format": "mp3",
    }
    with speech.with_streaming_response.create(model="far", voice="x", input="a", stream_format="sse") as answer:
        assert b"speech.audio.done" in answer.read()
    with pytest.raises(openai.InternalServerError):
        speech.create(model="error-500", voice="fritz", input="QUESTION")


def test_a_sound_that_breaks_off_is_no_sound(speech: Any) -> None:
    with pytest.raises(openai.APIConnectionError):
        speech.create(model="cut-stream", voice="fritz", input="QUESTION")


def explained(served: Served, request_id: str) -> dict[str, Any]:
    """The row of a request, which is written soon after its answer."""
    for _ in range(500):
        found = _explained(served, request_id)
        if found is not None:
            return found
        time.sleep(0.02)
    raise AssertionError("no row of usage came")


def test_it_is_counted_in_characters_and_time(served: Served, speech: Any) -> None:
    answer = speech.create(model="flite", voice="slt", input=TEXT)
    assert answer.response.headers["x-keepless-retention"] == "on-error"
    found = explained(served, answer.response.headers["x-request-id"])
    assert (found["endpoint"], found["prompt_tokens"], found["kept"]) == ("audio.speech", len(TEXT), False)
    assert 1500 < found["audio_ms"] < 4000


def test_a_failure_is_captured_under_the_same_policy_as_any_other(served: Served, speech: Any) -> None:
    organization = Organization.of(served.url, served.told)
    before = set(organization.retained())
    with pytest.raises(openai.InternalServerError) as caught:
        speech.create(model="error-500", voice="fritz", input="QUESTION")
    kept = caught.value.response.headers["x-keepless-retention"]
    assert kept.startswith("class=reliability_log; object=")
    assert set(organization.retained()) - before == {kept.split("object=")[1].split(";")[0]}


def test_a_client_that_leaves_stops_the_voice(served: Served, speech: Any) -> None:
    with speech.with_streaming_response.create(model="flite", voice="slt", input=LONG, response_format="pcm") as answer:
        next(answer.iter_bytes())
        request_id = answer.headers["x-request-id"]
    assert explained(served, request_id)["status"] == 499


def test_an_engine_that_dies_is_told_and_comes_back(served: Served, speech: Any) -> None:
    speech.create(model="flite", voice="kal", input=TEXT)
    engine = next(
        int(one.name)
        for one in Path("/proc").iterdir()
        if one.name.isdigit() and _is_engine(one, served.process.pid, "flite_process")
    )
    with speech.with_streaming_response.create(model="flite", voice="slt", input=LONG, response_format="pcm") as answer:
        pieces = answer.iter_bytes()
        next(pieces)
        os.kill(engine, signal.SIGKILL)
        with pytest.raises(Exception, match=r"incomplete|peer closed"):
            list(pieces)
    refused: list[openai.InternalServerError] = []
    for _ in range(500):
        try:
            speech.create(model="flite", voice="kal", input=TEXT)
            break
        except openai.InternalServerError as error:
            refused.append(error)
            time.sleep(0.02)
    else:
        raise AssertionError("the engine did not come back")
    assert all((one.status_code, one.response.headers["retry-after"]) == (503, "1") for one in refused)


def test_the_models_page_lists_voices_and_formats(clients: dict[str, Any]) -> None:
    found = clients["openai"].models.retrieve("flite").to_dict()
    assert found["capabilities"] == ["audio.speech", "sample_rate", "speed", "sse"]
    shown = found["speech"]
    assert shown["voices"] == ["awb", "kal", "rms", "slt"]
    assert shown["voice_aliases"]["alloy"] == "slt"
    assert set(shown["response_formats"]) == {*OPENAI, *GROQ}
    assert shown["max_input_characters"] == 4096


def _explained(served: Served, request_id: str) -> Any:
    try:
        return served.ask("GET", f"/organization/explain/{request_id}")
    except OSError:
        return None


def _is_engine(at: Path, parent: int, module: str) -> bool:
    try:
        said = (at / "stat").read_text().rsplit(")", 1)[1].split()
        return int(said[1]) == parent and module in (at / "cmdline").read_text()
    except OSError:
        return False
