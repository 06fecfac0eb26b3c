"""OpenAI's admin client, unchanged, against a running server; and the way of one captured request to its receipt."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support.serve import Served, serve, upstream_models
from tests.support.upstream import Behaviour, MockUpstream


@pytest.fixture(scope="module")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream() as mock:
        yield mock


@pytest.fixture
def served(tmp_path: Path, upstream: MockUpstream) -> Iterator[Served]:
    with serve(tmp_path, upstream_models(upstream.base_url), fresh=True) as server:
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


def chat(client: openai.OpenAI, behaviour: Behaviour = Behaviour.OK) -> Any:
    return client.chat.completions.with_raw_response.create(
        model=behaviour.value, messages=[{"role": "user", "content": "MARKER"}]
    )


def test_projects_keys_and_labels(client: openai.OpenAI) -> None:
    organization = client.admin.organization
    made = organization.projects.create(name="Research")
    assert organization.projects.retrieve(made.id).name == "Research"
    assert organization.projects.update(made.id, name="Lab").name == "Lab"
    assert [p.name for p in organization.projects.list(limit=1)] == ["Default", "Lab"]  # the SDK walks the pages
    account = organization.projects.service_accounts.create(made.id, name="bot")
    assert account.api_key is not None
    bot = client.copy(api_key=account.api_key.value)  # shares the connections of the one it is copied from
    assert chat(bot).status_code == 200
    keys = list(organization.projects.api_keys.list(made.id))
    assert [key.id for key in keys] == [account.id]
    assert organization.projects.api_keys.retrieve(keys[0].id, project_id=made.id).redacted_value.startswith("sk-")
    ends = organization.projects.api_keys.update(keys[0].id, project_id=made.id, expires_in_seconds=3600)
    assert (ends.id, ends.redacted_value) == (keys[0].id, keys[0].redacted_value)
    assert ends.expires_at is not None and 3590 < ends.expires_at - ends.created_at < 3690
    assert chat(bot).status_code == 200
    with pytest.raises(openai.BadRequestError) as refused:
        organization.projects.api_keys.update(keys[0].id, project_id=made.id, scopes=["api.all.read"])
    assert refused.value.param == "scopes"
    assert organization.projects.api_keys.delete(keys[0].id, project_id=made.id).deleted
    with pytest.raises(openai.AuthenticationError):
        chat(bot)
    assert organization.projects.archive(made.id).status == "archived"
    assert [p.status for p in organization.projects.list(include_archived=True)] == ["active", "archived"]


def test_admin_keys(client: openai.OpenAI) -> None:
    keys = client.admin.organization.admin_api_keys
    made = keys.create(name="ci")
    assert made.owner.role == "owner"
    other = client.copy(admin_api_key=made.value)
    names = [key.name for key in other.admin.organization.admin_api_keys.list(limit=1, order="asc")]
    assert names == ["Default", "ci"]
    assert keys.retrieve(made.id).redacted_value == f"ak-...{made.value[-4:]}"
    assert keys.delete(made.id).deleted
    with pytest.raises(openai.AuthenticationError):
        other.admin.organization.admin_api_keys.list()


def test_what_is_deleted_while_its_pages_are_walked_is_all_deleted(client: openai.OpenAI) -> None:
    organization = client.admin.organization
    (project,) = organization.projects.list()
    accounts = organization.projects.service_accounts
    made = [accounts.create(project.id, name=f"{number}").id for number in range(3)]
    deleted = []
    for account in accounts.list(project.id, limit=1):
        deleted.append(account.id)
        assert accounts.delete(account.id, project_id=project.id).deleted
    assert deleted[1:] == made  # the first one came with the deployment
    assert list(accounts.list(project.id)) == []
    for number in range(3):
        organization.invites.create(email=f"{number}@example.com", role="reader")
    invites = list(organization.invites.list())
    for invite in organization.invites.list(limit=1):
        organization.invites.delete(invite.id)
    assert len(invites) == 3
    assert list(organization.invites.list()) == []


def test_data_retention(client: openai.OpenAI) -> None:
    retention = client.admin.organization.data_retention
    assert retention.retrieve().type == "none"
    changed = retention.update(retention_type="zero_data_retention")
    assert (changed.object, changed.type) == ("organization.data_retention", "zero_data_retention")
    assert chat(client).headers["x-keepless-retention"] == "none"
    (project,) = client.admin.organization.projects.list()
    label = client.admin.organization.projects.data_retention.retrieve(project.id)
    assert (label.object, label.type) == ("project.data_retention", "organization_default")
    with pytest.raises(openai.BadRequestError) as refused:
        retention.update(retention_type="enhanced_zero_data_retention")
    assert refused.value.code == "unsupported_value"


def test_usage_of_what_was_asked(client: openai.OpenAI) -> None:
    for _ in range(3):
        chat(client)
    start = int(time.time()) - 3600
    until = time.monotonic() + 10
    while True:  # rows are written in batches, at most half a second later
        page = client.admin.organization.usage.completions(start_time=start, group_by=["model", "project_id"])
        results = [result for bucket in page.data for result in bucket.results]
        if results and results[0].num_model_requests == 3:
            break
        assert time.monotonic() < until, results
        time.sleep(0.1)
    assert results[0].object == "organization.usage.completions.result"
    assert results[0].model == Behaviour.OK.value


def test_an_api_key_opens_nothing_and_an_admin_key_asks_nothing(served: Served, client: openai.OpenAI) -> None:
    wrong = client.copy(admin_api_key=served.api_key)
    with pytest.raises(openai.PermissionDeniedError) as refused:
        wrong.admin.organization.data_retention.retrieve()
    assert "admin key" in refused.value.message
    wrong = client.copy(api_key=served.told["admin_key"])
    with pytest.raises(openai.AuthenticationError):
        chat(wrong)


def test_the_asynchronous_client(served: Served) -> None:
    async def main() -> str:
        async with openai.AsyncOpenAI(
            api_key="x", admin_api_key=served.told["admin_key"], base_url=served.base_url, max_retries=0
        ) as client:
            return (await client.admin.organization.data_retention.retrieve()).type

    assert asyncio.run(main()) == "none"


def keepless(served: Served, *arguments: str) -> tuple[int, Any]:
    """A command as users run it, with the admin key in the environment; exit code and the JSON object it says."""
    environment = {
        **os.environ,
        "KEEPLESS_BASE_URL": served.url,
        "KEEPLESS_ADMIN_KEY": served.told["admin_key"],
    }
    done = subprocess.run(
        [sys.executable, "-m", "keepless", *arguments, "--json"],
        capture_output=True,
        check=False,
        text=True,
        env=environment,
    )
    assert done.stdout.count("\n") == 1, (done.stdout, done.stderr)
    return done.returncode, json.loads(done.stdout)


def test_from_a_failing_request_to_a_receipt_that_an_outsider_verifies(
    served: Served, client: openai.OpenAI, tmp_path: Path
) -> None:
    with pytest.raises(openai.APIStatusError) as failed:
        chat(client, Behaviour.ERROR_500)
    retention = failed.value.response.headers["x-keepless-retention"]
    assert retention.startswith("class=reliability_log; object=obj_")
    (kept,) = served.ask("GET", "/organization/retained_objects")["data"]
    assert kept["id"] in retention
    request_id = failed.value.response.headers["x-request-id"]
    assert kept["request_id"] == request_id
    _, preview = keepless(served, "controls", "preview", "--zdr", "on")
    assert preview["objects"] == 1
    code, changed = keepless(served, "controls", "set", "--zdr", "on", "--wait")
    assert (code, changed["purge"]["state"], changed["purge"]["destroyed"]) == (0, "done", 1)
    assert served.ask("GET", "/organization/retained_objects")["data"] == []
    with pytest.raises(openai.APIStatusError) as failed:
        chat(client, Behaviour.ERROR_500)
    assert failed.value.response.headers["x-keepless-retention"] == "none"
    code, exported = keepless(served, "receipts", "export", "--out", str(tmp_path / "proofs"))
    assert (code, exported["receipts"]) == (0, 1)
    code, verified = keepless(served, "verify", str(tmp_path / "proofs"))
    assert (code, verified["ok"]) == (0, True)
    assert verified["files"][0]["object_id"] == kept["id"]
    code, told = keepless(served, "explain", request_id)
    assert (code, told["kept"], told["object_id"]) == (0, True, kept["id"])
    assert "MARKER" not in json.dumps([kept, preview, changed, told, verified])


def test_users_and_invites(client: openai.OpenAI, served: Served) -> None:
    organization = client.admin.organization
    owner = next(iter(organization.users.list(emails=[served.told["owner_email"]])))
    assert (owner.object, owner.role) == ("organization.user", "owner")
    assert organization.users.retrieve(owner.id).email == served.told["owner_email"]
    made = organization.invites.create(
        email="ada@example.com", role="reader", projects=[{"id": served.told["project_id"], "role": "member"}]
    )
    assert (made.status, made.projects[0].role) == ("pending", "member")
    assert [one.id for one in organization.invites.list()] == [made.id]
    assert organization.invites.retrieve(made.id).email == "ada@example.com"
    assert organization.invites.delete(made.id).deleted
    project = served.told["project_id"]
    assert [one.id for one in organization.projects.users.list(project)] == [owner.id]
    with pytest.raises(openai.BadRequestError):
        organization.users.update(owner.id, role="reader")
    assert "/sign-in/link?token=" in served.told["sign_in"]


def test_the_audit_log(client: openai.OpenAI, served: Served) -> None:
    organization = client.admin.organization
    made = organization.projects.create(name="Second")
    newest = next(iter(organization.audit_logs.list(limit=1)))
    assert (newest.type, newest.project_created.id) == ("project.created", made.id)
    kinds = {event.type for event in organization.audit_logs.list(limit=2)}  # the client turns the pages
    assert {"organization.created", "project.created"} <= kinds
    found = organization.audit_logs.list(event_types=["project.created"], resource_ids=[made.id])
    assert [event.id for event in found] == [newest.id]
    assert list(organization.audit_logs.list(effective_at={"gt": newest.effective_at})) == []
