"""Projects, keys, members, limits and organizations over HTTP."""

import json

import pytest

from keepless.accounts.keys import digest_of
from keepless.errors import Problem
from keepless.ids import Prefix, mint
from tests.support.governed import eventually
from tests.support.platform import Platform

PROJECTS = "/organization/projects"
ADMIN_KEYS = "/organization/admin_api_keys"


def works(here: Platform, secret: str) -> bool:
    """Whether an API key opens the request path now."""
    return here.services.lease.principal(digest_of(secret.encode())) is not None


def test_projects_are_created_renamed_listed_and_archived(anywhere: Platform) -> None:
    made = anywhere.json("POST", PROJECTS, {"name": "Zwölf ✓"})
    assert made == {
        "id": made["id"],
        "object": "organization.project",
        "name": "Zwölf ✓",
        "created_at": anywhere.rig.clock.now_ms() // 1000,
        "archived_at": None,
        "status": "active",
    }
    assert anywhere.json("GET", f"{PROJECTS}/{made['id']}") == made
    assert anywhere.json("POST", f"{PROJECTS}/{made['id']}", {"name": "B"})["name"] == "B"
    key = anywhere.json("POST", f"{PROJECTS}/{made['id']}/api_keys", {"name": "k"})
    assert works(anywhere, key["value"])
    archived = anywhere.json("POST", f"{PROJECTS}/{made['id']}/archive")
    assert (archived["status"], archived["archived_at"] is None) == ("archived", False)
    assert not works(anywhere, key["value"])
    assert [p["id"] for p in anywhere.json("GET", PROJECTS)["data"]] == [anywhere.project_id]
    assert len(anywhere.json("GET", f"{PROJECTS}?include_archived=true")["data"]) == 2


@pytest.mark.parametrize("name", ["", "a" * 201, "a\nb", "a\n", "\x00", "\x7f", 1, None, "\ud800"])
def test_names_that_are_none(here: Platform, name: object) -> None:
    status, code = here.error("POST", PROJECTS, {"name": name})
    assert (status, code) in {(400, "invalid_value"), (400, "invalid_json")}


def test_lists_are_paged(here: Platform) -> None:
    ids = [here.project_id]
    for number in range(4):
        here.rig.clock.advance_ms(1)
        ids.append(here.json("POST", PROJECTS, {"name": f"p{number}"})["id"])
    first = here.json("GET", f"{PROJECTS}?limit=2")
    second = here.json("GET", f"{PROJECTS}?limit=3&after={first['last_id']}")
    assert (first["has_more"], second["has_more"]) == (True, False)
    assert [p["id"] for p in first["data"] + second["data"]] == ids
    assert here.error("GET", f"{PROJECTS}?after={mint(Prefix.PROJECT)}") == (404, "not_found")


def test_api_keys_show_their_secret_once(anywhere: Platform) -> None:
    base = f"{PROJECTS}/{anywhere.project_id}/api_keys"
    made = anywhere.json("POST", base, {"name": "ci"})
    assert works(anywhere, made["value"])
    shown = anywhere.ask("GET", f"{base}/{made['id']}")
    assert made["value"].encode() not in shown.body
    assert json.loads(shown.body)["redacted_value"] == f"sk-...{made['value'][-4:]}"
    assert made["id"] in [k["id"] for k in anywhere.json("GET", base)["data"]]
    assert anywhere.json("GET", f"{base}?owner_project_access=inactive")["data"] == []
    gone = anywhere.json("DELETE", f"{base}/{made['id']}")
    assert gone == {"id": made["id"], "object": "organization.project.api_key.deleted", "deleted": True}
    assert not works(anywhere, made["value"])
    assert anywhere.error("GET", f"{base}/{made['id']}") == (404, "not_found")


def test_when_a_key_was_used_is_said_by_usage_alone(here: Platform) -> None:
    key = here.json("POST", f"{PROJECTS}/{here.project_id}/api_keys", {"name": "k"})
    assert works(here, key["value"])
    listed = here.json("GET", f"{PROJECTS}/{here.project_id}/api_keys")["data"]
    assert {one["last_used_at"] for one in listed} == {None}


def test_a_service_account_is_a_key(here: Platform) -> None:
    made = here.json("POST", f"{PROJECTS}/{here.project_id}/service_accounts", {"name": "bot"})
    assert (made["object"], made["role"]) == ("organization.project.service_account", "member")
    assert works(here, made["api_key"]["value"])
    base = f"{PROJECTS}/{here.project_id}/service_accounts"
    assert made["id"] in [one["id"] for one in here.json("GET", base)["data"]]
    assert here.json("GET", f"{base}/{made['id']}")["name"] == "bot"
    assert here.json("POST", f"{base}/{made['id']}", {"name": "robot", "role": "member"})["name"] == "robot"
    assert here.json("POST", f"{base}/{made['id']}", {})["name"] == "robot"
    assert here.error("POST", f"{base}/{made['id']}", {"role": "owner"}) == (400, "invalid_value")
    assert here.error("POST", base, {"name": "x", "create_service_account_only": True}) == (400, "invalid_value")
    newest = here.json("GET", "/organization/audit_logs?event_types=api_key.updated")["data"]
    assert [event["api_key.updated"]["id"] for event in newest] == [made["id"]]
    gone = here.json("DELETE", f"{base}/{made['id']}")
    assert (gone["object"], gone["deleted"]) == ("organization.project.service_account.deleted", True)
    assert not works(here, made["api_key"]["value"])
    assert here.error("GET", f"{base}/{made['id']}") == (404, "not_found")
    assert here.error("POST", f"{base}/{made['id']}", {"name": "x"}) == (404, "not_found")


