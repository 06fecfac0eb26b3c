"""Webhook endpoints over HTTP: shapes, the secret shown once, refusals without an echo."""

from keepless.ids import Prefix, mint
from tests.support.platform import Platform

HOOK = {"name": "Mine", "url": "https://example.com/hook", "event_types": ["batch.completed", "batch.failed"]}


def test_the_secret_is_in_the_first_answer_only(here: Platform) -> None:
    made = here.json("POST", "/webhook_endpoints", HOOK)
    secret = made.pop("signing_secret")
    assert secret.startswith("whsec_")
    assert made["signing_secret_hint"] == f"whsec_…{secret[-4:]}"
    assert {name: made[name] for name in HOOK} == HOOK
    assert (made["object"], made["project_id"], made["created_at"]) == ("webhook_endpoint", None, made["updated_at"])
    path = f"/webhook_endpoints/{made['id']}"
    assert here.json("GET", path) == made
    assert here.json("GET", "/webhook_endpoints")["data"] == [made]
    rotated = here.json("POST", f"{path}/rotate_secret")
    assert rotated["signing_secret"] != secret
    changed = here.json("POST", path, {"name": "Other"})
    assert (changed["name"], changed["url"]) == ("Other", HOOK["url"])
    assert "signing_secret" not in changed
    assert here.json("DELETE", path) == {"id": made["id"], "object": "webhook_endpoint.deleted", "deleted": True}
    assert here.error("GET", path) == (404, "not_found")


def test_an_endpoint_of_one_project(here: Platform) -> None:
    assert here.json("POST", "/webhook_endpoints", {**HOOK, "project_id": here.project_id})["project_id"]
    unknown = {**HOOK, "project_id": mint(Prefix.PROJECT)}
    assert here.error("POST", "/webhook_endpoints", unknown) == (404, "not_found")


def test_what_is_not_allowed_is_named_and_not_echoed(here: Platform) -> None:
    for field, value in (
        ("url", "http://MARKER.example/"),
        ("url", "https://MARKER@example.com/"),
        ("url", "https://10.0.0.1/MARKER"),
        ("url", "https://example.com/" + "MARKER" * 200),
        ("event_types", ["MARKER"]),
        ("event_types", []),
        ("event_types", ["response.completed"]),
        ("name", "MARKER\n"),
    ):
        answer = here.ask("POST", "/webhook_endpoints", {**HOOK, field: value})
        assert answer.status == 400, field
        assert f'"param":"{field}"'.encode() in answer.body
        assert b"MARKER" not in answer.body
    assert here.json("GET", "/webhook_endpoints")["data"] == []


def test_the_event_types_that_are_sent(here: Platform) -> None:
    found = here.json("GET", "/webhook_event_types")
    batches = ["batch.completed", "batch.failed", "batch.expired", "batch.cancelled"]
    tunings = ["fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled"]
    assert found["data"] == [*batches, "file.expiring", *tunings]


def test_with_the_organization_go_its_endpoints(here: Platform) -> None:
    other = here.other()
    here.json("POST", "/webhook_endpoints", HOOK, key=other["admin_key"])
    kept = here.json("POST", "/webhook_endpoints", HOOK)["id"]
    here.json("DELETE", f"/organizations/{other['id']}", key="operator")
    assert [one["id"] for one in here.json("GET", "/webhook_endpoints")["data"]] == [kept]
    with here.services.db.read() as tx:
        assert len(tx.exec_driver_sql("SELECT id FROM webhook_endpoint").all()) == 1
