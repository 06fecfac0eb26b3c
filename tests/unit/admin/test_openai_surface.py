"""The admin part of OpenAI's client, all of it and unchanged: each method works, or says in words why it is not here.

The real client asks the real application through a transport without sockets; every answer is checked against the
client's own types, strictly, as the client itself does not.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import httpx
import openai
import pytest
from openai import BaseModel

from keepless.admin.matrix import ENDPOINTS
from keepless.admin.unserved import UNSERVED
from tests.support.asgi import call
from tests.support.openai_admin import arguments, methods, plain, surface
from tests.support.platform import Platform

SERVED: Final = {(endpoint.method, plain(endpoint.path)) for endpoint in ENDPOINTS}
WORDS: Final = {(method, plain(path)): why for (method, path), why in UNSERVED.items()}


class Direct(httpx.BaseTransport):
    """To the application, in this thread."""

    def __init__(self, here: Platform) -> None:
        self._here = here

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        headers = {"authorization": request.headers["authorization"]}
        answer = call(self._here.app, request.method, request.url.raw_path.decode(), headers, request.read())
        return httpx.Response(answer.status, headers=answer.headers, content=answer.body)


@pytest.fixture
def client(here: Platform) -> Iterator[openai.OpenAI]:
    with (
        httpx.Client(transport=Direct(here)) as http,
        openai.OpenAI(
            api_key=here.api_key,
            admin_api_key=here.owner_key,
            base_url="http://keepless/v1",
            http_client=http,
            max_retries=0,
        ) as made,
    ):
        yield made


def test_each_method_is_in_one_table_and_no_row_is_nobodys() -> None:
    found = set(surface().values())
    assert len(surface()) == 143  # of openai 3.54; another version: look at what is new
    assert SERVED & set(WORDS) == set()
    assert found - SERVED == set(WORDS)


def test_what_is_not_here_is_404_in_words(here: Platform, client: openai.OpenAI) -> None:
    routes = surface()
    refused = 0
    for name, method in methods(client):
        if routes[name] in SERVED:
            continue
        with pytest.raises(openai.NotFoundError) as caught:
            method(**arguments(name, method))
        assert caught.value.code == "unknown_url", name
        assert WORDS[routes[name]] in caught.value.message, name
        assert f"{{{name}}}" not in caught.value.message
        refused += 1
    assert refused == len(WORDS)


Step = Callable[[Any, dict[str, str]], Any]  # client.admin.organization, what there is -> the answer


def _works(here: Platform) -> dict[str, Step]:
    """One call of every method that is served, in an order in which each finds what it needs."""
    start = here.rig.clock.now_ms() // 1000 - 3600
    by_usage: dict[str, Step] = {
        f"usage.{name}": lambda o, _, name=name: getattr(o.usage, name)(start_time=start, group_by=["project_id"])
        for name, (method, _) in _usage().items()
        if method == "GET"
    }
    return {
        **by_usage,
        "data_retention.retrieve": lambda o, _: o.data_retention.retrieve(),
        "audit_logs.list": lambda o, _: o.audit_logs.list(
            limit=5, effective_at={"gte": 1}, project_ids=["proj_x"], actor_ids=["key_x"], event_types=["login.failed"]
        ),
        "projects.create": lambda o, at: _named(at, "project", o.projects.create(name="Lab")),
        "projects.list": lambda o, _: o.projects.list(include_archived=True),
        "projects.retrieve": lambda o, at: o.projects.retrieve(at["project"]),
        "projects.update": lambda o, at: o.projects.update(at["project"], name="Laboratory"),
        "projects.data_retention.retrieve": lambda o, at: o.projects.data_retention.retrieve(at["project"]),
        "projects.data_retention.update": lambda o, at: o.projects.data_retention.update(
            at["project"], retention_type="modified_abuse_monitoring"
        ),
        "projects.service_accounts.create": lambda o, at: _named(
            at, "account", o.projects.service_accounts.create(at["project"], name="bot", expires_in_seconds=60)
        ),
        "projects.service_accounts.list": lambda o, at: o.projects.service_accounts.list(at["project"]),
        "projects.service_accounts.retrieve": lambda o, at: o.projects.service_accounts.retrieve(
            at["account"], project_id=at["project"]
        ),
        "projects.service_accounts.update": lambda o, at: o.projects.service_accounts.update(
            at["account"], project_id=at["project"], name="robot", role="member"
        ),
        "projects.api_keys.list": lambda o, at: o.projects.api_keys.list(at["project"], owner_project_access="active"),
        "projects.api_keys.retrieve": lambda o, at: o.projects.api_keys.retrieve(
            at["account"], project_id=at["project"]
        ),
        "projects.api_keys.update": lambda o, at: o.projects.api_keys.update(
            at["account"], project_id=at["project"], expires_in_seconds=600, scopes=[]
        ),
        "projects.service_accounts.delete": lambda o, at: o.projects.service_accounts.delete(
            at["account"], project_id=at["project"]
        ),
        "projects.api_keys.delete": lambda o, at: o.projects.api_keys.delete(at["account"], project_id=at["project"]),
        "projects.rate_limits.list_rate_limits": lambda o, at: _first(
            at, "limit", o.projects.rate_limits.list_rate_limits(at["project"], limit=100)
        ),
        "projects.rate_limits.update_rate_limit": lambda o, at: o.projects.rate_limits.update_rate_limit(
            at["limit"], project_id=at["project"], max_requests_per_1_minute=3, max_tokens_per_1_minute=500
        ),
        "users.list": lambda o, at: _first(at, "user", o.users.list()),
        "users.retrieve": lambda o, at: o.users.retrieve(at["user"]),
        "users.update": lambda o, at: o.users.update(at["user"], role="owner"),
        "projects.users.list": lambda o, at: o.projects.users.list(at["project"]),
        "projects.users.retrieve": lambda o, at: o.projects.users.retrieve(at["user"], project_id=at["project"]),
        "invites.create": lambda o, at: _named(at, "invite", o.invites.create(email="a@example.com", role="reader")),
        "invites.list": lambda o, _: o.invites.list(),
        "invites.retrieve": lambda o, at: o.invites.retrieve(at["invite"]),
        "invites.delete": lambda o, at: o.invites.delete(at["invite"]),
        "admin_api_keys.create": lambda o, at: _named(
            at, "key", o.admin_api_keys.create(name="ci", expires_in_seconds=60)
        ),
        "admin_api_keys.list": lambda o, _: o.admin_api_keys.list(order="desc"),
        "admin_api_keys.retrieve": lambda o, at: o.admin_api_keys.retrieve(at["key"]),
        "admin_api_keys.delete": lambda o, at: o.admin_api_keys.delete(at["key"]),
        "users.delete": lambda o, at: o.users.delete(at["user"]),
        "projects.archive": lambda o, at: o.projects.archive(at["project"]),
        "data_retention.update": lambda o, _: o.data_retention.update(retention_type="zero_data_retention"),
    }


def _usage() -> dict[str, tuple[str, str]]:
    return {name.removeprefix("usage."): route for name, route in surface().items() if name.startswith("usage.")}


def _named(at: dict[str, str], name: str, answer: Any) -> Any:
    at[name] = answer.id
    return answer


def _first(at: dict[str, str], name: str, answer: Any) -> Any:
    at[name] = answer.data[-1].id
    return answer


def test_what_is_here_works_in_the_clients_own_types(here: Platform, client: openai.OpenAI) -> None:
    here.json("POST", "/organization/users", {"email": "second@example.com", "role": "owner"})
    here.json("POST", "/organization/users", {"email": "third@example.com", "role": "reader"})
    works, at = _works(here), dict[str, str]()
    assert set(works) == {name for name, route in surface().items() if route in SERVED}
    for name, step in works.items():
        answer = step(client.admin.organization, at)
        assert isinstance(answer, BaseModel), name
        if name == "data_retention.retrieve":
            assert answer.type == "none"  # nothing is off: OpenAI's type of an organization has no word for that
            continue
        type(answer).model_validate(answer.to_dict(mode="json", use_api_names=False), strict=False)
        for one in getattr(answer, "data", []):
            type(one).model_validate(one.to_dict(mode="json", use_api_names=False), strict=False)
