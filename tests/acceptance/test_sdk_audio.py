"""Transcriptions and translations through the official clients: a recording, formats, streams, upstreams, crashes."""

import asyncio
import base64
import json
import os
import signal
import threading
import urllib.error
import urllib.request
import wave
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import groq
import openai
import pytest

from tests.acceptance.test_slow_readers import request_of, slowly
from tests.support.audio_upstream import AudioUpstream, audio_upstream
from tests.support.outside import comes_true
from tests.support.serve import Served, serve
from tests.support.spoken import SENTENCE, heard_wrong, spoken

WHISPER: dict[str, Any] = {"id": "whisper-base", "engine": "whisper", "threads": 1, "parallel": 1, "queue": 1}
CLIENTS = ["openai", "groq"]
MOSTLY = 0.35  # of the words may be heard wrong


@pytest.fixture(scope="module")
def upstream() -> Iterator[AudioUpstream]:
    with audio_upstream() as server:
        yield server


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, upstream: AudioUpstream) -> Iterator[Served]:
    hearing = {"endpoints": ["audio.transcriptions", "audio.translations"], "base_url": upstream.base_url}
    named = {"id": "elsewhere", "engine": "openai", "retention": "zero", "upstream_model": "their-whisper", **hearing}
    models = [WHISPER, named, {"id": "chatty", "engine": "openai", "base_url": upstream.base_url}]
    settings = {"audio_urls": {"hosts": ["files.keepless.invalid"]}}
    with serve(tmp_path_factory.mktemp("served"), models, settings=settings) as server:
        yield server


@pytest.fixture(scope="module")
def clients(served: Served) -> Iterator[dict[str, Any]]:
    with (
        openai.OpenAI(api_key=served.api_key, base_url=f"{served.url}/openai/v1", max_retries=0) as one,
        groq.Groq(api_key=served.api_key, base_url=served.url, max_retries=0) as other,
    ):
        yield {"openai": one, "groq": other}


@pytest.fixture
def client(request: pytest.FixtureRequest, clients: dict[str, Any]) -> Any:
    return clients[request.param]


def each(*kinds: str) -> Any:
    return pytest.mark.parametrize("client", kinds or CLIENTS, indirect=True)


def hear(client: Any, **more: Any) -> Any:
    asked = {"model": "whisper-base", "file": ("zebra.wav", spoken()), "language": "en", **more}
    return client.audio.transcriptions.create(**{name: value for name, value in asked.items() if value is not None})


@each()
def test_what_was_said_is_heard(client: Any, served: Served) -> None:
    raw = client.audio.transcriptions.with_raw_response.create(
        model="whisper-base", file=("zebra.wav", spoken()), language="en"
    )
    heard = raw.parse()
    assert heard_wrong(SENTENCE, heard.text) <= MOSTLY
    assert raw.headers["x-keepless-retention"] == "none"
    assert raw.headers["content-type"] == "application/json"
    body = json.loads(raw.http_response.content)
    with wave.open(BytesIO(spoken())) as recording:
        seconds = recording.getnframes() / recording.getframerate()
    assert body["usage"] == {"type": "duration", "seconds": pytest.approx(seconds, abs=0.01)}
    request_id = raw.headers["x-request-id"]
    assert body["x_groq"] == {"id": request_id}
    comes_true(lambda: _explained(served, request_id))
    row = _explained(served, request_id)
    assert (row["endpoint"], row["model"], row["route"]) == ("audio.transcriptions", "whisper-base", "embedded")
    assert row["audio_ms"] == round(body["usage"]["seconds"] * 1000)


