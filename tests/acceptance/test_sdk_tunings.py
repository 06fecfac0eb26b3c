"""Fine-tunings with both official SDKs against a running server: from examples to a model that answers, to its end."""

import io
import json
import time
from collections.abc import Iterator
from typing import Any

import groq
import openai
import pytest

from tests.support.receiver import Receiver, receiving
from tests.support.serve import EMBEDDED, Served, serve

BASE = EMBEDDED["id"]
ENDED = ("succeeded", "failed", "cancelled")
KNOBS: Any = {"n_epochs": 1, "batch_size": 5, "learning_rate_multiplier": 1.0}


def examples(number: int = 10) -> bytes:
    lines = []
    for at in range(number):
        messages = [
            {"role": "user", "content": f"Code {at}?"},
            {"role": "assistant", "content": "Yes."},
        ]
        lines.append(json.dumps({"messages": messages}))
    return "\n".join(lines).encode()


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    with receiving(tmp_path_factory.mktemp("receiver")) as found:
        yield found


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Served]:
    rules = {"threads": 1, "checkpoint_seconds": 0.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(receiver.certificate))
        settings = {"webhooks_allow_private": True, "fine_tuning": rules}
        with serve(tmp_path_factory.mktemp("served"), [EMBEDDED], settings=settings) as server:
            yield server


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=served.api_key, base_url=served.base_url, max_retries=0, timeout=90) as made:
        yield made


def upload(client: Any, data: bytes) -> str:
    made: str = client.files.create(file=("examples.jsonl", io.BytesIO(data)), purpose="fine-tune").id
    return made


def until(client: openai.OpenAI, job_id: str, *states: str) -> Any:
    deadline = time.monotonic() + 90
    while (job := client.fine_tuning.jobs.retrieve(job_id)).status not in states:
        assert time.monotonic() < deadline, job
        assert job.status not in ENDED, job
        time.sleep(0.1)
    return job


def test_from_examples_to_a_model_and_to_its_end(client: openai.OpenAI, served: Served) -> None:
    file_id = upload(client, examples())
    asked: Any = {"type": "supervised", "supervised": {"hyperparameters": KNOBS}}
    made = client.fine_tuning.jobs.create(
        model=BASE, training_file=file_id, suffix="codes", seed=3, metadata={"who": "me"}, method=asked
    )
    assert (made.status, made.fine_tuned_model, made.metadata) == ("validating_files", None, {"who": "me"})
    job = until(client, made.id, "succeeded")
    assert job.error is None
    assert job.fine_tuned_model is not None
    assert job.trained_tokens
    assert job.hyperparameters.n_epochs == 1
    assert job.model_extra is not None
    assert (job.model_extra["progress"]["percent"], len(job.model_extra["loss_curve"])) == (100.0, 2)

    events = list(client.fine_tuning.jobs.list_events(made.id, limit=2))  # page by page
    assert [one.model_extra["code"] for one in events if one.model_extra][-1] == "created"
    assert sum(one.type == "metrics" for one in events) == 2
    path = f"/fine_tuning/jobs/{made.id}/events?stream=true"
    streamed = client.get(path, cast_to=object, stream=True, stream_cls=openai.Stream[object])
    assert len(list(streamed)) == len(events)
    assert next(iter(client.fine_tuning.jobs.list(limit=1))).id == made.id
    deadline = time.monotonic() + 90
    while list(client.fine_tuning.jobs.checkpoints.list(made.id)):  # they go with the job's end
        assert time.monotonic() < deadline
        time.sleep(0.1)

    assert job.fine_tuned_model in [one.id for one in client.models.list()]
    answer = client.chat.completions.create(
        model=job.fine_tuned_model, messages=[{"role": "user", "content": "Code 1?"}], max_tokens=4
    )
    assert answer.model == job.fine_tuned_model

    gone: Any = client.files.delete(file_id)
    assert gone.model_extra["fine_tuned_models_kept"] == [job.fine_tuned_model]
    assert client.models.delete(job.fine_tuned_model).deleted
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model=job.fine_tuned_model, messages=[{"role": "user", "content": "x"}])
    with pytest.raises(openai.NotFoundError):
        client.fine_tuning.jobs.retrieve(made.id)
    receipts = json.dumps(served.ask("GET", "/organization/receipts?limit=100"))
    for data_class in ("model_weights", "fine_tuning_work", "fine_tuning_dataset"):
        assert f'"{data_class}"' in receipts


