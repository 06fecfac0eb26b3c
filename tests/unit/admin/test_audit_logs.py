"""The audit log over HTTP: OpenAI's shape, pages in both directions, every filter, nobody else's events."""

import io
import json
from typing import Any
from urllib.parse import urlencode

import pytest

from keepless.ids import Prefix, mint
from keepless.receipts.verify_audit import AuditVerified, verify_audit
from tests.support.governed import eventually
from tests.support.platform import Platform

LOGS = "/organization/audit_logs"


def asked(here: Platform, key: str = "owner", **query: Any) -> dict[str, Any]:
    found: dict[str, Any] = here.json("GET", f"{LOGS}?{urlencode(query, doseq=True)}", key=key)
    return found


def types(here: Platform, **query: Any) -> list[str]:
    return [event["type"] for event in asked(here, **query)["data"]]


def test_who_did_what_in_openais_shape(anywhere: Platform) -> None:
    here = anywhere
    project = here.json("POST", "/organization/projects", {"name": "Lab"})["id"]
    here.json("POST", f"/organization/projects/{project}/limits", {"requests_per_minute": 5})
    user = here.json("POST", "/organization/users", {"email": "ada@example.com", "role": "reader"})["id"]
    here.json("POST", f"/organization/users/{user}", {"role": "auditor"})
    own = here.json("GET", "/organization/admin_api_keys")["data"][0]["id"]
    changed, added, limits, created, *_ = asked(here)["data"]
    assert (changed["type"], changed["user.updated"]["changes_requested"]["role"]) == ("user.updated", "auditor")
    assert added["user.added"] == {"id": user, "data": {"member_id": user, "role": "reader"}}
    assert limits["rate_limit.updated"]["id"] == project
    assert limits["rate_limit.updated"]["changes_requested"]["max_requests_per_1_minute"] == 5
    assert created["project"] == {"id": project, "name": "Lab"}
    assert created["actor"]["type"] == "api_key"
    assert created["actor"]["api_key"]["id"] == created["actor"]["api_key"]["service_account"]["id"] == own
    assert created["object"] == "organization.audit_log"
    assert created["effective_at"] == here.rig.clock.now_ms() // 1000
    assert created["id"] == f"audit_log-{created['log_index']}"
    assert types(here, project_ids=project) == ["rate_limit.updated", "project.created"]
    assert types(here, **{"project_ids[]": project, "event_types[]": "project.created"}) == ["project.created"]
    assert types(here, resource_ids=user) == ["user.updated", "user.added"]
    assert types(here, event_types=["user.added", "invite.sent"], resource_ids=user) == ["user.added"]
    assert {event["actor"]["api_key"]["id"] for event in asked(here, actor_ids=own)["data"]} == {own}
    assert types(here, actor_ids=mint(Prefix.ADMIN_KEY)) == []
    assert types(here, event_types="certificate.created") == types(here, tenant_only="true") == []


def test_what_is_kept_seen_and_deleted(anywhere: Platform) -> None:
    kept = anywhere.put()
    anywhere.json("DELETE", f"/organization/retained_objects/{kept.id}")
    deleted, captured = asked(anywhere, resource_ids=kept.id)["data"]
    assert (deleted["type"], captured["type"]) == ("content.deleted", "content.captured")
    assert deleted["receipt_id"].startswith("rcpt_")
    assert captured["actor"] is None
    assert captured["content.captured"]["data"]["class"] == "reliability_log"