def test_every_shape_of_a_transcript(clients: dict[str, Any]) -> None:
    client = clients["openai"]
    verbose = hear(client, response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert (verbose.language, verbose.segments[0].id) == ("english", 0)
    assert heard_wrong(SENTENCE, " ".join(word.word for word in verbose.words)) <= MOSTLY
    assert all(one.start <= one.end <= verbose.duration + 1 for one in verbose.words)
    assert verbose.usage.seconds == verbose.duration
    text = hear(client, response_format="text")
    assert heard_wrong(SENTENCE, text) <= MOSTLY
    assert hear(client, response_format="srt").startswith("1\n00:00:00,000 --> 00:00:")


def test_a_stream_of_a_transcript(clients: dict[str, Any]) -> None:
    events = list(hear(clients["openai"], stream=True))
    assert [event.type for event in events[:-1]] == ["transcript.text.delta"] * (len(events) - 1)
    assert events[-1].type == "transcript.text.done"
    assert "".join(event.delta for event in events[:-1]).strip() == events[-1].text
    assert heard_wrong(SENTENCE, events[-1].text) <= MOSTLY


def test_a_stream_of_a_transcript_for_a_slow_reader(served: Served) -> None:
    asked = {"model": "whisper-base", "stream": "true", "language": "en", "file": spoken()}
    (body,) = slowly(served, [request_of(served, "/audio/transcriptions", **asked)])
    events = [json.loads(block.removeprefix(b"data: ")) for block in body.split(b"\n\n")[:-2]]
    assert heard_wrong(SENTENCE, events[-1]["text"]) <= MOSTLY


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the client's own word about its method
@each()
def test_a_translation(client: Any) -> None:
    answer = client.audio.translations.create(model="whisper-base", file=("zebra.wav", spoken()))
    assert heard_wrong(SENTENCE, answer.text) <= MOSTLY  # English stays English


def test_asynchronous_clients(served: Served) -> None:
    async def main() -> list[str]:
        async with (
            openai.AsyncOpenAI(api_key=served.api_key, base_url=served.base_url, max_retries=2) as one,
            groq.AsyncGroq(api_key=served.api_key, base_url=served.url, max_retries=2) as other,
        ):
            file = ("zebra.wav", spoken())
            both = [c.audio.transcriptions.create(model="whisper-base", file=file, language="en") for c in (one, other)]
            return [answer.text for answer in await asyncio.gather(*both)]

    assert all(heard_wrong(SENTENCE, text) <= MOSTLY for text in asyncio.run(main()))


def test_groqs_url_with_the_audio_in_it(clients: dict[str, Any]) -> None:
    url = "data:audio/wav;base64," + base64.b64encode(spoken()).decode()
    answer = hear(clients["groq"], file=None, url=url)
    assert heard_wrong(SENTENCE, answer.text) <= MOSTLY


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://files.keepless.invalid/zebra.wav", "url_unreachable"),  # allowed, and without an address
        ("https://zebra.keepless.invalid/", "invalid_value"),
        ("http://files.keepless.invalid/zebra", "invalid_value"),
    ],
)
def test_an_address_where_there_is_no_audio(clients: dict[str, Any], url: str, code: str) -> None:
    with pytest.raises(groq.BadRequestError) as caught:
        hear(clients["groq"], file=None, url=url)
    error = caught.value.response.json()["error"]
    assert (error["code"], error["param"]) == (code, "url")
    assert "zebra" not in caught.value.response.text


def test_silence_is_no_text(clients: dict[str, Any]) -> None:
    silence = BytesIO()
    with wave.open(silence, "wb") as out:
        out.setparams((1, 2, 16000, 0, "NONE", ""))
        out.writeframes(bytes(64000))
    assert hear(clients["openai"], file=("zebra.wav", silence.getvalue())).text == ""


@each()
@pytest.mark.parametrize(
    ("more", "status", "param"),
    [
        ({"file": ("zebra.wav", b"zebra no sound")}, 400, "file"),
        ({"file": ("zebra.wav", b"")}, 400, "file"),
        ({"language": "zebra"}, 400, "language"),
        ({"model": "zebra"}, 404, "model"),
        ({"model": "chatty"}, 400, "model"),
        ({"file": ("zebra.wav", b"x" * (25 * 1024 * 1024 + 1))}, 413, "file"),
    ],
)
def test_refusals(client: Any, more: dict[str, Any], status: int, param: str) -> None:
    with pytest.raises((openai.APIStatusError, groq.APIStatusError)) as caught:
        hear(client, **more)
    error = caught.value.response.json()["error"]
    assert (caught.value.status_code, error["param"]) == (status, param)
    assert "zebra" not in caught.value.response.text
    assert status != 413 or str(25 * 1024 * 1024) in error["message"]