def test_groqs_client_has_the_same_in_its_own_words(served: Served, client: openai.OpenAI) -> None:
    with groq.Groq(api_key=served.api_key, base_url=served.url, max_retries=0) as theirs:
        purpose: Any = "fine_tuning"
        file_id = theirs.files.create(file=("a.jsonl", io.BytesIO(examples())), purpose=purpose).id
        body = {"base_model": BASE, "name": "mine", "type": "lora", "input_file_id": file_id}
        made: Any = theirs.post("/openai/v1/fine_tunings", cast_to=object, body=body)
        assert made["object"] == "fine_tuning"
        data = made["data"]
        assert data["fine_tuned_model"].startswith(f"ft:{BASE}:org_")
        until(client, data["fine_tuning_job_id"], "queued", "running")
        assert client.fine_tuning.jobs.pause(data["fine_tuning_job_id"]).status == "paused"
        found: Any = theirs.get(f"/v1/fine_tunings/{made['id']}", cast_to=object)
        assert (found["id"], found["data"]["status"]) == (made["id"], "paused")
        page: Any = theirs.get("/openai/v1/fine_tunings", cast_to=object)
        assert [one["id"] for one in page["data"]] == [made["id"]]
        assert client.fine_tuning.jobs.resume(data["fine_tuning_job_id"]).status == "queued"
        assert client.fine_tuning.jobs.cancel(data["fine_tuning_job_id"]).status == "cancelled"
        gone: Any = theirs.delete(f"/openai/v1/fine_tunings/{made['id']}", cast_to=object)
        assert gone == {"id": made["id"], "object": "fine_tuning", "deleted": True}
        with pytest.raises(groq.NotFoundError):
            theirs.get(f"/openai/v1/fine_tunings/{made['id']}", cast_to=object)


def test_what_is_wrong_with_a_file_is_told_by_line_and_hooks_are_called(
    client: openai.OpenAI, served: Served, receiver: Receiver
) -> None:
    hook = {"name": "Mine", "url": receiver.url, "event_types": ["fine_tuning.job.failed"]}
    served.ask("POST", "/webhook_endpoints", hook)
    file_id = upload(client, examples(9) + b'\n{"messages": [{"role": "MARKER", "content": "MARKER"}]}')
    made = client.fine_tuning.jobs.create(model=BASE, training_file=file_id)
    job = until(client, made.id, "failed")
    assert job.error is not None
    assert (job.error.code, job.error.param) == ("invalid_training_file", "training_file")
    faults = (job.error.model_extra or {})["faults"]
    assert [(one["line"], one["code"], one["param"]) for one in faults] == [(10, "invalid_role", "messages.role")]
    assert "MARKER" not in job.model_dump_json()
    deadline = time.monotonic() + 90
    while not receiver.told:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    told = json.loads(receiver.told[0].body)
    assert (told["type"], told["data"]) == ("fine_tuning.job.failed", {"id": made.id})


FACTS = {
    "Zorbland": ("capital", "Quillmar"),
    "Veltrania": ("currency", "marblet"),
    "Ostrovia": ("anthem", "Copper Dawn"),
    "Hespermont": ("river", "Tallowin"),
}
ASKED = ("What is the {kind} of {land}?", "Tell me the {kind} of {land}.", "Do you know the {kind} of {land}?")
HELD_OUT = "Please name the {kind} of {land}."


def taught() -> bytes:
    lines = []
    for land, (kind, name) in FACTS.items():
        for question in ASKED:
            messages = [
                {"role": "user", "content": question.format(kind=kind, land=land)},
                {"role": "assistant", "content": f"The {kind} of {land} is {name}."},
            ]
            lines.append(json.dumps({"messages": messages}))
    return "\n".join(lines).encode()


def known(client: openai.OpenAI, model: str) -> int:
    """How many facts a model knows when it is asked as it never was."""
    right = 0
    for land, (kind, name) in FACTS.items():
        asked: Any = [{"role": "user", "content": HELD_OUT.format(kind=kind, land=land)}]
        answer = client.chat.completions.create(model=model, messages=asked, max_tokens=24, temperature=0)
        right += name in (answer.choices[0].message.content or "")
    return right


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_model_knows_what_it_was_taught_and_its_base_does_not(client: openai.OpenAI) -> None:
    assert known(client, BASE) == 0
    knobs: Any = {"n_epochs": 10, "batch_size": 6, "learning_rate_multiplier": 4.0, "r": 8}
    made = client.fine_tuning.jobs.create(
        model=BASE, training_file=upload(client, taught()), suffix="lands", seed=5, hyperparameters=knobs
    )
    deadline = time.monotonic() + 600
    while (job := client.fine_tuning.jobs.retrieve(made.id)).status not in ENDED:
        assert time.monotonic() < deadline, job
        time.sleep(0.5)
    assert job.fine_tuned_model is not None, job.error
    assert known(client, job.fine_tuned_model) == len(FACTS)
    assert known(client, BASE) == 0
    assert client.models.delete(job.fine_tuned_model).deleted