def test_a_member_is_found_by_address(here: Platform) -> None:
    owner = here.json("GET", "/organization/users")["data"][0]
    opened = here.services.people.invite(
        here.deployment.owner, here.organization_id, email="Ada@example.com", role=here.deployment.owner.role
    )
    ada = here.services.people.accept(opened.secret, name="Ada", password="correct horse battery")
    events = asked(here, actor_emails="ADA@example.com")["data"]
    assert events
    assert {event["actor"]["session"]["user"]["email"] for event in events} == {"ada@example.com"}
    assert {event["actor"]["session"]["ip_address"] for event in events} == {None}
    assert "login.succeeded" in [event["type"] for event in events]
    member = events[0]["actor"]["session"]["user"]["id"]
    assert asked(here, actor_emails="ada@example.com", actor_ids=member)["data"] == events
    assert types(here, actor_emails="ada@example.com", actor_ids=owner["id"]) == []
    assert types(here, actor_emails="nobody@example.com") == []
    here.json("DELETE", f"/organization/users/{member}")
    left = asked(here, actor_ids=member)["data"]
    assert {event["actor"]["session"]["user"]["email"] for event in left} == {None}
    assert ada is not None


def test_pages_lead_to_the_end_and_back(anywhere: Platform) -> None:
    for number in range(5):
        anywhere.json("POST", "/organization/projects", {"name": f"P{number}"})
    everything = [event["id"] for event in asked(anywhere, limit=100)["data"]]
    page, seen = asked(anywhere, limit=3), []
    while True:
        seen += [event["id"] for event in page["data"]]
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
        if not page["has_more"]:
            break
        page = asked(anywhere, limit=3, after=page["last_id"])
    assert seen == everything
    back = asked(anywhere, limit=3, before=everything[6])
    assert ([event["id"] for event in back["data"]], back["has_more"]) == (everything[3:6], True)
    back = asked(anywhere, limit=3, before=everything[3])
    assert ([event["id"] for event in back["data"]], back["has_more"]) == (everything[:3], False)
    between = asked(anywhere, limit=9, after=everything[2], before=everything[6])
    assert [event["id"] for event in between["data"]] == everything[3:6]


def test_instants_bound_what_is_found(here: Platform) -> None:
    here.rig.clock.advance_ms(1_000)
    eventually(lambda: here.services.lease.valid)  # it ended with the second that has passed
    here.json("POST", "/organization/projects", {"name": "Late"})
    at = here.rig.clock.now_ms() // 1000
    assert (
        types(here, **{"effective_at[gte]": at}) == types(here, **{"effective_at[gt]": at - 1}) == ["project.created"]
    )
    assert types(here, **{"effective_at[gt]": at}) == []
    assert "Late" not in str(asked(here, **{"effective_at[lt]": at}))
    assert asked(here, **{"effective_at[lte]": at}) == asked(here)
    assert asked(here, **{"effective_at[lt]": at}) == asked(here, **{"effective_at[lte]": at - 1})


def test_an_erased_event_says_when_and_what_kind_and_nothing_else(here: Platform) -> None:
    project = here.json("POST", "/organization/projects", {"name": "Lab"})["id"]
    index = asked(here)["data"][0]["log_index"]
    with here.rig.database.write() as tx:
        here.rig.log.erase(tx, [index])
    event = asked(here)["data"][0]
    assert (event["type"], event["actor"], event["project"]) == ("project.created", None, None)
    assert event["project.created"] == {"id": None, "data": {}}
    assert types(here, project_ids=project) == []


def test_nobody_sees_another_organizations_events(here: Platform) -> None:
    stranger = here.other()
    mine = {event["id"] for event in asked(here, limit=100)["data"]}
    theirs = asked(here, key=stranger["admin_key"], limit=100)["data"]
    assert theirs and not mine & {event["id"] for event in theirs}
    assert here.organization_id not in str(theirs)
    named = {"organization_id": str(here.organization_id)}
    assert {event["id"] for event in asked(here, key="operator", limit=100, **named)["data"]} == mine
    assert here.error("GET", f"{LOGS}?{urlencode(named)}", key=stranger["admin_key"]) == (404, "not_found")
    assert here.error("GET", LOGS, key="operator") == (400, "missing_required_parameter")


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=101", "after=audit_log-x", "before=7", "after=audit_log-1%0A", "effective_at[gt]=MARKER"),
        *(
            "effective_at=1",
            "event_types=MARKER",
            "actor_emails=MARKER",
            "project_ids=%00",
            "tenant_only=MARKER",
            "x=1",
        ),
    ],
)
def test_bad_questions_are_refused_without_an_echo(here: Platform, query: str) -> None:
    answer = here.ask("GET", f"{LOGS}?{query}")
    assert answer.status == 400
    assert b"MARKER" not in answer.body


