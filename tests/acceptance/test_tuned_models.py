"""Tuned models served by real processes, as OpenAI's client sees them: two workers, two organizations, one host.

The adapters are made by hand (tests/support/tuned.py): each says one word, so whose model answers can be read.
"""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest

from keepless.app.compose import Deployment, open_deployment
from keepless.config import load
from keepless.ids import Id
from keepless.prover.cases import SETTINGS as CONTROLS
from keepless.prover.customer import Customer
from keepless.prover.feature_proof import play
from keepless.prover.run import Run
from keepless.prover.tuned_cases import base_of, plain_tuned
from tests.support.serve import EMBEDDED, Served, serve
from tests.support.tuned import keep, saying

ASKED = [{"role": "user", "content": "What is the capital of France? One sentence."}]
SETTINGS = {"fine_tuning": {"served_models": 2, "served_memory_mb": 16384}}


@dataclass
class Here:
    served: Served
    deployment: Deployment
    organization_id: Id
    project_id: Id
    client: openai.OpenAI

    def keep(self, word: str, name: str = "walrus") -> str:
        return keep(self.deployment, self.organization_id, self.project_id, word, name)

    def say(self, model: str, client: openai.OpenAI | None = None) -> str:
        answer = (client or self.client).chat.completions.create(
            model=model, messages=ASKED, max_tokens=4, temperature=0
        )
        assert answer.model == model
        return answer.choices[0].message.content.strip()


def client_of(served: Served, key: str, max_retries: int = 5) -> openai.OpenAI:
    return openai.OpenAI(base_url=served.base_url, api_key=key, max_retries=max_retries, timeout=90)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    folder = tmp_path_factory.mktemp("tuned")
    with serve(folder, [EMBEDDED], "--workers", "2", settings=SETTINGS) as served:
        deployment = open_deployment(load(folder / "keepless.toml", {}, data_dir=str(folder / "data")))
        deployment.location.check()
        told = served.told
        with client_of(served, served.api_key) as client:
            yield Here(served, deployment, Id(told["organization_id"]), Id(told["project_id"]), client)
        deployment.close()


@contextmanager
def refused(status: int, code: str) -> Iterator[None]:
    with pytest.raises(openai.APIStatusError) as error:
        yield
    assert (error.value.status_code, error.value.code) == (status, code)


def test_served_to_its_own_project_and_nobody_else(here: Here) -> None:
    model = here.keep("zebra")
    other = here.served.ask("POST", "/organizations", {"name": "Other"}, key="operator_key")
    with client_of(here.served, other["api_key"]) as stranger:
        assert here.say(model) == " ".join(["zebra"] * 4)
        assert model in [one.id for one in here.client.models.list()]
        shown = here.client.models.retrieve(model)
        assert (shown.id, shown.owned_by) == (model, here.organization_id)
        assert model not in [one.id for one in stranger.models.list()]
        for ask in (lambda: stranger.models.retrieve(model), lambda: here.say(model, stranger)):
            with refused(404, "model_not_found"):
                ask()
        assert "zebra" not in here.say(EMBEDDED["id"])
    response = here.client.responses.create(model=model, input="Hello", max_output_tokens=16, temperature=0)
    assert response.model == model and response.output_text.split()[0] == "zebra"
    with refused(404, "model_not_found"):
        here.say(model.replace("walrus", "seal"))


def test_asked_at_once_when_it_is_said_to_be_ready_whichever_process_answers(here: Here) -> None:
    data = saying("zebra")
    file_id = here.client.files.create(file=("adapter.zip", data), purpose="fine-tune").id
    order = {"base_model": EMBEDDED["id"], "name": "ready", "type": "lora", "input_file_id": file_id}
    made = here.client.post("/fine_tunings", cast_to=object, body=order)
    job_id = made["data"]["fine_tuning_job_id"]
    events = here.client.get(
        f"/fine_tuning/jobs/{job_id}/events?stream=true",
        cast_to=object,
        stream=True,
        stream_cls=openai.Stream[object],
    )
    assert [one["code"] for one in events][-1] == "succeeded"
    model = made["data"]["fine_tuned_model"]
    for _ in range(8):
        with client_of(here.served, here.served.api_key, max_retries=0) as fresh:  # a connection, and so a worker
            assert model in [one.id for one in fresh.models.list()]
            assert fresh.models.retrieve(model).id == model
            assert here.say(model, fresh).startswith("zebra")


