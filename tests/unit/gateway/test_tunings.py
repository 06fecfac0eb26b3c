"""`/fine_tunings` and `/fine_tuning/jobs` over ASGI: both vendors' words, the order of the refusals, nothing echoed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import Connection
from starlette.applications import Starlette
from starlette.middleware import Middleware

from keepless.accounts.lease import Lease
from keepless.accounts.store import policy_in_force
from keepless.clock import DAY_MS
from keepless.content import Content
from keepless.errors import Problem
from keepless.expiry.sweep import Sweeper
from keepless.files.service import FileLimits, Files, Intended
from keepless.files.values import FilePurpose
from keepless.gateway.models import routes as model_routes
from keepless.gateway.tunings import model_deletion, routes
from keepless.governance.patch import Patch
from keepless.http import problems
from keepless.ids import Id, Prefix, mint
from keepless.inference.router import Router
from keepless.policy.data_class import DataClass, Feature
from keepless.tuning import store, transitions
from keepless.tuning.book import Book
from keepless.tuning.ending import Ending
from keepless.tuning.values import AUTO, EventCode, FailCode, Metrics
from keepless.usage.ledger import Ledger
from keepless.vault.rows import Kept
from tests.support.asgi import Answer, call
from tests.support.governed import Deployment, deploy
from tests.support.sqlite import fresh
from tests.support.vault import Rig, make_rig

JOBS, TUNINGS = "/v1/fine_tuning/jobs", "/v1/fine_tunings"


class World:
    sweeper: Sweeper
    ending: Ending
    book: Book

    def __init__(self, deployment: Deployment, rig: Rig, files: Files, app: Starlette) -> None:
        self.deployment, self.rig, self.files, self.app = deployment, rig, files, app
        self.file_id = self.dataset(b'{"messages": []}\n')
        self.good: dict[str, Any] = {"model": "tiny", "training_file": self.file_id, "suffix": "mine"}
        self.groq: dict[str, Any] = {
            "base_model": "tiny", "name": "mine", "type": "lora", "input_file_id": self.file_id
        }  # fmt: skip

    def dataset(self, data: bytes, purpose: FilePurpose = FilePurpose.FINE_TUNE) -> Id:
        own = (self.deployment.organization_id, self.deployment.project_id)
        kind = DataClass.FINE_TUNING_DATASET if purpose is FilePurpose.FINE_TUNE else DataClass.BATCH_INPUT
        with self.files.writing(*own) as writer:
            writer.write(Content(data))
            return writer.commit(Intended(purpose, kind, Content(b"x")))[0].id

    def ask(self, method: str, path: str, body: object = None, *, key: str | None = None, **headers: str) -> Answer:
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
    sweeper = Sweeper(db, rig.clock, rig.clock, rig.vault, rig.log)

    def policy_now(organization_id: Id, project_id: Id) -> Any:
        with db.read() as tx:
            return policy_in_force(tx, organization_id, project_id)

    limits = FileLimits(1 << 20, 100, 1 << 30)
    files = Files(db, rig.clock, rig.vault, deleter=sweeper, policy_now=policy_now, limits=limits)
    book = Book(db, rig.clock, rig.vault, policy_now, ["tiny"])
    ending = Ending(db, rig.clock, rig.vault, sweeper, deployment.office.fence)
    ledger = Ledger(db, max_rows=1000)
    deletion = model_deletion(lease, ending, ledger, rig.clock)
    app = Starlette(
        routes=[
            *routes(lease, book, ending, ledger, rig.clock, json_depth=20),
            *model_routes(lease, Router([]), deletion=deletion),
        ],
        middleware=[Middleware(problems.Guard)],
        exception_handlers=dict(problems.handlers()),
    )
    lease.start()
    made = World(deployment, rig, files, app)
    made.sweeper, made.ending, made.book = sweeper, ending, book
    yield made
    lease.stop()
    db.close()


@pytest.mark.parametrize("base", ["/v1", "/openai/v1"])
def test_a_life_in_openais_words(world: World, base: str) -> None:
    path = f"{base}/fine_tuning/jobs"
    knobs = {"n_epochs": 3, "batch_size": "auto", "learning_rate_multiplier": 0.5, "r": 8, "alpha": 8}
    asked = {
        **world.good,
        "metadata": {"who": "me"},
        "seed": 5,
        "method": {"type": "supervised", "supervised": {"hyperparameters": knobs}},
    }
    answer = world.ask("POST", path, asked)
    made = json.loads(answer.body)
    assert (made["object"], made["status"], made["metadata"]) == ("fine_tuning.job", "validating_files", {"who": "me"})
    assert (made["seed"], made["hyperparameters"], made["fine_tuned_model"]) == (5, knobs, None)
    assert answer.headers["x-keepless-retention"].startswith("class=fine_tuning_work; object=obj_")
    second = world.json("POST", path, world.good)
    assert world.json("GET", f"{path}/{made['id']}") == made | {"loss_curve": []}
    page = world.json("GET", f"{path}?limit=1")
    assert (len(page["data"]), page["has_more"]) == (1, True)
    rest = world.json("GET", f"{path}?limit=1&after={page['last_id']}")
    assert {page["data"][0]["id"], rest["data"][0]["id"]} == {made["id"], second["id"]}
    events = world.json("GET", f"{path}/{made['id']}/events")
    assert [one["code"] for one in events["data"]] == ["created"]
    assert world.json("GET", f"{path}/{made['id']}/checkpoints")["data"] == []
    assert world.json("POST", f"{path}/{made['id']}/cancel")["status"] == "cancelled"
    assert world.refused("POST", f"{path}/{made['id']}/pause") == (400, "invalid_value")


@pytest.mark.parametrize("base", ["/v1", "/openai/v1"])
def test_a_life_in_groqs_words(world: World, base: str) -> None:
    path = f"{base}/fine_tunings"
    made = world.json("POST", path, world.groq)
    data = made["data"]
    assert (made["object"], data["name"], data["type"], data["base_model"]) == ("fine_tuning", "mine", "lora", "tiny")
    assert (data["input_file_id"], data["kind"]) == (world.file_id, "train")
    assert data["fine_tuned_model"].startswith(f"ft:tiny:{world.deployment.organization_id}/mine-")
    assert made["id"].startswith("ft_")
    assert world.json("GET", f"{path}/{made['id']}") == made
    assert world.json("GET", path)["data"] == [data]
    assert world.json("GET", f"{base}/fine_tuning/jobs/{data['fine_tuning_job_id']}")["suffix"] == "mine"
    gone = {"id": made["id"], "object": "fine_tuning", "deleted": True}
    assert world.json("DELETE", f"{path}/{made['id']}") == gone
    assert world.refused("GET", f"{path}/{made['id']}") == (404, "not_found")
    assert world.refused("DELETE", f"{path}/{made['id']}") == (404, "not_found")
    assert world.json("GET", path)["data"] == []


def test_a_zip_is_imported_where_groq_has_it(world: World) -> None:
    archive = world.dataset(b"PK\x03\x04rest")
    assert world.json("POST", TUNINGS, world.groq | {"input_file_id": archive})["data"]["kind"] == "import"
    assert world.json("POST", JOBS, world.good | {"training_file": archive})["kind"] == "train"


def test_events_are_paged_and_streamed(world: World) -> None:
    job_id = Id(world.json("POST", JOBS, world.good)["id"])
    now = world.rig.clock.now_ms()
    with world.rig.database.write() as tx:
        transitions.queue(tx, job_id, 12, AUTO.chosen(12), now)
        for step in (1, 2):
            transitions.tell(tx, job_id, EventCode.METRICS, now, step=step, total=2, metrics=Metrics(0.5, 0.9, 0.75))
        transitions.fail(tx, job_id, FailCode.OUT_OF_MEMORY, now)
    first = world.json("GET", f"{JOBS}/{job_id}/events?limit=2")
    assert [one["code"] for one in first["data"]] == ["failed", "metrics"]
    assert (first["has_more"], first["data"][0]["level"]) == (True, "error")
    rest = world.json("GET", f"{JOBS}/{job_id}/events?after={first['last_id']}")
    assert [one["code"] for one in rest["data"]] == ["metrics", "validated", "created"]
    assert rest["data"][0]["message"] == "Step 1/2: training loss=0.5000, validation loss=0.7500"
    assert rest["data"][0]["data"]["train_mean_token_accuracy"] == 0.9
    assert world.json("GET", f"{JOBS}/{job_id}/events?after=MARKER")["data"] == []
    answer = world.ask("GET", f"{JOBS}/{job_id}/events?stream=true")
    assert answer.headers["content-type"].startswith("text/event-stream")
    pieces = [piece for piece in answer.body.decode().split("\n\n") if piece]
    assert pieces[-1] == "data: [DONE]"
    assert [json.loads(one[6:])["code"] for one in pieces[:-1]] == [
        "created", "validated", "metrics", "metrics", "failed"
    ]  # fmt: skip
    failed = world.json("GET", f"{JOBS}/{job_id}")
    assert (failed["error"]["code"], len(failed["loss_curve"])) == ("training_out_of_memory", 2)


def test_a_model_is_deleted_by_its_name(world: World) -> None:
    made = world.json("POST", TUNINGS, world.groq)["data"]
    job_id, name = Id(made["fine_tuning_job_id"]), made["fine_tuned_model"]
    own = (world.deployment.organization_id, world.deployment.project_id)
    with world.rig.database.read() as tx:
        job, policy = store.get(tx, job_id), policy_in_force(tx, *own)
    assert job is not None
    assert policy is not None
    epoch = policy.epoch
    with world.rig.database.write() as tx:
        transitions.queue(tx, job_id, 12, AUTO.chosen(12), 0)
        taken = transitions.take(tx, job_id, 0, None)
    assert taken is not None

    def within(tx: Connection, kept: Kept) -> None:
        assert transitions.succeed(tx, taken, kept.id, 1, rank=8, tokens=3)

    with world.rig.vault.writing(own[0]) as writer:
        writer.write(Content(b"weights"))
        permit = world.rig.permit(*own, DataClass.MODEL_WEIGHTS, epoch=epoch)
        writer.commit(permit, label=Content(b"mine"), within=within)
    assert world.json("GET", f"{JOBS}/{job_id}")["fine_tuned_model"] == name
    for wrong in (name.replace("mine", "other"), name.replace("tiny", "MARKER"), name[:-1] + "0", "ft:MARKER", "tiny"):
        if wrong != name:
            assert world.refused("DELETE", f"/v1/models/{wrong}") == (404, "model_not_found")
    assert world.json("DELETE", f"/v1/models/{name}") == {"id": name, "object": "model", "deleted": True}
    assert world.refused("DELETE", f"/v1/models/{name}") == (404, "model_not_found")
    assert world.refused("GET", f"{JOBS}/{job_id}") == (404, "not_found")


def test_the_order_of_the_refusals(world: World) -> None:
    bad = {"MARKER": 1, "store": False}
    deployment = world.deployment
    assert world.refused("POST", JOBS, bad, key="MARKER") == (401, "invalid_api_key")
    assert world.refused("POST", JOBS, bad) == (400, "retention_conflict")
    assert world.refused("POST", TUNINGS, bad) == (400, "retention_conflict")
    assert world.refused("POST", JOBS, world.good, x_keepless_retention="zero") == (400, "retention_conflict")
    assert world.refused("POST", JOBS, {**world.good, "store": True}) == (400, "loosening_refused")
    off = Patch(off={Feature.FINE_TUNING: True}, purge=False)
    deployment.controls.change(deployment.organization_id, off, deployment.owner)
    for method, path in (
        ("POST", JOBS),
        ("GET", JOBS),
        ("GET", f"{JOBS}/MARKER"),
        ("POST", f"{JOBS}/MARKER/cancel"),
        ("GET", f"{JOBS}/MARKER/events"),
        ("POST", TUNINGS),
        ("GET", TUNINGS),
        ("DELETE", f"{TUNINGS}/MARKER"),
        ("DELETE", "/v1/models/MARKER"),
    ):
        assert world.refused(method, path, bad if method == "POST" else None) == (
            403,
            "feature_disabled_by_data_controls",
        )


def test_without_a_lease_nothing_is_accepted_and_nobody_tries_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lease, "valid", property(lambda _: False))
    answer = world.ask("POST", JOBS, world.good)
    assert (answer.status, answer.headers["x-should-retry"]) == (503, "false")


BAD_JOBS: list[tuple[dict[str, Any], str]] = [
    ({"model": None}, "missing_required_parameter"),
    ({"model": 5}, "invalid_type"),
    ({"model": "MARKER"}, "model_not_found"),
    ({"training_file": "MARKER"}, "not_found"),
    ({"training_file": mint(Prefix.FILE)}, "not_found"),
    ({"validation_file": "MARKER"}, "not_found"),
    ({"suffix": "MARKER MARKER"}, "invalid_value"),
    ({"seed": -1}, "invalid_value"),
    ({"seed": True}, "invalid_value"),
    ({"metadata": {"a": 1}}, "invalid_value"),
    ({"integrations": [{"type": "wandb"}]}, "unsupported_parameter"),
    ({"hyperparameters": "MARKER"}, "invalid_value"),
    ({"hyperparameters": {"MARKER": 1}}, "unknown_parameter"),
    ({"hyperparameters": {"n_epochs": 0}}, "invalid_value"),
    ({"hyperparameters": {"n_epochs": 1.5}}, "invalid_value"),
    ({"hyperparameters": {"batch_size": 257}}, "invalid_value"),
    ({"hyperparameters": {"learning_rate_multiplier": 0}}, "invalid_value"),
    ({"hyperparameters": {"learning_rate_multiplier": 10**400}}, "invalid_value"),  # no float is that large
    ({"hyperparameters": {"r": 7}}, "invalid_value"),
    ({"method": {"type": "dpo"}}, "unsupported_value"),
    ({"method": {"type": "reinforcement", "reinforcement": {"MARKER": 1}}}, "unsupported_value"),
    ({"method": "MARKER"}, "invalid_value"),
    ({"method": {"type": "supervised", "supervised": {"MARKER": 1}}}, "invalid_value"),
    (
        {
            "hyperparameters": {"n_epochs": 2},
            "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3}}},
        },
        "invalid_value",
    ),
    ({"MARKER": 1}, "unknown_parameter"),
]


def test_what_cannot_be_asked_for(world: World) -> None:
    for changed, code in BAD_JOBS:
        status, found = world.refused("POST", JOBS, world.good | changed)
        assert (status in (400, 404), found) == (True, code), changed
    assert world.json("GET", JOBS)["data"] == []


BAD_TUNINGS: list[tuple[dict[str, Any], str]] = [
    ({"type": "full"}, "invalid_value"),
    ({"name": ""}, "invalid_value"),
    ({"name": "a/b"}, "invalid_value"),
    ({"base_model": "MARKER"}, "model_not_found"),
    ({"input_file_id": "MARKER"}, "not_found"),
    ({"MARKER": 1}, "unknown_parameter"),
]


def test_what_groq_would_not_take(world: World) -> None:
    for changed, code in BAD_TUNINGS:
        assert world.refused("POST", TUNINGS, world.groq | changed)[1] == code, changed


def test_a_file_for_batches_is_no_dataset(world: World) -> None:
    other = world.dataset(b"{}", FilePurpose.BATCH)
    assert world.refused("POST", JOBS, world.good | {"training_file": other}) == (400, "invalid_value")
    assert world.refused("POST", JOBS, world.good | {"validation_file": other}) == (400, "invalid_value")


def test_lists_say_what_they_cannot_do(world: World) -> None:
    for query in (
        "metadata=MARKER",
        "metadata=null&metadata%5Bk%5D=v",
        "metadata%5Bk=MARKER",
        "limit=0",
        "limit=101",
        "MARKER=1",
        "after=a&after=b",
    ):
        assert world.refused("GET", f"{JOBS}?{query}")[0] == 400, query


def test_a_list_is_searched_for_metadata_without_writing_any_down(world: World) -> None:
    plain = world.json("POST", JOBS, world.good)["id"]
    ours = world.json("POST", JOBS, world.good | {"metadata": {"who": "me", "why": "a b"}})["id"]
    other = world.json("POST", JOBS, world.good | {"metadata": {"who": "you", "empty": ""}})["id"]
    for query, found in (
        ("metadata%5Bwho%5D=me", [ours]),
        ("metadata[why]=a+b&metadata[who]=me", [ours]),
        ("metadata[who]=me&metadata[why]=MARKER", []),
        ("metadata[empty]=", [other]),
        ("metadata=null", [plain]),
        ("metadata=", sorted([other, ours, plain], reverse=True)),  # all of one instant
    ):
        assert [one["id"] for one in world.json("GET", f"{JOBS}?{query}")["data"]] == found, query
    assert world.refused("GET", f"{TUNINGS}?metadata[who]=MARKER") == (400, "unknown_parameter")


def test_a_repeated_call_finds_what_the_first_one_made(world: World) -> None:
    first = world.json("POST", JOBS, world.good, idempotency_key="once")
    again = world.ask("POST", JOBS, world.good, idempotency_key="once")
    assert (again.status, json.loads(again.body)["id"]) == (200, first["id"])
    assert again.headers["x-keepless-retention"] == "none"
    other = world.good | {"suffix": "other"}
    assert world.refused("POST", JOBS, other, idempotency_key="once") == (400, "invalid_value")
    assert world.refused("POST", JOBS, world.good, idempotency_key="MARKER MARKER") == (400, "invalid_value")
    made = [world.json("POST", TUNINGS, world.groq, idempotency_key="twice")["id"] for _ in range(2)]
    assert made[0] == made[1]
    assert len(world.json("GET", JOBS)["data"]) == 2


def test_owners_see_and_delete_what_a_feature_that_is_off_has_left(world: World) -> None:
    made = world.json("POST", TUNINGS, world.groq)
    deployment = world.deployment
    off = Patch(off={Feature.FINE_TUNING: True}, purge=False)
    deployment.controls.change(deployment.organization_id, off, deployment.owner)
    key = deployment.initial.organization.admin_key
    shown = world.json("GET", f"{TUNINGS}/{made['id']}", key=key)["data"]
    assert (shown["status"], shown["name"]) == ("cancelled", "mine")
    assert world.refused("POST", TUNINGS, world.groq, key=key)[0] == 401
    assert world.json("GET", JOBS, key=key)["data"][0]["id"] == shown["fine_tuning_job_id"]
    assert world.json("DELETE", f"{TUNINGS}/{made['id']}", key=key)["deleted"] is True
    assert world.json("GET", TUNINGS, key=key)["data"] == []


def test_a_models_path_says_what_can_be_done_there(world: World) -> None:
    assert world.refused("GET", "/v1/models/MARKER") == (404, "model_not_found")
    answer = world.ask("PUT", "/v1/models/MARKER")
    assert answer.status == 405
    assert {name.strip() for name in answer.headers["allow"].split(",")} == {"DELETE", "GET", "HEAD"}


def test_names_and_history_end_with_their_period_and_the_model_stays(world: World) -> None:
    made = world.json("POST", JOBS, world.good)
    deployment, own = world.deployment, (world.deployment.organization_id, world.deployment.project_id)
    shorter = Patch(retention_days={DataClass.FINE_TUNING_WORK: 2})
    deployment.controls.change(deployment.organization_id, shorter, deployment.owner)
    job_id = Id(made["id"])
    world.rig.clock.advance_ms(DAY_MS)
    assert world.book.get(job_id, *own).job.id == job_id
    world.rig.clock.advance_ms(DAY_MS)
    with pytest.raises(Problem, match="not_found"):
        world.book.get(job_id, *own)
    assert world.book.page(*own, limit=5) == ([], False)
    with world.rig.database.read() as tx:  # no sweep has come yet: expired means not served from that instant
        assert store.any_job(tx, job_id, *own) is not None
    world.sweeper.sweep_once(confirm=True)
    assert world.ending.forget_dead() == 1
    with world.rig.database.read() as tx:
        assert store.any_job(tx, job_id, *own) is None
