"""`/batches` over ASGI: the order of the refusals, both bases, headers, and nothing echoed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware

from keepless.accounts.lease import Lease
from keepless.batches.book import Book, InputFile
from keepless.clock import DAY_MS
from keepless.gateway.batches import routes
from keepless.governance.patch import Patch
from keepless.http import problems
from keepless.ids import Id, Prefix, mint
from keepless.policy.data_class import Feature
from keepless.usage.ledger import Ledger
from tests.support.asgi import Answer, call
from tests.support.governed import Deployment, deploy
from tests.support.sqlite import fresh
from tests.support.vault import make_rig

FILE = mint(Prefix.FILE)
GOOD: dict[str, Any] = {"input_file_id": FILE, "endpoint": "/v1/chat/completions", "completion_window": "24h"}


class World:
    def __init__(self, deployment: Deployment, lease: Lease, app: Starlette) -> None:
        self.deployment, self.lease, self.app = deployment, lease, app

    def ask(
        self,
        method: str = "POST",
        path: str = "/v1/batches",
        body: object = None,
        *,
        key: str | None = None,
        **headers: str,
    ) -> Answer:
        sent = {"authorization": f"Bearer {key or self.deployment.initial.organization.api_key}"}
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return call(self.app, method, path, sent | {n.replace("_", "-"): v for n, v in headers.items()}, raw)

    def json(self, *args: Any, **named: Any) -> Any:
        answer = self.ask(*args, **named)
        assert answer.status == 200, answer.body
        return json.loads(answer.body)

    def refused(self, *args: Any, **named: Any) -> tuple[int, str]:
        answer = self.ask(*args, **named)
        assert b"MARKER" not in answer.body
        assert answer.headers["x-keepless-retention"] == "none"
        return answer.status, json.loads(answer.body)["error"]["code"]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    db = fresh(tmp_path)
    rig = make_rig(db, tmp_path)
    deployment = deploy(db, rig.clock)
    lease = Lease(db, rig.clock)
    deployment.office.fence.__init__(db, rig.clock, lease.refresh_soon)

    def inputs(_: object, file_id: Id, project_id: Id) -> InputFile | None:
        return InputFile(True, rig.clock.now_ms() + 30 * DAY_MS) if file_id == FILE else None

    app = Starlette(
        routes=routes(
            lease, Book(db, rig.clock, rig.vault, inputs), Ledger(db, max_rows=1000), rig.clock, json_depth=20
        ),
        middleware=[Middleware(problems.Guard)],
        exception_handlers=dict(problems.handlers()),
    )
    lease.start()
    yield World(deployment, lease, app)
    lease.stop()
    db.close()


@pytest.mark.parametrize("base", ["/v1", "/openai/v1"])
def test_a_life(world: World, base: str) -> None:
    answer = world.ask("POST", f"{base}/batches", {**GOOD, "metadata": {"who": "me"}})
    made = json.loads(answer.body)
    assert (made["status"], made["metadata"], made["completion_window"]) == ("validating", {"who": "me"}, "24h")
    assert answer.headers["x-keepless-retention"].startswith("class=batch_input; object=obj_")
    plain = world.ask("POST", f"{base}/batches", GOOD)
    assert plain.headers["x-keepless-retention"] == "none"
    assert world.json("GET", f"{base}/batches/{made['id']}") == made
    page = world.json("GET", f"{base}/batches?limit=1")
    assert (len(page["data"]), page["has_more"]) == (1, True)
    rest = world.json("GET", f"{base}/batches?cursor={page['paging']['next_cursor']}")
    assert len(rest["data"]) == 1
    assert {page["data"][0]["id"], rest["data"][0]["id"]} == {made["id"], json.loads(plain.body)["id"]}
    assert [one["id"] for one in world.json("GET", f"{base}/batches?id={made['id']}")["data"]] == [made["id"]]
    assert world.json("GET", f"{base}/batches?id=MARKER")["data"] == []
    assert world.json("POST", f"{base}/batches/{made['id']}/cancel")["status"] == "cancelling"


def test_the_order_of_the_refusals(world: World) -> None:
    bad = {"MARKER": 1, "store": False}
    assert world.refused(body=bad, key="MARKER") == (401, "invalid_api_key")
    off = Patch(off={Feature.BATCH: True}, purge=False)
    deployment = world.deployment
    assert world.refused(body=bad) == (400, "retention_conflict")
    deployment.controls.change(deployment.organization_id, off, deployment.owner)
    for method, path in (
        ("POST", "/v1/batches"),
        ("GET", "/v1/batches"),
        ("GET", "/v1/batches/MARKER"),
        ("POST", "/v1/batches/MARKER/cancel"),
    ):
        assert world.refused(method, path, bad if method == "POST" else None) == (
            403,
            "feature_disabled_by_data_controls",
        )


def test_without_a_lease_nothing_is_accepted_and_nobody_tries_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lease, "valid", property(lambda _: False))
    answer = world.ask(body=GOOD)
    assert (answer.status, answer.headers["x-should-retry"]) == (503, "false")


@pytest.mark.parametrize(
    ("headers", "member"),
    [
        ({"x_keepless_retention": "zero"}, {}),
        ({"cf_aig_zdr": "true"}, {}),
        ({}, {"store": False}),
        ({}, {"provider": {"zdr": True}}),
    ],
)
def test_who_forbids_keeping_can_have_no_batch(world: World, headers: dict[str, str], member: dict[str, Any]) -> None:
    assert world.refused(body={**GOOD, **member}, **headers) == (400, "retention_conflict")


def test_loosening_is_refused_as_everywhere(world: World) -> None:
    assert world.refused(body={**GOOD, "store": True}) == (400, "loosening_refused")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"MARKER", 400),
        (b'{"a":1,"a":2}', 400),
        (b"[]", 400),
        (b"{" + b" " * 70_000 + b"}", 413),
        ({**GOOD, "input_file_id": str(mint(Prefix.FILE))}, 404),
        ({**GOOD, "input_file_id": "MARKER"}, 404),
        ({**GOOD, "endpoint": "/v1/MARKER"}, 400),
        ({**GOOD, "metadata": {"MARKER": 1}}, 400),
    ],
)
def test_bad_bodies(world: World, body: object, status: int) -> None:
    assert world.refused(body=body)[0] == status


def test_repeated_creation(world: World) -> None:
    first = world.json(body=GOOD, idempotency_key="again")
    assert world.json(body=GOOD, idempotency_key="again") == first
    assert world.json(body=GOOD, idempotency_key="other")["id"] != first["id"]


@pytest.mark.parametrize("path", ["/v1/batches/MARKER", f"/v1/batches/batch_{'a' * 24}"])
def test_what_is_not_there(world: World, path: str) -> None:
    assert world.refused("GET", path) == (404, "not_found")
    assert world.refused("POST", path + "/cancel") == (404, "not_found")


def test_another_project_finds_nothing(world: World) -> None:
    made, deployment = world.json(body=GOOD), world.deployment
    other = deployment.organizations.create_project(deployment.owner, deployment.organization_id, name="x").id
    key = deployment.access.create_api_key(deployment.owner, deployment.organization_id, other, name="x").secret
    assert world.refused("GET", f"/v1/batches/{made['id']}", key=key) == (404, "not_found")
    assert world.json("GET", "/v1/batches", key=key)["data"] == []
