"""The official clients, unchanged, ask for embeddings: of the embedded model, and of an upstream."""

import asyncio
import http.client
import json
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import groq
import numpy as np
import openai
import pytest
from langchain_openai import OpenAIEmbeddings

from tests.acceptance.test_processes import children
from tests.support.children import runs, worked
from tests.support.outside import Organization, comes_true
from tests.support.serve import Served, serve
from tests.support.upstream import MockUpstream

MINILM = {"id": "all-minilm-l6-v2", "engine": "minilm"}
TEXTS = ["A man is eating food.", "Someone eats a meal.", "The server deletes customer data after thirty days."]
CLIENTS = ["openai", "groq"]


@pytest.fixture(scope="module")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream() as mock:
        yield mock


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, upstream: MockUpstream) -> Iterator[Served]:
    far = {"engine": "openai", "base_url": upstream.base_url, "endpoints": ["embeddings"], "retention": "logs_30d"}
    with serve(tmp_path_factory.mktemp("served"), [MINILM, {"id": "far", **far}, {"id": "error-500", **far}]) as server:
        yield server


@pytest.fixture(scope="module")
def clients(served: Served) -> Iterator[dict[str, Any]]:
    with (
        openai.OpenAI(api_key=served.api_key, base_url=f"{served.url}/openai/v1", max_retries=0) as one,
        groq.Groq(api_key=served.api_key, base_url=served.url, max_retries=0) as other,
    ):
        yield {"openai": one, "groq": other}


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, clients: dict[str, Any]) -> Any:
    return clients[request.param]


def test_what_means_the_same_is_near(client: Any) -> None:
    found = client.embeddings.create(model=MINILM["id"], input=TEXTS)
    one, other, else_ = (np.array(item.embedding) for item in found.data)
    assert one @ other > 0.7
    assert abs(one @ else_) < 0.2
    assert [item.index for item in found.data] == [0, 1, 2]
    assert found.model == MINILM["id"]
    assert found.usage.prompt_tokens == found.usage.total_tokens == 28


def test_floats_and_base64_are_the_same_vectors(clients: dict[str, Any]) -> None:
    create = clients["openai"].embeddings.create
    plain = create(model=MINILM["id"], input="Hello", encoding_format="float").data[0].embedding
    coded = create(model=MINILM["id"], input="Hello").data[0].embedding  # the client asks for base64 by itself
    assert len(plain) == 384
    assert coded == pytest.approx(plain, abs=1e-8)


def test_the_asynchronous_clients(served: Served) -> None:
    async def main() -> None:
        async with openai.AsyncOpenAI(api_key=served.api_key, base_url=served.base_url) as one:
            found = await asyncio.gather(*(one.embeddings.create(model=MINILM["id"], input=text) for text in TEXTS))
            assert all(len(each.data[0].embedding) == 384 for each in found)
        async with groq.AsyncGroq(api_key=served.api_key, base_url=served.url) as other:
            answer = await other.embeddings.create(model=MINILM["id"], input=TEXTS[0], encoding_format="float")
            assert answer.data[0].embedding == pytest.approx(found[0].data[0].embedding, abs=1e-6)

    asyncio.run(main())


def test_langchain_embeds(served: Served) -> None:
    # By default it sends tokens of another vocabulary, which this model refuses.
    model = OpenAIEmbeddings(
        model=MINILM["id"], base_url=served.base_url, api_key=served.api_key, check_embedding_ctx_length=False
    )
    one, other = model.embed_documents(TEXTS[:2])
    assert np.dot(one, other) > 0.7


@pytest.mark.parametrize(
    ("more", "code", "named"),
    [
        ({"input": ""}, "invalid_value", "input"),
        ({"input": []}, "invalid_value", "input"),
        ({"input": ["a", ""]}, "invalid_value", "input[1]"),
        ({"input": ["a"] * 2049}, "invalid_value", "2048"),
        ({"input": "word " * 300}, "context_length_exceeded", "256 tokens"),
        ({"input": [1, 2]}, "unsupported_parameter", "tokens"),
        ({"input": "a", "dimensions": 64}, "unsupported_parameter", "dimensions"),
    ],
)
def test_refusals_say_what_is_wrong(clients: dict[str, Any], more: dict[str, Any], code: str, named: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        clients["openai"].embeddings.create(model=MINILM["id"], **more)
    assert caught.value.code == code
    assert named in caught.value.message


def test_an_upstream_is_passed_through(client: Any, upstream: MockUpstream) -> None:
    answer = client.embeddings.with_raw_response.create(model="far", input=["a", "b"], encoding_format="float")
    assert answer.headers["x-keepless-retention"] == "none; upstream=logs_30d"
    assert [item.embedding for item in answer.parse().data] == [[0.6, 0.8]] * 2
    assert upstream.received[-1].path == "/v1/embeddings"
    with pytest.raises((openai.InternalServerError, groq.InternalServerError)):
        client.embeddings.create(model="error-500", input="a")


def test_it_is_counted_and_never_kept(served: Served, clients: dict[str, Any]) -> None:
    organization = Organization.of(served.url, served.told)
    raw = clients["openai"].embeddings.with_raw_response
    answer = raw.create(model=MINILM["id"], input="Hello there")
    assert answer.headers["x-keepless-retention"] == "none"
    with pytest.raises(openai.InternalServerError) as caught:
        raw.create(model="error-500", input="Hello there")
    assert caught.value.response.headers["x-keepless-retention"].startswith("none")
    assert not organization.retained()
    found = served.ask("GET", f"/organization/explain/{answer.headers['x-request-id']}")
    assert (found["endpoint"], found["prompt_tokens"], found["kept"]) == ("embeddings", 4, False)


def test_a_client_that_leaves_makes_room_for_who_comes(served: Served, clients: dict[str, Any]) -> None:
    create, before = clients["openai"].embeddings.create, in_flight(served)
    create(model=MINILM["id"], input="Hello there")
    (engine,) = [pid for pid in children(served.process.pid) if runs(pid, b"minilm_process")]
    idle = worked(engine)
    body = json.dumps({"model": MINILM["id"], "input": ["word " * 200] * 2000}).encode()
    host, port = served.url.removeprefix("http://").split(":")
    leaving = http.client.HTTPConnection(host, int(port), timeout=60)
    leaving.request("POST", "/v1/embeddings", body, {"authorization": f"Bearer {served.api_key}"})
    comes_true(lambda: worked(engine) > idle + 3)
    assert in_flight(served) == before + 1
    leaving.close()
    comes_true(lambda: in_flight(served) == before)
    comes_true(lambda: rests(engine))  # it does not go on for nobody
    assert len(create(model=MINILM["id"], input="Hello there").data) == 1


def rests(pid: int) -> bool:
    """Whether a process has ended or does nothing for a while."""
    try:
        before = worked(pid)
        time.sleep(0.5)
        return worked(pid) <= before + 1
    except OSError:
        return True


def in_flight(served: Served) -> float:
    with urllib.request.urlopen(f"{served.url}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("keepless_requests_in_flight "))


def test_the_models_page_says_what_it_does(clients: dict[str, Any]) -> None:
    found = clients["openai"].models.retrieve(MINILM["id"]).to_dict()
    assert found["capabilities"] == ["embeddings"]
    assert found["context_window"] == 256
    assert found["embeddings"] == {"dimensions": 384, "max_inputs": 2048}
    assert found["data_retention"]["allowed_modes"] == ["default", "zero_data_retention"]
