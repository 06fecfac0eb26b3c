"""Projects, keys and members as pages."""

import re

import pytest

from keepless.accounts.roles import Role
from tests.support.console import Console, text_of

EVIL = "<script>alert(1)</script>\"'"


@pytest.fixture
def here(shared: Console) -> Console:
    shared.sign_in(Role.OWNER)
    return shared


def test_projects(here: Console) -> None:
    assert here.done("/projects", {"name": EVIL}) == "/projects?done=project_created"
    page = here.page("/projects")
    assert "<script>alert" not in page
    first = f"/projects/{here.platform.project_id}"
    path = next(one for one in re.findall(r'href="(/projects/proj_[^"]+)"', page) if one != first)
    assert here.done(f"{path}/rename", {"name": "Second"}).endswith("project_renamed")
    assert here.done(f"{path}/limits", {"requests_per_minute": "60"}).endswith("limits_changed")
    page = here.page(path)
    assert 'value="60"' in page
    assert here.post(f"{path}/limits", {"requests_per_minute": "many"}).status == 400
    assert here.post(f"{path}/archive").status == 400
    assert here.done(f"{path}/archive", {"confirm": "archive"}).endswith("project_archived")
    assert "archived" in text_of(here.page("/projects"))
    other = here.platform.other()
    assert here.get(f"/projects/{other['project_id']}").status == 404
    assert here.post(f"/projects/{other['project_id']}/archive", {"confirm": "archive"}).status == 404


def test_a_secret_is_shown_once(here: Console) -> None:
    project = here.platform.project_id
    made = here.post("/first/key", {"name": EVIL, "project": project})
    secret = re.search(r'id="new-key">([^<]+)<', made.body.decode())
    assert secret is not None
    assert made.headers["cache-control"] == "no-store"
    page = here.page("/keys")
    assert secret[1] not in page
    assert "<script>alert" not in page
    paths = re.findall(r'href="(/keys/key_[^"]+/revoke)"', page)
    assert len(paths) >= 2
    assert here.post(paths[0]).status == 400
    assert here.done(paths[0], {"confirm": "revoke"}) == "/keys?done=key_revoked"
    assert paths[0] not in here.page("/keys")
    assert here.post("/first/key", {"name": "x", "project": here.platform.other()["project_id"]}).status == 404


def test_admin_keys_are_owners(here: Console) -> None:
    made = here.post("/keys/admin", {"name": "audit", "role": "reader"})
    assert made.status == 200
    assert here.post("/keys/admin", {"name": "audit", "role": "operator"}).status == 400
    page = here.page("/keys")
    path = next(one for one in re.findall(r'href="(/keys/akey_[^"]+/revoke)"', page) if "audit" in here.page(one))
    here.sign_in(Role.DEVELOPER)
    assert "Admin keys" not in here.page("/keys")
    assert here.post(path, {"confirm": "revoke"}).status == 404
    here.sign_in(Role.OWNER, recent=False)
    assert here.post("/keys/admin", {"name": "loose", "role": "owner", "loosen": "yes"}).status == 403
    assert here.done(path, {"confirm": "revoke"}).endswith("key_revoked")


def test_members(here: Console) -> None:
    assert here.done("/members", {"email": "dev@example.com", "role": "developer"}).endswith("member_added")
    for wrong in (
        {"email": "nobody", "role": "reader"},
        {"email": "a@b", "role": ""},
        {"email": "a@b", "role": "king"},
    ):
        assert here.post("/members", wrong).status == 400
    page = here.page("/members")
    paths = re.findall(r'href="(/members/user_[^"]+/remove)"', page)
    path = next(one for one in paths if "dev@example.com" in here.page(one))
    assert here.done(path, {"confirm": "remove"}).endswith("member_removed")
    assert "dev@example.com" not in here.page("/members")
    assert here.get(path).status == 404


def test_an_invite_is_a_link_that_is_shown_once(here: Console) -> None:
    made = here.post("/members/invites", {"email": "new@example.com", "role": "auditor"})
    link = re.search(r'id="new-key">http://here(/sign-in/invite\?token=[^<]+)<', made.body.decode())
    assert link is not None
    page = here.page("/members")
    assert "new@example.com" in page
    assert link[1] not in page
    path = re.search(r'action="(/members/invites/[^"]+/revoke)"', page)
    assert path is not None
    assert here.done(path[1]) == "/members?done=invite_revoked"
    assert here.post(path[1]).status == 404
    assert here.post("/members/invites", {"email": "new@example.com", "role": "operator"}).status == 400


def test_the_last_owner_stays_one(here: Console) -> None:
    path = re.search(r'action="(/members/user_[^"]+/role)"', here.page("/members"))
    assert path is not None
    assert here.post(path[1], {"role": "reader"}).status == 400
    assert here.done(path[1], {"role": "owner"}) == "/members?done=member_changed"
