"""Webhook endpoints with the official SDK: registered, tried out against an HTTPS server, verified by the SDK."""

from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.support.receiver import Receiver, receiving
from tests.support.serve import Served, serve, upstream_models


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    with receiving(tmp_path_factory.mktemp("receiver")) as found:
        yield found


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(receiver.certificate))
        folder = tmp_path_factory.mktemp("served")
        models = upstream_models("http://127.0.0.1:1/v1")
        with serve(folder, models, settings={"webhooks_allow_private": True}) as server:
            yield server


@pytest.fixture
def owner(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=served.told["admin_key"], base_url=f"{served.url}/openai/v1", max_retries=0) as made:
        yield made


def test_a_life_with_the_sdk(owner: openai.OpenAI, receiver: Receiver) -> None:
    hooks = owner.webhooks
    assert "batch.completed" in hooks.event_types.list().data
    made = hooks.create(name="Mine", url=receiver.url, event_types=["batch.completed"])
    assert [one.id for one in hooks.list(limit=1)] == [made.id]
    result = hooks.test(made.id, event_type="batch.completed")
    assert (result.success, result.status_code) == (True, 200)
    told = receiver.told[-1]
    event = hooks.unwrap(told.body, told.headers, secret=made.signing_secret)
    assert event.type == "batch.completed"
    assert event.data.id.startswith("batch_")
    rotated = hooks.rotate_secret(made.id)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        hooks.verify_signature(told.body, told.headers, secret=rotated.signing_secret)
    assert hooks.update(made.id, name="Other").name == "Other"
    assert hooks.retrieve(made.id).signing_secret_hint is not None
    receiver.statuses.append(307)
    before = len(receiver.told)
    assert hooks.test(made.id, event_type="batch.failed").status_code == 307
    assert len(receiver.told) == before + 1
    assert hooks.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        hooks.retrieve(made.id)


def test_nothing_answers(owner: openai.OpenAI) -> None:
    made = owner.webhooks.create(name="x", url="https://127.0.0.1:1/", event_types=["batch.failed"])
    with pytest.raises(openai.BadRequestError) as refused:
        owner.webhooks.test(made.id, event_type="batch.failed")
    assert refused.value.code == "webhook_unreachable"


def test_an_api_key_manages_no_endpoints(served: Served) -> None:
    client = openai.OpenAI(api_key=served.api_key, base_url=f"{served.url}/v1", max_retries=0)
    with client, pytest.raises(openai.PermissionDeniedError):
        client.webhooks.list()


def test_neither_url_nor_secret_is_logged_and_the_secret_is_in_no_database(
    owner: openai.OpenAI, served: Served, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = owner.webhooks.create(
        name="x", url="https://localhost:1/MARKERURL?token=MARKERURL", event_types=["batch.failed"]
    )
    with pytest.raises(openai.BadRequestError):
        owner.webhooks.test(made.id, event_type="batch.failed")
    assert "MARKERURL" not in "".join(served.log)
    secret = made.signing_secret.removeprefix("whsec_").encode()
    folder = next(Path(p) for p in tmp_path_factory.getbasetemp().glob("served*"))
    searched = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "keepless.sqlite" for path in searched)
    assert not [path for path in searched if secret in path.read_bytes()]