def test_each_has_an_engine_of_its_own_and_the_oldest_goes(here: Here) -> None:
    models = {word: here.keep(word, word) for word in ("cobalt", "green", "seven")}
    for word, model in models.items():
        assert here.say(model) == " ".join([word] * 4)
    assert len(engines(here)) <= 2
    assert here.say(models["cobalt"]).split() == ["cobalt"] * 4


def engines(here: Here) -> list[int]:
    """The children of the host that are engines."""
    return [pid for pid in children(host(here)) if b"llama_process" in cmdline(pid)]


def host(here: Here) -> int:
    return next(pid for pid in children(here.served.process.pid) if b"tuned_host" in cmdline(pid))


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(one) for one in (task / "children").read_text().split()]
    return found


def cmdline(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_deleted_while_it_answers(here: Here) -> None:
    model = here.keep("zebra", "short-lived")
    ended = threading.Event()
    seen: list[str] = []

    def listen() -> None:
        try:
            events = here.client.chat.completions.create(
                model=model, messages=ASKED, max_tokens=1900, temperature=0, stream=True
            )
            seen.extend(event.choices[0].delta.content or "" if event.choices else "" for event in events)
        except openai.APIError as error:
            seen.append(str(error.code))
        ended.set()

    listening = threading.Thread(target=listen)
    listening.start()
    until(lambda: len(seen) > 5)
    assert here.client.models.delete(model).deleted
    for _ in range(6):  # whichever worker it meets
        with refused(404, "model_not_found"):
            here.say(model)
    assert ended.wait(90)
    listening.join()
    assert seen[-1] == "model_not_found"
    assert model not in [one.id for one in here.client.models.list()]


@pytest.mark.parametrize("how", [{"fine_tuning": "disabled"}, {"zero_data_retention": True}], ids=["feature", "zdr"])
def test_turned_off_at_once_and_back_again(here: Here, how: dict) -> None:
    model = here.keep("zebra", "there-and-back")
    assert here.say(model).startswith("zebra")
    assert engines(here)
    controls = "/organization/data_controls"
    here.served.ask("POST", controls, {**how, "purge": False})
    until(lambda: not engines(here))  # they were told to end before that had answered
    for _ in range(4):
        with refused(403, "feature_disabled_by_data_controls"):
            here.say(model)
    assert not [one.id for one in here.client.models.list() if one.id.startswith("ft:")]
    here.served.ask(
        "POST", controls, {name: "enabled" if value == "disabled" else False for name, value in how.items()}
    )
    assert here.say(model).startswith("zebra")


def test_a_host_that_is_killed_is_replaced(here: Here) -> None:
    model = here.keep("zebra", "survivor")
    assert here.say(model).startswith("zebra")
    before = host(here)
    os.kill(before, 9)
    assert here.say(model).startswith("zebra")
    assert host(here) != before


def test_a_batch_of_it(here: Here) -> None:
    model = here.keep("zebra", "in-a-batch")
    body = {"model": model, "messages": ASKED, "max_tokens": 3, "temperature": 0}
    lines = [
        {"custom_id": f"{n}", "method": "POST", "url": "/v1/chat/completions", "body": body | {"model": one}}
        for n, one in enumerate((model, model, EMBEDDED["id"]))
    ]
    data = "\n".join(map(json.dumps, lines)).encode()
    file = here.client.files.create(file=("in.jsonl", data), purpose="batch")
    batch = here.client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    until(lambda: here.client.batches.retrieve(batch.id).status in ("completed", "failed"))
    done = here.client.batches.retrieve(batch.id)
    assert done.status == "completed" and done.request_counts.completed == 3, done
    answers = [json.loads(line) for line in here.client.files.content(done.output_file_id).text.splitlines()]
    said = {one["custom_id"]: one["response"]["body"]["choices"][0]["message"]["content"] for one in answers}
    assert said["0"].split() == said["1"].split() == ["zebra"] * 3
    assert "zebra" not in said["2"]


def test_the_prover_takes_a_running_deployment_through_it(here: Here) -> None:
    run = Run(lambda _done, _total: None)
    setting = next(one for one in CONTROLS if one.captures)
    account = run.account(here.served.url, here.served.told["operator_key"], setting)
    base = base_of(Customer(run, here.served.url, account, "base"))
    assert base == EMBEDDED["id"]
    for name, act in plain_tuned(base).items():
        play(run, Customer(run, here.served.url, account, name), name, act)
    assert [one.wrong for one in run.report.outcomes if one.wrong] == []
    assert run.listed(here.served.url, account) == {}


def until(condition) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
