"""Users and invites as OpenAI's client sees them; secrets shown once, roles that reach no further than they may."""

import json

import pytest

from keepless.accounts.invites import INVITE_MS
from keepless.receipts.statement import EntryKind
from tests.support.platform import Platform


def user(here: Platform, email: str, role: str) -> str:
    made = here.json("POST", "/organization/users", {"email": email, "role": role, "password": "a long password"})
    return str(made["id"])


def test_users_are_read_found_and_given_another_role(here: Platform) -> None:
    made = user(here, "Ada@Example.com", "reader")
    assert here.json("GET", f"/organization/users/{made}")["email"] == "ada@example.com"
    found = here.json("GET", "/organization/users?emails[]=ADA@example.com")["data"]
    assert [one["id"] for one in found] == [made]
    assert here.json("GET", "/organization/users?emails=nobody@example.com")["data"] == []
    assert here.json("POST", f"/organization/users/{made}", {"role": "auditor"})["role"] == "auditor"
    assert here.deployment.kinds(EntryKind.MEMBER_CHANGED) == [EntryKind.MEMBER_CHANGED]


def test_the_last_owner_stays_one(here: Platform) -> None:
    owner = here.json("GET", "/organization/users")["data"][0]["id"]
    assert here.error("POST", f"/organization/users/{owner}", {"role": "reader"}) == (400, "invalid_value")
    assert here.error("DELETE", f"/organization/users/{owner}") == (400, "invalid_value")
    user(here, "second@example.com", "owner")
    assert here.json("POST", f"/organization/users/{owner}", {"role": "reader"})["role"] == "reader"


@pytest.mark.parametrize("role", ["operator", "admin", "", "OWNER"])
def test_no_role_is_given_that_is_not_the_organizations(here: Platform, role: str) -> None:
    made = user(here, "ada@example.com", "reader")
    assert here.error("POST", f"/organization/users/{made}", {"role": role})[0] == 400
    assert here.error("POST", "/organization/invites", {"email": "b@example.com", "role": role})[0] == 400


def test_a_developer_invites_nobody(here: Platform) -> None:
    for role in ("developer", "reader", "auditor"):
        key = here.json("POST", "/organization/admin_api_keys", {"name": "x", "role": role})["value"]
        body = {"email": "b@example.com", "role": "owner"}
        assert here.error("POST", "/organization/invites", body, key=key) == (403, "insufficient_permissions")
    assert here.json("GET", "/organization/invites")["data"] == []


def test_an_invite_takes_nothing_but_what_it_is(here: Platform) -> None:
    for extra in ({"id": "invite_x"}, {"organization_id": "org_x"}, {"accepted_at": 1}, {"subject": "x"}):
        body = {"email": "b@example.com", "role": "reader", **extra}
        assert here.error("POST", "/organization/invites", body) == (400, "unknown_parameter")


def test_an_invite_from_its_making_to_its_end(here: Platform) -> None:
    made = here.json("POST", "/organization/invites", {"email": "B@example.com", "role": "reader"})
    path = f"/organization/invites/{made['id']}"
    secret = made.pop("sign_in_path").partition("token=")[2]
    assert here.json("GET", path) == made and made["status"] == "pending" and made["role"] == "reader"
    again = here.json("POST", "/organization/invites", {"email": "b@example.com", "role": "auditor"})
    assert here.error("GET", path) == (404, "not_found")  # replaced
    listed = here.ask("GET", "/organization/invites")
    assert secret.encode() not in listed.body and b"sign_in_path" not in listed.body
    here.rig.clock.jump_ms(INVITE_MS)
    assert here.json("GET", f"/organization/invites/{again['id']}")["status"] == "expired"
    assert here.json("DELETE", f"/organization/invites/{again['id']}")["deleted"] is True
    assert here.error("DELETE", f"/organization/invites/{again['id']}") == (404, "not_found")


def test_projects_of_an_invite(here: Platform) -> None:
    project = {"id": here.project_id, "role": "member"}
    made = here.json(
        "POST", "/organization/invites", {"email": "b@example.com", "role": "reader", "projects": [project]}
    )
    assert (made["role"], made["projects"]) == ("developer", [project])
    foreign = {"id": here.other()["project_id"], "role": "member"}
    for projects, status in (([foreign], 404), ([{"id": "MARKER"}], 404), ([{**project, "role": "owner"}], 400)):
        body = {"email": "c@example.com", "role": "reader", "projects": projects}
        answer = here.ask("POST", "/organization/invites", body)
        assert answer.status == status and b"MARKER" not in answer.body


def test_a_member_is_not_invited(here: Platform) -> None:
    user(here, "ada@example.com", "reader")
    assert here.error("POST", "/organization/invites", {"email": "ADA@example.com", "role": "owner"})[0] == 400


def test_a_link_for_who_is_locked_out(here: Platform) -> None:
    made = user(here, "ada@example.com", "reader")
    told = here.json("POST", f"/organization/users/{made}/sign_in_link")
    opened = here.services.sign_in.by_link(told["sign_in_path"].partition("token=")[2])
    assert opened.person.id == made
    assert here.error("POST", f"/organization/users/{made}/sign_in_link", {"user_id": made})[0] == 400


def test_users_of_a_project_are_who_may_act_in_it(here: Platform) -> None:
    user(here, "reader@example.com", "reader")
    made = user(here, "dev@example.com", "developer")
    found = here.json("GET", f"/organization/projects/{here.project_id}/users")["data"]
    assert {(one["email"], one["role"]) for one in found} == {  # they may be of one millisecond
        ("owner@example.com", "owner"),
        ("dev@example.com", "member"),
    }
    one = here.json("GET", f"/organization/projects/{here.project_id}/users/{made}")
    assert one["object"] == "organization.project.user"


def test_removing_a_member_leaves_no_address(here: Platform) -> None:
    made = here.json("POST", "/organization/invites", {"email": "gone@example.com", "role": "reader"})
    here.services.people.accept(made["sign_in_path"].partition("token=")[2], name="Gone", password="a long password")
    who = next(one["id"] for one in here.json("GET", "/organization/users")["data"] if one["name"] == "Gone")
    here.json("DELETE", f"/organization/users/{who}")
    everything = json.dumps([here.json("GET", f"/organization/{path}") for path in ("users", "invites")])
    assert "gone@example.com" not in everything and "Gone" not in everything
