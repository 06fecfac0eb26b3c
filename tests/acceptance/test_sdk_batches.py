"""Batches with both official SDKs against a running server: from the upload to the results, and every way out."""

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import groq
import openai
import pytest

from tests.support.audio_upstream import AudioUpstream, audio_upstream
from tests.support.receiver import Receiver, receiving
from tests.support.serve import Served, serve, upstream_models
from tests.support.upstream import Behaviour, MockUpstream

CHAT = "/v1/chat/completions"
ENDED = ("completed", "failed", "expired", "cancelled")


@pytest.fixture(scope="module")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream() as mock:
        yield mock


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    with receiving(tmp_path_factory.mktemp("receiver")) as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def audio() -> Iterator[AudioUpstream]:
    with audio_upstream() as server:
        yield server


@pytest.fixture(scope="module")
def served(folder: Path, upstream: MockUpstream, audio: AudioUpstream, receiver: Receiver) -> Iterator[Served]:
    endpoints = ["audio.transcriptions", "audio.translations"]
    ears = {"id": "ears", "engine": "openai", "base_url": audio.base_url, "endpoints": endpoints}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(receiver.certificate))
        with serve(
            folder, [*upstream_models(upstream.base_url), ears], settings={"webhooks_allow_private": True}
        ) as server:
            yield server


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=served.api_key, base_url=f"{served.url}/openai/v1", max_retries=0) as made:
        yield made


def line(custom_id: str, model: str = Behaviour.OK.value, **more: Any) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": f"MARKER {custom_id}"}]}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body, **more})


def upload(client: Any, data: str | bytes, **more: Any) -> str:
    raw = data.encode() if isinstance(data, str) else data
    found: str = client.files.create(file=("requests.jsonl", raw), purpose="batch", **more).id
    return found


def until_ended(client: Any, batch_id: str) -> Any:
    deadline = time.monotonic() + 90
    while (batch := client.batches.retrieve(batch_id)).status not in ENDED:
        assert time.monotonic() < deadline, batch
        time.sleep(0.1)
    return batch


def run(client: Any, data: str | bytes, **more: Any) -> Any:
    made = client.batches.create(input_file_id=upload(client, data), endpoint=CHAT, completion_window="24h", **more)
    assert made.status == "validating"
    return until_ended(client, made.id)


def results(client: openai.OpenAI, file_id: str | None) -> dict[str, Any]:
    if file_id is None:
        return {}
    found = [json.loads(each) for each in client.files.content(file_id).text.splitlines()]
    assert len({one["custom_id"] for one in found}) == len(found)
    return {one["custom_id"]: one for one in found}


def test_from_upload_to_results(client: openai.OpenAI) -> None:
    lines = [line("good-1"), line("good-2"), line("bad-1", Behaviour.ERROR_400.value)]
    done = run(client, "\n".join(lines), metadata={"who": "MARKER"})
    assert (done.status, done.metadata) == ("completed", {"who": "MARKER"})
    assert (done.model, done.usage.total_tokens) == (None, done.usage.input_tokens + done.usage.output_tokens)
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (3, 2, 1)
    assert done.created_at <= done.in_progress_at <= done.finalizing_at <= done.completed_at
    assert done.progress["percent"] == 100.0
    good, bad = results(client, done.output_file_id), results(client, done.error_file_id)
    assert (set(good), set(bad)) == ({"good-1", "good-2"}, {"bad-1"})
    assert good["good-1"]["response"]["status_code"] == 200
    assert good["good-1"]["response"]["body"]["choices"]
    assert bad["bad-1"]["response"]["status_code"] == 400
    assert client.files.retrieve(done.output_file_id).purpose == "batch_output"
    client.files.delete(done.input_file_id)  # results stay
    assert set(results(client, done.output_file_id)) == {"good-1", "good-2"}
    client.files.delete(done.output_file_id)  # and are gone for good
    with pytest.raises(openai.NotFoundError):
        client.files.content(done.output_file_id)
    assert client.batches.retrieve(done.id).output_file_id == done.output_file_id
    assert done.id in [one.id for one in client.batches.list(limit=1)]