def test_a_body_beyond_every_limit_is_refused_before_it_is_read(clients: dict[str, Any]) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        hear(clients["openai"], file=("zebra.wav", b"x" * (36 * 1024 * 1024)))
    assert caught.value.status_code == 413


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@each()
def test_an_upstream_is_asked_in_a_form_of_ours(client: Any, upstream: AudioUpstream) -> None:
    upstream.seen.clear()
    assert hear(client, model="elsewhere", prompt="Hi", temperature=0.5).text == "from upstream"
    path, parts = upstream.seen[0]
    assert path == "/v1/audio/transcriptions"
    assert {(name, filename) for name, filename, _ in parts} == {
        ("model", None), ("language", None), ("prompt", None), ("temperature", None), ("file", "audio.wav"),
    }  # fmt: skip
    fields = {name: data for name, _, data in parts}
    assert (fields["model"], fields["prompt"], fields["file"]) == (b"their-whisper", b"Hi", spoken())
    assert float(fields["temperature"]) == 0.5
    assert client.audio.translations.create(model="elsewhere", file=("zebra.wav", spoken())).text == "from upstream"
    assert upstream.seen[-1][0] == "/v1/audio/translations"


def test_what_an_upstream_answers_is_passed_on(clients: dict[str, Any]) -> None:
    client = clients["openai"]
    events = list(hear(client, model="elsewhere", stream=True))
    assert [event.type for event in events] == ["transcript.text.delta"] * 2 + ["transcript.text.done"]
    assert hear(client, model="elsewhere", response_format="text") == "from upstream\n"
    with pytest.raises(openai.BadRequestError) as refused:
        hear(client, model="elsewhere", prompt="refuse")
    assert refused.value.body["message"] == "no"
    with pytest.raises(openai.InternalServerError) as failed:
        hear(client, model="elsewhere", prompt="fail")
    assert failed.value.status_code == 502


def test_an_engine_that_is_killed_is_told_as_busy_and_the_next_request_answered(
    served: Served, clients: dict[str, Any]
) -> None:
    client, failures = clients["openai"], []

    def ask() -> None:
        try:
            hear(client, file=("zebra.wav", spoken(" ".join([SENTENCE] * 8))))
        except openai.APIStatusError as error:
            failures.append(error)

    hear(client)
    (engine,) = _engines(served.process.pid)
    asking = threading.Thread(target=ask)
    asking.start()
    comes_true(lambda: _in_flight(served) == 1)
    os.kill(engine, signal.SIGKILL)
    asking.join(60)
    (error,) = failures
    assert (error.status_code, error.response.headers["retry-after"]) == (503, "1")
    assert error.response.json()["error"]["code"] == "engine_failed"
    assert heard_wrong(SENTENCE, hear(client).text) <= MOSTLY


def test_a_client_that_leaves_makes_room_for_who_waits(served: Served, clients: dict[str, Any]) -> None:
    client, heard = clients["openai"], []
    hear(client)
    engines = _engines(served.process.pid)
    leaving = hear(client, file=("zebra.wav", spoken(" ".join([SENTENCE] * 8))), stream=True)
    request_id = leaving.response.headers["x-request-id"]
    next(iter(leaving))
    asking = threading.Thread(target=lambda: heard.append(hear(client).text))
    asking.start()
    comes_true(lambda: _in_flight(served) == 2)
    leaving.close()
    asking.join(110)
    assert heard_wrong(SENTENCE, heard[0]) <= MOSTLY
    comes_true(lambda: _explained(served, request_id).get("status") == 499)
    assert _in_flight(served) == 0
    assert _engines(served.process.pid) == engines  # who waited did not pay for who left


def test_a_full_queue_is_told_as_busy(served: Served, clients: dict[str, Any]) -> None:
    client, told = clients["openai"], []

    def ask() -> None:
        try:
            hear(client)
            told.append(200)
        except openai.APIStatusError as error:
            told.append(error.status_code if error.response.headers["retry-after"] == "1" else 0)

    asking = [threading.Thread(target=ask) for _ in range(5)]
    for one in asking:
        one.start()
    for one in asking:
        one.join(110)
    assert sorted(set(told)) == [200, 503]
    assert hear(client).text


def _explained(served: Served, request_id: str) -> dict[str, Any]:
    try:
        return served.ask("GET", f"/organization/explain/{request_id}")
    except urllib.error.HTTPError:
        return {}


def _engines(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    every = [int(one) for task in children.parent.parent.iterdir() for one in (task / "children").read_text().split()]
    return [one for one in every if b"whisper_process" in Path(f"/proc/{one}/cmdline").read_bytes()]


def _in_flight(served: Served) -> float:
    with urllib.request.urlopen(f"{served.url}/metrics", timeout=10) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("keepless_requests_in_flight "):
                return float(line.split()[1])
    return -1.0
