"""Nobody sees another organization's anything: every route with ids, asked with every id of somebody else."""

import json
import re
from typing import Final

from keepless.admin.endpoint import Scope
from keepless.admin.matrix import ENDPOINTS
from keepless.ids import Prefix, mint
from keepless.policy.data_class import DataClass
from tests.support.platform import Platform

BODIES: Final = {
    "/organization/legal_holds": {
        "reason": "litigation",
        "authority": "court_order",
        "reference": "docket 1",
        "review_at": 1_900_000_000,
    },
}

LISTS: Final = (
    "retained_objects",
    "audit_logs",
    "receipts",
    "projects",
    "admin_api_keys",
    "users",
    "invites",
    "legal_holds",
    "open_requests",
)
ASKED: Final = {"reason": "abuse", "reference": "ticket 12"}
# What a POST sends, by what follows the project, or by the last part of its path.
SENT: Final[dict[str, dict[str, str | int]]] = {
    "/api_keys/{key_id}": {"expires_in_seconds": 60},
    "test": {"event_type": "batch.completed"},
    "data_retention": {"retention_type": "zero_data_retention"},
    "open_requests": ASKED,
    "{user_id}": {"role": "reader"},
    **{last: {} for last in ("sign_in_link", "archive", "preview", "limits", "data_controls", "rotate_secret")},
    "{rate_limit_id}": {},
    **{last: {} for last in ("approve", "refuse", "end")},
}
HOOK: Final = {"name": "Mine", "url": "https://example.com/hook", "event_types": ["batch.completed"]}


def everything(here: Platform) -> dict[str, list[str]]:
    """One of each thing of the first organization, by the name a path has for it."""
    object_id = here.put().id
    gone = here.put().id
    here.json("DELETE", f"/organization/retained_objects/{gone}")
    here.put(data_class=DataClass.BATCH_INPUT)
    purge = here.json("POST", "/organization/data_controls", {"batch": "disabled", "purge": True})["purge_id"]
    hold = here.json(
        "POST",
        "/organization/legal_holds",
        {**BODIES["/organization/legal_holds"], "organization_id": here.organization_id},
        key="operator",
    )["id"]
    hook = here.json("POST", "/webhook_endpoints", HOOK)["id"]
    opening = here.json("POST", f"/organization/captures/{object_id}/open_requests", ASKED)["id"]
    receipt = here.json("GET", "/organization/receipts")["data"][0]["id"]
    member = here.json("GET", "/organization/users")["data"][0]["id"]
    invite = here.json("POST", "/organization/invites", {"email": "i@example.com", "role": "reader"})["id"]
    api = here.json("GET", f"/organization/projects/{here.project_id}/api_keys")["data"][0]["id"]
    admin = here.json("GET", "/organization/admin_api_keys")["data"][0]["id"]
    return {
        "project_id": [here.project_id],
        "key_id": [api, admin],
        "user_id": [member],
        "rate_limit_id": ["rl-unknown"],
        "invite_id": [invite],
        "id": [object_id, gone, purge, hold, hook, receipt, mint(Prefix.REQUEST), opening],
    }


def snapshot(here: Platform) -> dict[str, object]:
    """What its owner sees."""
    paths = ("data_controls", *LISTS)
    seen = {path: here.json("GET", f"/organization/{path}") for path in paths}
    seen["webhooks"] = here.json("GET", "/webhook_endpoints")
    return seen | {"keys": here.json("GET", f"/organization/projects/{here.project_id}/api_keys")}


def test_foreign_ids_are_404_on_every_route_and_change_nothing(here: Platform) -> None:
    theirs = everything(here)
    before = snapshot(here)
    stranger = here.other()
    own = {"project_id": [stranger["project_id"]]}
    tried = 0
    for endpoint in ENDPOINTS:
        names = re.findall(r"\{(\w+)\}", endpoint.path)
        if not names or endpoint.scope is Scope.PLATFORM:
            continue
        last = endpoint.path.rpartition("/")[2]
        body = SENT.get(endpoint.path.rpartition("{project_id}")[2], SENT.get(last, {"name": "x"}))
        query = f"?open_request={theirs['id'][-1]}" if last == "content" else ""
        for values in _combinations(names, theirs, own):
            path = re.sub(r"\{(\w+)\}", lambda found, v=values: v[found[1]], endpoint.path)
            answer = here.ask(
                endpoint.method,
                path + query,
                body if endpoint.method == "POST" else None,
                key=stranger["admin_key"],
            )
            assert answer.status in (403, 404), (endpoint.method, path, answer.status, answer.body)
            if answer.status == 404:
                assert json.loads(answer.body)["error"]["code"] == "not_found"
            tried += 1
    assert tried > 40
    assert snapshot(here) == before


def _combinations(names: list[str], theirs: dict[str, list[str]], own: dict[str, list[str]]) -> list[dict[str, str]]:
    """Their ids everywhere; and their last id below our own project."""
    found = [{}]
    for each in names:
        found = [{**values, each: value} for values in found for value in theirs[each]]
    if len(names) > 1:
        found += [{names[0]: own[names[0]][0], names[1]: value} for value in theirs[names[1]]]
    return found


def test_lists_of_a_stranger_are_empty_of_us(here: Platform) -> None:
    theirs = everything(here)
    stranger = here.other()
    ids = {value for values in theirs.values() for value in values}
    for path in (*LISTS, "captures"):
        seen = here.ask("GET", f"/organization/{path}", key=stranger["admin_key"])
        assert seen.status == 200
        assert not [value for value in ids if value.encode() in seen.body], path


def test_naming_another_organization_is_404_for_members_and_unknown_ones_for_operators(here: Platform) -> None:
    stranger = here.other()
    query = f"?organization_id={here.organization_id}"
    assert here.error("GET", f"/organization/legal_holds{query}", key=stranger["admin_key"]) == (404, "not_found")
    assert here.json("GET", f"/organization/legal_holds{query}")["data"] == []
    nobody = mint(Prefix.ORGANIZATION)
    body = {**BODIES["/organization/legal_holds"], "organization_id": nobody}
    assert here.error("POST", "/organization/legal_holds", body, key="operator") == (404, "not_found")
    body = {**BODIES["/organization/legal_holds"], "organization_id": "MARKER"}
    assert here.error("POST", "/organization/legal_holds", body, key="operator") == (404, "not_found")