def test_audio_by_the_id_of_a_file(client: openai.OpenAI, audio: AudioUpstream) -> None:
    sound = client.files.create(file=("zebra.wav", b"RIFF zebra"), purpose="batch").id
    lines = [
        json.dumps({"custom_id": name, "method": "POST", "url": f"/v1/audio/{name}", "body": {"model": "ears", **body}})
        for name, body in (("transcriptions", {"file_id": sound}), ("translations", {"file_id": f"file-{'a' * 24}"}))
    ]
    made = client.batches.create(
        input_file_id=upload(client, "\n".join(lines)),
        endpoint="/v1/audio/transcriptions",
        completion_window="24h",
    )
    done = until_ended(client, made.id)
    good, bad = results(client, done.output_file_id), results(client, done.error_file_id)
    assert good["transcriptions"]["response"]["body"]["text"] == "from upstream"
    assert bad["translations"]["response"]["status_code"] == 404
    ((path, parts),) = audio.seen
    assert path == "/v1/audio/transcriptions"
    assert [(name, data) for name, called, data in parts if called is not None] == [("file", b"RIFF zebra")]


def test_what_was_downloaded_to_its_last_byte_is_noted(client: openai.OpenAI, folder: Path) -> None:
    """Only then nobody is told that it ends."""
    done = run(client, "\n".join([line("good"), line("bad", Behaviour.ERROR_400.value)]))
    client.files.content(done.error_file_id, extra_headers={"range": "bytes=0-3"})
    client.files.content(done.output_file_id)
    deadline = time.monotonic() + 90
    while not downloaded(folder, done.output_file_id):  # noted after the last byte
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not downloaded(folder, done.error_file_id)


def downloaded(folder: Path, file_id: str) -> bool:
    query = "SELECT downloaded_at IS NOT NULL FROM file WHERE id = ?"
    with contextlib.closing(sqlite3.connect(folder / "data" / "keepless.sqlite")) as database:
        return bool(database.execute(query, (file_id,)).fetchone()[0])


def test_groqs_client_and_both_asynchronous_ones(served: Served) -> None:
    with groq.Groq(api_key=served.api_key, base_url=served.url, max_retries=0) as client:
        file_id = client.files.create(file=("requests.jsonl", line("g").encode()), purpose="batch").id
        made = client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="7d")
        done = until_ended(client, made.id)
        assert (done.status, done.completion_window) == ("completed", "7d")
        assert b'"custom_id":"g"' in client.files.content(done.output_file_id).read()
        assert done.id in [one.id for one in client.batches.list().data]

    async def scene(client: Any) -> str:
        async with client:
            file = await client.files.create(file=("requests.jsonl", line("a").encode()), purpose="batch")
            made = await client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
            for _ in range(900):
                found = await client.batches.retrieve(made.id)
                if found.status in ENDED:
                    break
                await asyncio.sleep(0.1)
            return str(found.status)

    openais = openai.AsyncOpenAI(api_key=served.api_key, base_url=f"{served.url}/v1", max_retries=0)
    groqs = groq.AsyncGroq(api_key=served.api_key, base_url=served.url, max_retries=0)
    assert asyncio.run(scene(openais)) == asyncio.run(scene(groqs)) == "completed"


BAD = {
    "a line that is no JSON": (line("a") + "\nMARKER\n" + line("b"), 2, "invalid_json_line", None),
    "an empty line": (line("a") + "\n\n" + line("b"), 2, "invalid_json_line", None),
    "an id twice": (line("a") + "\n" + line("a"), 2, "duplicate_custom_id", "custom_id"),
    "another method": (line("a", method="GET"), 1, "invalid_method", "method"),
    "another endpoint": (line("a", url="/v1/MARKER"), 1, "mismatched_url", "url"),
    "no model of that name": (line("a", "MARKER"), 1, "model_not_found", "body.model"),
    "no body": (json.dumps({"custom_id": "a", "method": "POST", "url": CHAT}), 1, "missing_required_parameter", "body"),
    "compressed": (b"\x1f\x8b\x08MARKER", None, "compressed_file", None),
    "UTF-16": (b"\xff\xfe" + line("a").encode("utf-16-le"), None, "invalid_encoding", None),
    "not UTF-8": (line("a").encode() + b"\n\xff\xfeMARKER", 2, "invalid_encoding", None),
    "nothing but line ends": (b"\n\n\n", None, "empty_file", None),
}


@pytest.mark.parametrize("what", BAD)
def test_a_file_that_is_no_batch_fails_as_a_whole(client: openai.OpenAI, what: str) -> None:
    data, number, code, param = BAD[what]
    failed = run(client, data)
    assert failed.status == "failed"
    assert failed.errors.object == "list"
    first = failed.errors.data[0]
    assert (first.line, first.code, first.param) == (number, code, param)
    assert "MARKER" not in failed.model_dump_json()
    assert (failed.output_file_id, failed.error_file_id) == (None, None)