def test_keys_say_when_they_end(here: Platform) -> None:
    now = here.rig.clock.now_ms() // 1000
    base = f"{PROJECTS}/{here.project_id}"
    key = here.json("POST", f"{base}/api_keys", {"name": "x", "expires_in_seconds": 60})
    account = here.json("POST", f"{base}/service_accounts", {"name": "x", "expires_in_seconds": 60})
    admin = here.json("POST", ADMIN_KEYS, {"name": "x", "expires_in_seconds": 60})
    ends = [key["expires_at"], account["api_key"]["expires_at"], admin["expires_at"]]
    assert ends == [now + 60] * 3
    assert here.json("GET", f"{base}/api_keys/{key['id']}")["expires_at"] == now + 60
    assert here.json("GET", f"{ADMIN_KEYS}/{admin['id']}")["expires_at"] == now + 60
    for wrong in (0, -1, 10**12, "60", 1.5):
        assert here.error("POST", ADMIN_KEYS, {"name": "x", "expires_in_seconds": wrong}) == (400, "invalid_value")


def test_a_key_is_given_another_end(anywhere: Platform) -> None:
    base, clock = f"{PROJECTS}/{anywhere.project_id}/api_keys", anywhere.rig.clock
    key = anywhere.json("POST", base, {"name": "x"})
    path, now = f"{base}/{key['id']}", clock.now_ms() // 1000
    changed = anywhere.json("POST", path, {"expires_in_seconds": 60, "scopes": []})
    assert (changed["id"], changed["expires_at"]) == (key["id"], now + 60)
    assert "value" not in changed
    assert works(anywhere, key["value"])
    assert anywhere.json("POST", path, {"scopes": []})["expires_at"] == now + 60
    (event,) = anywhere.json("GET", "/organization/audit_logs?event_types=api_key.updated")["data"]
    said = event["api_key.updated"]
    assert (said["id"], said["changes_requested"]["expires_at_ms"] // 1000) == (key["id"], now + 60)
    assert anywhere.error("POST", path, {}) == (400, "missing_required_parameter")
    assert anywhere.error("POST", path, {"scopes": ["api.all.read"]}) == (400, "unsupported_value")
    for wrong in (0, None, 10**12):
        assert anywhere.error("POST", path, {"expires_in_seconds": wrong}) == (400, "invalid_value")
    clock.jump_ms(61_000)
    eventually(lambda: not works(anywhere, key["value"]))
    assert anywhere.error("POST", path, {"expires_in_seconds": 60}) == (400, "invalid_value")
    assert anywhere.error("POST", f"{base}/{mint(Prefix.API_KEY)}", {"scopes": []}) == (404, "not_found")


def test_admin_keys_have_a_role_and_may_loosen_only_what_their_maker_may(anywhere: Platform) -> None:
    reader = anywhere.json("POST", ADMIN_KEYS, {"name": "audit", "role": "reader"})
    assert reader["value"].startswith("ak-keepless-")
    assert (reader["owner"]["role"], reader["can_loosen_until"]) == ("reader", None)
    assert anywhere.error("POST", PROJECTS, {"name": "x"}, key=reader["value"]) == (403, "insufficient_permissions")
    soon = anywhere.rig.clock.now_ms() // 1000 + 3600
    able = anywhere.json("POST", ADMIN_KEYS, {"name": "night", "can_loosen_until": soon})
    assert able["can_loosen_until"] == soon
    later = soon + 24 * 3600
    assert anywhere.error("POST", ADMIN_KEYS, {"name": "x", "can_loosen_until": later}) == (400, "invalid_value")
    careful = anywhere.json("POST", ADMIN_KEYS, {"name": "careful"})["value"]
    refused = anywhere.error("POST", ADMIN_KEYS, {"name": "x", "can_loosen_until": soon}, key=careful)
    assert refused == (403, "recent_sign_in_required")
    assert anywhere.error("POST", ADMIN_KEYS, {"name": "x", "role": "operator"}) == (400, "invalid_value")
    assert anywhere.json("GET", f"{ADMIN_KEYS}/{able['id']}")["name"] == "night"
    newest = anywhere.json("GET", f"{ADMIN_KEYS}?order=desc&limit=100")["data"]
    assert newest == anywhere.json("GET", f"{ADMIN_KEYS}?limit=100")["data"][::-1]


def test_a_revoked_admin_key_opens_nothing(here: Platform) -> None:
    made = here.json("POST", ADMIN_KEYS, {"name": "x"})
    here.json("GET", PROJECTS, key=made["value"])
    assert here.json("DELETE", f"{ADMIN_KEYS}/{made['id']}")["deleted"] is True
    assert here.error("GET", PROJECTS, key=made["value"]) == (401, "invalid_api_key")


def test_members(anywhere: Platform) -> None:
    body = {"email": "a@example.com", "role": "developer", "password": "correct horse battery"}
    made = anywhere.json("POST", "/organization/users", body)
    assert (made["object"], made["email"], made["role"]) == ("organization.user", "a@example.com", "developer")
    assert anywhere.error("POST", "/organization/users", body) == (400, "invalid_value")
    assert made["id"] in [m["id"] for m in anywhere.json("GET", "/organization/users?order=desc")["data"]]
    assert anywhere.json("DELETE", f"/organization/users/{made['id']}")["deleted"] is True
    assert anywhere.error("DELETE", f"/organization/users/{made['id']}") == (404, "not_found")
    for wrong in ({"email": "a"}, {"email": "a@b\n"}, {"password": "short"}, {"role": "operator"}):
        assert anywhere.error("POST", "/organization/users", {**body, **wrong})[0] == 400


def test_limits_are_set_as_a_whole(anywhere: Platform) -> None:
    path = f"{PROJECTS}/{anywhere.project_id}/limits"
    ours = f"/organization/limits?organization_id={anywhere.organization_id}"
    for each, kind, key in ((ours, "organization.limits", "operator"), (path, "project.limits", "owner")):
        shown = each.partition("?")[0]
        made = anywhere.json("POST", each, {"requests_per_minute": 3, "tokens_per_minute": 1000}, key=key)
        assert made == {
            "object": kind,
            "requests_per_minute": 3,
            "requests_per_day": None,
            "tokens_per_minute": 1000,
        }
        assert anywhere.json("GET", shown) == made
        assert anywhere.json("POST", each, {}, key=key)["requests_per_minute"] is None
        assert anywhere.error("POST", each, {"requests_per_day": -1}, key=key) == (400, "invalid_value")
        assert anywhere.error("POST", each, {"requests_per_day": 2**31}, key=key) == (400, "invalid_value")
    # Who is limited by the platform cannot lift that; who is limited by an owner is tighter still.
    assert anywhere.error("POST", "/organization/limits", {})[0] == 403


def test_operators_make_and_end_organizations(anywhere: Platform) -> None:
    made = anywhere.json("POST", "/organizations", {"name": "Other", "region": "us"}, key="operator")
    assert (made["object"], made["region"]) == ("organization", "us")
    assert works(anywhere, made["api_key"])
    assert anywhere.json("GET", PROJECTS, key=made["admin_key"])["data"][0]["id"] == made["project_id"]
    ids = [o["id"] for o in anywhere.json("GET", "/organizations", key="operator")["data"]]
    assert sorted(ids) == sorted([anywhere.organization_id, made["id"]])
    shown = anywhere.ask("GET", f"/organizations/{made['id']}", key="operator")
    assert made["api_key"].encode() not in shown.body
    assert anywhere.json("DELETE", f"/organizations/{made['id']}", key="operator")["deleted"] is True
    assert not works(anywhere, made["api_key"])
    assert anywhere.error("GET", PROJECTS, key=made["admin_key"]) == (401, "invalid_api_key")
    assert anywhere.error("DELETE", f"/organizations/{made['id']}", key="operator") == (404, "not_found")


def test_deleting_an_organization_purges_what_it_kept(anywhere: Platform) -> None:
    made = anywhere.other()
    kept = anywhere.put(made["id"], made["project_id"])
    assert anywhere.json("DELETE", f"/organizations/{made['id']}", key="operator")["purge_id"].startswith("purge_")
    report = anywhere.services.sweeper.sweep_once(confirm=True)
    assert report.destroyed == 1
    with anywhere.rig.database.read() as tx:
        (entry,) = anywhere.rig.log.entries(tx, organization_id=made["id"], object_id=kept.id, limit=1)
    assert entry.receipt_id is not None


def test_without_a_lease_no_key_is_believed(here: Platform) -> None:
    here.services.lease.stop()
    answer = here.ask("GET", PROJECTS)
    assert answer.status == 503
    assert json.loads(answer.body)["error"]["code"] == "policy_unreadable"
    with pytest.raises(Problem):
        here.services.lease.admin(b"x" * 32)


def test_bodies_have_a_limit(here: Platform) -> None:
    assert here.error("POST", PROJECTS, raw=b" " * 65_537) == (413, "request_too_large")
    assert here.error("POST", PROJECTS, key=None, raw=b" " * 65_537) == (401, "invalid_api_key")
