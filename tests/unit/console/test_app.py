"""The way of every page: who looks, from where a form comes, what a role may, what an answer allows a browser."""

import os
import re
from pathlib import Path

import pytest

from keepless.accounts.roles import ROLES, Role
from keepless.accounts.tables import api_key, member, organization, project
from keepless.console.table import ROWS
from keepless.console.visit import Whose
from keepless.ids import Prefix, mint
from tests.support.console import TOKEN, Console, console
from tests.support.sqlite import fresh

PREFIXES = {
    "purge_id": Prefix.PURGE,
    "project_id": Prefix.PROJECT,
    "key_id": Prefix.API_KEY,
    "hold_id": Prefix.HOLD,
    "case_id": Prefix.CASE,
    "receipt_id": Prefix.RECEIPT,
    "file_id": Prefix.FILE,
    "batch_id": Prefix.BATCH,
    "job_id": Prefix.TUNING_JOB,
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
    path = path.replace("{index}", "999999")
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
    here.sign_in(Role.OWNER)
    assert here.get("/audit?actor=%00").status == 400
    assert here.post("/projects", {"name": "a\x00b"}).status == 400
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
    assert "{{7*7}}" in here.page("/projects")


LONG = "<long & 'long'>" * 13  # a name of nearly 200 letters, each of which may be escaped


def crowded(here: Console) -> None:
    """Many projects, keys, members and organizations, all with the longest names."""
    own = here.platform.organization_id
    shared = {"name": LONG, "created_at": 1, "generation": 1}
    projects = [{"id": mint(Prefix.PROJECT), "organization_id": own, **shared} for _ in range(1_000)]
    owned = {"organization_id": own, "project_id": projects[0]["id"], **shared}
    keys = [{"id": mint(Prefix.API_KEY), "digest": os.urandom(32), "hint": "sk-…x", **owned} for _ in range(1_000)]
    people = [
        {
            "id": mint(Prefix.MEMBER),
            "organization_id": own,
            "email": f"{at}{LONG}@example.com",
            "role": Role.READER,
            "created_at": 1,
        }
        for at in range(1_000)
    ]
    others = [{"id": mint(Prefix.ORGANIZATION), "epoch": 1, **shared} for _ in range(1_000)]
    with here.platform.services.db.write() as tx:
        for rows, owner in ((projects, project), (keys, api_key), (people, member), (others, organization)):
            tx.execute(owner.insert(), rows)


def test_no_page_grows_with_an_organization(tmp_path: Path) -> None:
    db = fresh(tmp_path)
    with console(db, tmp_path) as here:
        crowded(here)
        for role in (Role.OWNER, Role.OPERATOR):
            here.sign_in(role)
            paths = [row.path for row in ROWS if row.method == "GET" and "{" not in row.path]
            answers = {path: here.get(path) for path in paths}
            pages = {path: one for path, one in answers.items() if "content-disposition" not in one.headers}
            assert {path: len(one.body) for path, one in pages.items() if len(one.body) > 150_000} == {}
        here.sign_in(Role.OWNER)
        seen: set[str] = set()
        path: str | None = "/keys"
        while path is not None:
            page = here.page(path)
            seen |= set(re.findall(r"/keys/(key_[a-z2-7]{24})/revoke", page))
            more = re.search(r'href="(/keys\?after=[^"]+)" rel="next"', page)
            path = None if more is None else more[1]
        assert len(seen) == 1_001
    db.close()
