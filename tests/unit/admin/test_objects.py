"""What is kept: listed, narrowed, paged, deleted."""

import json

import pytest

from keepless.clock import DAY_MS
from keepless.ids import Prefix, mint
from keepless.policy.data_class import DataClass
from keepless.vault.errors import StoreFailedError
from tests.support.platform import Platform

OBJECTS = "/organization/retained_objects"
HOLD = {"reason": "litigation", "authority": "court_order", "reference": "docket 1"}


def listed(here: Platform, query: str = "", path: str = OBJECTS) -> list[str]:
    return [item["id"] for item in here.json("GET", path + query)["data"]]


def two(here: Platform) -> tuple[str, str]:
    """A captured request and, born later, a file."""
    first = here.put().id
    here.rig.clock.advance_ms(1)
    return first, here.put(data_class=DataClass.BATCH_INPUT).id


def hold(here: Platform, **scope: object) -> str:
    body = {**HOLD, "organization_id": here.organization_id, "review_at": here.rig.clock.now_ms() // 1000 + 86400}
    found: str = here.json("POST", "/organization/legal_holds", {**body, **scope}, key="operator")["id"]
    return found


def test_an_object_is_described_without_its_content(anywhere: Platform) -> None:
    request_id = mint(Prefix.REQUEST)
    kept = anywhere.put(data=b"MARKER", request_id=request_id)
    answer = anywhere.ask("GET", OBJECTS)
    assert b"MARKER" not in answer.body
    (item,) = json.loads(answer.body)["data"]
    assert item == {
        "object": "organization.retained_object",
        "id": kept.id,
        "class": "reliability_log",
        "reason": "engine_crash",
        "bytes": kept.size,
        "created_at": kept.created_at // 1000,
        "expires_at": kept.created_at // 1000 + 30 * 86400,
        "held": False,
        "project_id": anywhere.project_id,
        "location": "local",
        "epoch": 1,
        "request_id": request_id,
    }
    assert anywhere.json("GET", f"{OBJECTS}/{kept.id}") == item


def test_pages_by_key_cover_everything_once(anywhere: Platform) -> None:
    ids = []
    for step in range(7):
        ids.append(anywhere.put().id)
        anywhere.rig.clock.advance_ms(step % 2)  # several are born in one millisecond
    seen: list[str] = []
    after = ""
    while True:
        page = anywhere.json("GET", f"{OBJECTS}?limit=2{after}")
        seen += [item["id"] for item in page["data"]]
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"
    assert sorted(seen) == sorted(ids)
    assert len(seen) == len(ids)
    assert anywhere.error("GET", f"{OBJECTS}?after={mint(Prefix.OBJECT)}") == (404, "not_found")
    first, *rest = listed(anywhere)
    assert anywhere.ask("DELETE", f"{OBJECTS}/{first}").status == 200
    assert listed(anywhere, f"?after={first}") == rest  # deleted between two pages


def test_lists_can_be_narrowed(anywhere: Platform) -> None:
    log, file = two(anywhere)
    assert listed(anywhere, "?class=batch_input") == [file]
    assert listed(anywhere, "?reason=engine_crash") == [log]
    assert listed(anywhere, f"?project_id={anywhere.project_id}") == [log, file]
    assert listed(anywhere, f"?project_id={mint(Prefix.PROJECT)}") == []
    assert listed(anywhere, path="/organization/captures") == [log]
    assert anywhere.error("GET", f"{OBJECTS}?class=MARKER") == (400, "invalid_value")
    assert anywhere.error("GET", f"{OBJECTS}?limit=0") == (400, "invalid_value")
    assert anywhere.error("GET", f"{OBJECTS}?limit=101") == (400, "invalid_value")


def test_held_says_what_a_hold_covers(anywhere: Platform) -> None:
    log, file = two(anywhere)
    hold(anywhere, **{"class": "batch_input"})
    assert listed(anywhere, "?held=true") == [file]
    assert listed(anywhere, "?held=false") == [log]
    assert [item["held"] for item in anywhere.json("GET", OBJECTS)["data"]] == [False, True]


def test_a_shortened_period_shows_at_once(anywhere: Platform) -> None:
    kept = anywhere.put()
    anywhere.json("POST", "/organization/data_controls", {"retention_days": {"reliability_log": 3}})
    item = anywhere.json("GET", f"{OBJECTS}/{kept.id}")
    assert item["expires_at"] == (kept.created_at + 3 * DAY_MS) // 1000
    weights = anywhere.put(data_class=DataClass.MODEL_WEIGHTS, epoch=2)
    assert anywhere.json("GET", f"{OBJECTS}/{weights.id}")["expires_at"] is None


def test_delete_destroys_and_leaves_a_receipt(anywhere: Platform) -> None:
    kept = anywhere.put()
    gone = {"id": kept.id, "object": "organization.retained_object.deleted", "deleted": True}
    assert anywhere.json("DELETE", f"{OBJECTS}/{kept.id}") == gone
    assert anywhere.json("DELETE", f"{OBJECTS}/{kept.id}") == gone
    assert anywhere.error("GET", f"{OBJECTS}/{kept.id}") == (404, "not_found")
    assert [r["object_id"] for r in anywhere.json("GET", "/organization/receipts")["data"]] == [kept.id]


def test_delete_of_what_a_hold_covers_is_423_and_names_the_hold(anywhere: Platform) -> None:
    kept = anywhere.put()
    hold_id = hold(anywhere)
    answer = anywhere.ask("DELETE", f"{OBJECTS}/{kept.id}")
    assert answer.status == 423
    assert answer.headers["x-should-retry"] == "false"
    assert json.loads(answer.body)["error"]["code"] == "object_held"
    assert hold_id.encode() in answer.body


def test_a_store_that_fails_makes_a_deletion_pending(here: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = here.put()

    def fail(*_: object) -> None:
        raise StoreFailedError

    with monkeypatch.context() as broken:
        broken.setattr(type(here.rig.store), "delete", fail)
        answer = here.ask("DELETE", f"{OBJECTS}/{kept.id}")
        assert (answer.status, answer.headers["retry-after"]) == (503, "30")
        assert json.loads(answer.body)["error"]["code"] == "deletion_pending"
        assert here.error("GET", f"{OBJECTS}/{kept.id}") == (404, "not_found")
    assert here.json("DELETE", f"{OBJECTS}/{kept.id}")["deleted"] is True


def test_what_cannot_be_an_id_is_404(here: Platform) -> None:
    for text in ("MARKER", mint(Prefix.REQUEST), "obj_" + "a" * 23, "obj_" + "A" * 24):
        for method in ("GET", "DELETE"):
            assert here.error(method, f"{OBJECTS}/{text}") == (404, "not_found")
    assert here.error("GET", f"/organization/purges/{mint(Prefix.PURGE)}") == (404, "not_found")