@pytest.mark.parametrize(
    "data", [b"\xef\xbb\xbf" + line("a").encode(), line("a").encode() + b"\r\n" + line("b").encode()]
)
def test_byte_order_marks_and_carriage_returns_are_tolerated(client: openai.OpenAI, data: bytes) -> None:
    assert run(client, data).status == "completed"


def test_what_cannot_be_created(client: openai.OpenAI, served: Served) -> None:
    file_id = upload(client, line("a"))
    good = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}
    for change, error in (
        ({"endpoint": "/v1/MARKER"}, openai.BadRequestError),
        ({"completion_window": "23h"}, openai.BadRequestError),
        ({"completion_window": "8d"}, openai.BadRequestError),
        ({"metadata": {"k": "v" * 513}}, openai.BadRequestError),
        ({"input_file_id": "file-MARKER"}, openai.NotFoundError),
        ({"extra_body": {"store": False}}, openai.BadRequestError),
        ({"extra_headers": {"X-Keepless-Retention": "zero"}}, openai.BadRequestError),
    ):
        with pytest.raises(error) as refused:
            client.batches.create(**{**good, **change})
        assert "MARKER" not in str(refused.value)
    short = upload(client, line("a"), expires_after={"anchor": "created_at", "seconds": 3600})
    with pytest.raises(openai.BadRequestError) as refused:
        client.batches.create(**{**good, "input_file_id": short})
    assert refused.value.param == "input_file_id"
    stranger = served.ask("POST", "/organizations", {"name": "x"}, key="operator_key")
    other = openai.OpenAI(api_key=stranger["api_key"], base_url=f"{served.url}/v1", max_retries=0)
    with other, pytest.raises(openai.NotFoundError):
        other.batches.create(**good)
    client.files.delete(file_id)
    with pytest.raises(openai.NotFoundError):
        client.batches.create(**good)


def test_the_same_creation_again_is_the_same_batch(client: openai.OpenAI) -> None:
    good = {"input_file_id": upload(client, line("a")), "endpoint": CHAT, "completion_window": "24h"}
    headers = {"Idempotency-Key": "once"}
    first = client.batches.create(**good, extra_headers=headers)
    assert client.batches.create(**good, extra_headers=headers).id == first.id
    assert client.batches.create(**good).id != first.id


def test_cancelling_delivers_what_is_done(client: openai.OpenAI) -> None:
    lines = [line("good"), *(line(f"slow-{n}", Behaviour.NEVER.value) for n in range(3))]
    file_id = upload(client, "\n".join(lines))
    made = client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")
    deadline = time.monotonic() + 60
    while not client.batches.retrieve(made.id).request_counts.completed:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert client.batches.cancel(made.id).status in ("cancelling", "cancelled")
    done = until_ended(client, made.id)
    assert done.status == "cancelled"
    assert set(results(client, done.output_file_id)) == {"good"}
    assert set(results(client, done.error_file_id)) == {f"slow-{n}" for n in range(3)}
    with pytest.raises(openai.NotFoundError):
        client.batches.cancel("batch_nothing")


def test_a_running_batch_whose_input_is_deleted_ends_with_what_is_done(client: openai.OpenAI) -> None:
    file_id = upload(client, "\n".join([line("good"), line("slow", Behaviour.NEVER.value)]))
    made = client.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")
    deadline = time.monotonic() + 60
    while not client.batches.retrieve(made.id).request_counts.completed:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    client.files.delete(file_id)
    done = until_ended(client, made.id)
    assert done.status == "cancelled"
    assert set(results(client, done.output_file_id)) == {"good"}


def test_the_end_is_told_and_verified_by_the_sdk(client: openai.OpenAI, served: Served, receiver: Receiver) -> None:
    with openai.OpenAI(api_key=served.told["admin_key"], base_url=f"{served.url}/v1", max_retries=0) as owner:
        hook = owner.webhooks.create(
            name="x", url=receiver.url, event_types=["batch.completed", "batch.failed", "batch.cancelled"]
        )
        good, bad = run(client, line("a")), run(client, "MARKER")
        assert (good.model, bad.model) == (Behaviour.OK.value, None)
        deadline = time.monotonic() + 60
        while len(receiver.told) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        events = [client.webhooks.unwrap(t.body, t.headers, secret=hook.signing_secret) for t in receiver.told]
        assert {(event.type, event.data.id) for event in events} == {
            ("batch.completed", good.id),
            ("batch.failed", bad.id),
        }
        assert not [told for told in receiver.told if b"MARKER" in told.body]
        owner.webhooks.delete(hook.id)


def test_nothing_of_it_is_in_the_log(served: Served) -> None:
    assert "MARKER" not in "".join(served.log)
