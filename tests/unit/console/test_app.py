"""The way of every page: who looks, from where a form comes, what a role may, what an answer allows a browser."""

import re

import pytest

from keepless.accounts.roles import ROLES, Role
from keepless.console.table import ROWS
from keepless.console.visit import Whose
from keepless.ids import Prefix, mint
from tests.support.console import TOKEN, Console

PREFIXES = {
    "purge_id": Prefix.PURGE,
    "project_id": Prefix.PROJECT,
    "key_id": Prefix.API_KEY,
    "hold_id": Prefix.HOLD,
    "receipt_id": Prefix.RECEIPT,
    "file_id": Prefix.FILE,
    "batch_id": Prefix.BATCH,
    "opening_id": Prefix.OPENING,
    "invite_id": Prefix.INVITE,
    "member_id": Prefix.MEMBER,
}


@pytest.fixture
def here(shared: Console) -> Console:
    shared.sign_in(Role.OWNER)
    return shared


def concrete(path: str) -> str:
    """A path with ids that nobody has."""
    return re.sub(r"{(\w+)}", lambda found: mint(PREFIXES.get(found[1], Prefix.OBJECT)), path)


def test_every_route_asks_for_its_permission(here: Console) -> None:
    for role in Role:
        here.sign_in(role)
        for row in ROWS:
            path = concrete(row.path)
            answer = here.get(path) if row.method == "GET" else here.post(path)
            if row.permission not in ROLES[role]:
                assert answer.status == 403, (role, row.path)
                assert b"permission" in answer.body
            elif role is Role.OPERATOR and row.whose is Whose.OWN:
                assert answer.status == 404, (role, row.path)
            else:
                assert answer.status != 403, (role, row.path)
                assert answer.status < 500, (role, row.path, answer.body)


def test_nobody_is_sent_to_the_sign_in(here: Console) -> None:
    here.sign_in(None)
    for row in ROWS:
        path = concrete(row.path)
        if row.method == "GET":
            answer = here.get(path)
            assert answer.status == 303
            assert answer.headers["location"].startswith("/sign-in")
        else:
            assert here.post(path).status == 401
    assert here.get("/", hx_request="true").headers["hx-redirect"] == "/sign-in"


@pytest.mark.parametrize(
    ("form", "headers"),
    [
        ({"csrf": ""}, {}),
        ({"csrf": TOKEN[:-1]}, {}),
        ({}, {"origin": "http://elsewhere"}),
        ({}, {"origin": "null"}),
        ({}, {"sec_fetch_site": "cross-site"}),
        ({}, {"sec_fetch_site": "same-site"}),
    ],
)
def test_a_foreign_form_changes_nothing(here: Console, form: dict[str, str], headers: dict[str, str]) -> None:
    for row in ROWS:
        if row.method == "POST":
            answer = here.post(concrete(row.path), form, **headers)
            assert answer.status == 403
            assert b"did not come from a page of this console" in answer.body


def test_every_page_allows_a_browser_nothing_from_elsewhere(here: Console) -> None:
    for row in ROWS:
        if row.method == "GET":
            answer = here.get(concrete(row.path))
            if answer.status == 303:
                continue
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["cache-control"] == "no-store"
            page = answer.body.decode()
            assert not re.search(r"<[^>]+\s(style|on\w+)=", page), row.path
            assert not re.search(r"<script(?![^>]*\ssrc=)", page), row.path
            assert not re.search(r"(src|href|action)=\"(https?:)?//", page), row.path
            assert len(answer.body) < 60_000


def test_what_nobody_has_is_a_page_for_people_and_json_for_programs(here: Console) -> None:
    lost = here.get("/nowhere")
    assert lost.status == 404
    assert b"<!doctype html>" in lost.body
    assert b'"unknown_url"' in here.get("/nowhere", accept="*/*").body
    assert b'"unknown_url"' in here.get("/v1/nowhere").body
    assert here.get("/first/key").status == 405


def test_a_form_that_is_none_is_refused(here: Console) -> None:
    assert here.post("/first/key", {"csrf": "x" * 70_000}).status == 413
    assert here.post("/first/key", {"name": "\x00", "project": here.platform.project_id}).status == 400


def test_files_of_the_console_are_served_packed_and_for_good(here: Console) -> None:
    page = here.page("/")
    for path in re.findall(r'"(/static/[^"]+)"', page):
        plain, packed = here.get(path), here.get(path, accept_encoding="gzip")
        assert plain.status == packed.status == 200
        assert "immutable" in plain.headers["cache-control"]
        assert packed.headers.get("content-encoding") == "gzip"
    assert here.get("/static/0/../app.py").status == 404


def test_an_organization_named_like_a_script_is_a_text(here: Console) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{7*7}}"
    here.platform.services.organizations.rename_project(
        here.who[0].principal,  # type-checked where pages are
        here.platform.organization_id,
        here.platform.project_id,
        name=evil,
    )
    page = here.page("/")
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "{{7*7}}" in page
