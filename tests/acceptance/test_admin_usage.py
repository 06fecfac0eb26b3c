"""What OpenAI's admin client is told of usage, costs, limits and the audit log, by a server that was really asked."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest

from tests.acceptance.test_admin_sdk import keepless
from tests.support.serve import Served, serve, upstream_models
from tests.support.upstream import Behaviour, MockUpstream

# A dollar a token, two a letter.
PRICES = {"input_price": 1_000_000.0, "output_price": 0.0, "character_price": 2_000_000.0}
ENDPOINTS = ["chat.completions", "embeddings", "audio.speech"]
MODEL = Behaviour.OK.value
TEXT = "to be spoken"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with (
        MockUpstream() as upstream,
        serve(
            tmp_path_factory.mktemp("usage"), upstream_models(upstream.base_url, endpoints=ENDPOINTS, **PRICES)
        ) as server,
    ):
        yield server


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        api_key=served.api_key,
        admin_api_key=served.told["admin_key"],
        base_url=f"{served.url}/openai/v1",
        max_retries=0,
    ) as made:
        yield made


def eventually(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_each_kind_of_usage_and_what_it_costs(client: openai.OpenAI) -> None:
    usage, start = client.admin.organization.usage, int(time.time()) - 3600
    answer = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hello"}])
    vectors = client.embeddings.create(model=MODEL, input="hello")
    client.audio.speech.create(model=MODEL, voice="alloy", input=TEXT)
    assert answer.usage is not None

    def results(method: Callable[..., object], **asked: object) -> list[dict[str, object]]:
        page = method(start_time=start, **asked)
        return [one.to_dict() for bucket in page.data for one in bucket.results]

    eventually(lambda: len(results(usage.audio_speeches)) == 1)  # rows are written half a second later
    (spoken,) = results(usage.audio_speeches, group_by=["model"])
    assert (spoken["characters"], spoken["num_model_requests"], spoken["model"]) == (len(TEXT), 1, MODEL)
    eventually(lambda: len(results(usage.embeddings)) == 1)
    (embedded,) = results(usage.embeddings, bucket_width="1h", models=[MODEL])
    assert embedded["input_tokens"] == vectors.usage.prompt_tokens
    eventually(lambda: len(results(usage.completions)) == 1)
    assert results(usage.audio_transcriptions) == results(usage.images) == results(usage.moderations) == []
    costs = {one["line_item"]: one for one in results(usage.costs, group_by=["line_item", "project_id"])}
    assert costs[f"{MODEL}, characters"]["amount"] == {"value": 2.0 * len(TEXT), "currency": "usd"}
    tokens = answer.usage.prompt_tokens + vectors.usage.prompt_tokens
    assert costs[f"{MODEL}, input"]["amount"] == {"value": float(tokens), "currency": "usd"}
    assert costs[f"{MODEL}, input"]["quantity"] == tokens


def test_the_limit_of_a_model_and_the_end_of_a_key(client: openai.OpenAI) -> None:
    projects = client.admin.organization.projects
    project = projects.create(name="Limited")
    made = projects.service_accounts.create(project.id, name="bot")
    brief = projects.service_accounts.create(project.id, name="brief", expires_in_seconds=1)
    assert made.api_key is not None
    assert brief.api_key is not None
    limits = {one.model: one for one in projects.rate_limits.list_rate_limits(project.id)}
    projects.rate_limits.update_rate_limit(limits[MODEL].id, project_id=project.id, max_requests_per_1_day=2)

    def ask(key: str) -> None:
        client.copy(api_key=key).chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x"}])

    for _ in range(2):
        ask(made.api_key.value)
    with pytest.raises(openai.RateLimitError) as refused:
        ask(made.api_key.value)
    assert "Limit 2, Used 2" in refused.value.message
    key = brief.api_key.value

    def ended() -> bool:
        try:
            client.copy(api_key=key).models.list()
        except openai.AuthenticationError:
            return True
        return False

    eventually(ended)


def test_the_audit_log_is_proved_offline_and_a_changed_one_is_found(served: Served, tmp_path: Path) -> None:
    code, exported = keepless(served, "audit", "export", "--out", str(tmp_path))
    assert (code, exported["events"] > 2) == (0, True)
    code, checked = keepless(served, "verify", str(tmp_path))
    assert (code, checked["ok"], checked["files"][0]["events"]) == (0, True, exported["events"])
    file = Path(exported["file"])
    file.write_bytes(file.read_bytes().replace(b'"organization.created"', b'"organization.destroyed"'))
    done = subprocess.run(
        [sys.executable, "-m", "keepless", "verify", str(tmp_path)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 1