def exported(here: Platform, query: str = "", key: str = "owner") -> list[dict[str, Any]]:
    answer = here.ask("GET", f"{LOGS}/export{query}", key=key)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/jsonl")
    assert isinstance(verify_audit(io.BytesIO(answer.body), here.rig.log.key), AuditVerified)
    return [json.loads(line) for line in answer.body.splitlines()]


def test_an_export_is_the_list_with_proofs_and_without_names(anywhere: Platform) -> None:
    here = anywhere
    project = here.json("POST", "/organization/projects", {"name": "Laboratory"})["id"]
    here.json("DELETE", f"/organization/retained_objects/{here.put().id}")
    here.json("POST", f"/organization/projects/{project}/limits", {"requests_per_minute": 5})
    *lines, end = exported(here)
    listed = asked(here, limit=100)["data"]
    for event in listed:
        if event["project"] is not None:
            event["project"]["name"] = None
    assert [line["event"] for line in lines] == listed
    assert (end["events"], end["organization_id"]) == (len(listed), here.organization_id)
    narrowed = exported(here, f"?project_ids={project}&event_types=project.created")
    assert [line["event"]["type"] for line in narrowed[:-1]] == ["project.created"]
    assert "Laboratory" not in json.dumps(lines)


def test_an_export_is_of_ones_own(here: Platform) -> None:
    stranger = here.other()
    own = json.dumps(exported(here, key=stranger["admin_key"]))
    assert here.organization_id not in own
    named = exported(here, f"?organization_id={here.organization_id}", key="operator")
    assert named[-1]["organization_id"] == here.organization_id
    assert here.error("GET", f"{LOGS}/export", key="operator") == (400, "missing_required_parameter")
    assert here.error("GET", f"{LOGS}/export?limit=3") == (400, "unknown_parameter")
    assert here.error("GET", f"{LOGS}/export?tenant_only=true") == (400, "unsupported_value")


def test_refusals_are_events_and_cannot_flood(anywhere: Platform) -> None:
    here = anywhere
    reader = here.json("POST", "/organization/admin_api_keys", {"name": "x", "role": "reader"})
    for _ in range(3):
        assert here.error("POST", "/organization/projects", {"name": "x"}, key=reader["value"])[0] == 403
    assert here.error("GET", "/organization/projects", key="api")[0] == 403
    careful = here.json("POST", "/organization/admin_api_keys", {"name": "careful"})
    here.json("POST", "/organization/data_controls", {"zero_data_retention": True})
    loosen = {"zero_data_retention": False}
    refused = here.error("POST", "/organization/data_controls", loosen, key=careful["value"])
    assert refused == (403, "recent_sign_in_required")
    found = asked(here, event_types="access.refused")["data"]
    said = [(event["actor"]["api_key"]["id"], event["access.refused"]["data"]) for event in found]
    (api,) = here.json("GET", f"/organization/projects/{here.project_id}/api_keys")["data"]
    assert said == [
        (careful["id"], {"permission": "policy:controls:change", "code": "recent_sign_in_required", "times": 1}),
        (api["id"], {"permission": "accounts:projects:read", "code": "insufficient_permissions", "times": 1}),
        (reader["id"], {"permission": "accounts:projects:manage", "code": "insufficient_permissions", "times": 1}),
    ]
    before = here.error("GET", "/organization/projects", key="ak-keepless-unknown")
    assert before[0] == 401  # nobody's: there is no log in which it could stand
    assert len(asked(here, event_types="access.refused")["data"]) == 3
