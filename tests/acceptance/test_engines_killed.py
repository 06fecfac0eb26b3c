"""Engines that are killed while they work: who waits is told 503 and when to come again, and the rest goes on.

Each kind of engine, through the official client: told, shown as crashed where health is shown, and back again.
"""

import json
import os
import signal
import stat
import threading
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from tests.acceptance.test_processes import children
from tests.support.children import runs, worked
from tests.support.outside import comes_true
from tests.support.serve import EMBEDDED, Served, serve
from tests.support.spoken import SENTENCE, spoken

# Says everything as Debian's flite does, but for "wait": there it stays silent.
VOICE = """#!/bin/sh
read -r text
case "$text" in *wait*) exec sleep 600;; esac
printf '%s\\n' "$text" | /usr/bin/flite "$@"
"""
WHISPER = {"id": "whisper-base", "engine": "whisper", "threads": 1, "parallel": 1}
MINILM = {"id": "all-minilm-l6-v2", "engine": "minilm", "threads": 1}
Ask = Callable[[openai.OpenAI], Any]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    voice = tmp_path_factory.mktemp("voice") / "flite"
    voice.write_text(VOICE)
    voice.chmod(stat.S_IRWXU)
    models = [EMBEDDED, WHISPER, {"id": "flite", "engine": "flite", "path": str(voice)}, MINILM]
    with serve(tmp_path_factory.mktemp("served"), models) as server:
        yield server


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=served.api_key, base_url=served.base_url, max_retries=0) as made:
        yield made


def chat(most: int) -> Ask:
    messages: Any = [{"role": "user", "content": "Tell me a long story."}]
    more: Any = {"max_completion_tokens": most, "logit_bias": {"2": -100}}  # it does not find an end by itself
    return lambda client: client.chat.completions.create(model=EMBEDDED["id"], messages=messages, **more)


def respond(most: int) -> Ask:
    return lambda client: client.responses.create(
        model=EMBEDDED["id"], input="Tell me a long story.", max_output_tokens=most
    )


def hear(times: int) -> Ask:
    file = ("a.wav", spoken(" ".join([SENTENCE] * times)))
    return lambda client: client.audio.transcriptions.create(model="whisper-base", file=file, language="en")


def speak(text: str) -> Ask:
    return lambda client: client.audio.speech.create(model="flite", voice="slt", input=text)


def embed(count: int) -> Ask:
    return lambda client: client.embeddings.create(model=MINILM["id"], input=["word " * 200] * count)


# Model and the program of its engine; a request that lasts, and one that does not.
KINDS: dict[str, tuple[str, bytes, Callable[[], tuple[Ask, Ask]]]] = {
    "chat": (EMBEDDED["id"], b"llama_process", lambda: (chat(4000), chat(2))),
    "responses": (EMBEDDED["id"], b"llama_process", lambda: (respond(4000), respond(2))),
    "transcriptions": ("whisper-base", b"whisper_process", lambda: (hear(8), hear(1))),
    "speech": ("flite", b"flite_process", lambda: (speak("Please wait."), speak("Hello there."))),
    "embeddings": (MINILM["id"], b"minilm_process", lambda: (embed(2000), embed(1))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_who_waits_is_told_and_the_next_request_is_answered(kind: str, served: Served, client: openai.OpenAI) -> None:
    model, program, requests = KINDS[kind]
    lasting, short = requests()
    client.with_options(max_retries=9).models.retrieve(model)
    short(client.with_options(max_retries=9))
    crashed = metric(served, model)
    (engine,) = [pid for pid in children(served.process.pid) if runs(pid, program)]
    before, failures = worked(engine), []

    def ask() -> None:
        try:
            lasting(client)
        except openai.APIStatusError as error:
            failures.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    comes_true(lambda: children(engine) or worked(engine) > before + 3)  # it has taken the request up
    voices = children(engine)
    os.kill(engine, signal.SIGKILL)
    asking.join(90)
    for voice in voices:
        os.kill(voice, signal.SIGKILL)
    (error,) = failures
    assert (error.status_code, error.response.headers["retry-after"]) == (503, "1")
    assert error.response.json()["error"]["code"] == "engine_failed"

    comes_true(lambda: metric(served, model) == crashed + 1)
    if program != b"llama_process":  # that one is started again at once; the others with the next request
        assert client.models.retrieve(model).to_dict()["health"] == "crashed"
        with urllib.request.urlopen(f"{served.url}/readyz", timeout=30) as answer:  # 200: the others can be asked
            checks = {check["check"]: check for check in json.load(answer)["checks"] if not check["ok"]}
        assert f"model {model}" in checks
        assert "crashed" in checks[f"model {model}"]["why"]
        assert not any(check["vital"] for check in checks.values())
    assert short(client.with_options(max_retries=9))
    assert client.models.retrieve(model).to_dict()["health"] == "running"


def metric(served: Served, model: str) -> float:
    """How often the engine crashed."""
    with urllib.request.urlopen(f"{served.url}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    name = f'keepless_engine_crashes_total{{model="{model}"}} '
    return next(float(line.removeprefix(name)) for line in lines if line.startswith(name))
