"""The entrance as browsers meet it: fixation, replay, foreign forms, enumeration, redirects, cookies."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepless.accounts.roles import Role
from keepless.config import Settings
from keepless.console.entrance import ROUTES
from keepless.receipts.statement import EntryKind
from tests.support.entrance import OWNER, House, house
from tests.support.sqlite import fresh


@pytest.fixture
def here(tmp_path: Path) -> Iterator[House]:
    db = fresh(tmp_path)
    with house(db, tmp_path) as found:
        yield found
    db.close()


def test_from_the_door_to_the_page_and_out_again(here: House) -> None:
    who = here.visitor()
    answer = who.get("/explain")
    assert answer.status == 303 and answer.headers["location"] == "/sign-in?next=%2Fexplain"
    assert b"Sign in" in who.get("/sign-in?next=/explain").body
    answer = who.post("/sign-in", {"email": OWNER, "password": here.password, "next": "/explain"})
    assert (answer.status, answer.headers["location"]) == (303, "/explain")
    page = who.get("/explain").body.decode()
    assert OWNER in page and 'action="/sign-out"' in page
    assert who.get("/sign-in").headers["location"] == "/"
    answer = who.post("/sign-out", {"csrf": who.csrf()})
    assert answer.headers["location"] == "/sign-in" and who.cookies == {}
    assert who.get("/").status == 303


def test_the_cookie_is_closed_to_pages_and_other_sites(here: House) -> None:
    answer = here.visitor().post("/sign-in", {"email": OWNER, "password": here.password})
    cookie = answer.headers["set-cookie"].lower()
    assert cookie.startswith("keepless=") and "httponly" in cookie and "samesite=lax" in cookie and "path=/" in cookie
    assert "secure" not in cookie and "domain" not in cookie
    assert answer.headers["cache-control"] == "no-store"


def test_over_tls_the_cookie_is_bound_to_the_host(tmp_path: Path) -> None:
    db = fresh(tmp_path)
    with house(db, tmp_path, Settings(data_dir=str(tmp_path), behind_proxy=True)) as secure:
        who = secure.owner()
        assert list(who.cookies) == ["__Host-keepless"]
        answer = who.post("/sign-out", {"csrf": who.csrf()})
        assert "secure" in answer.headers["set-cookie"].lower()
        again = secure.owner()
        again.cookies = {"keepless": again.cookies["__Host-keepless"]}
        assert again.get("/").status == 303  # a plain cookie could have been set by anybody on the way
    db.close()


def test_a_planted_session_never_becomes_anybodys(here: House) -> None:
    attacker = here.owner()
    planted = dict(attacker.cookies)
    victim = here.visitor()
    victim.cookies = dict(planted)
    answer = victim.post("/sign-in", {"email": OWNER, "password": here.password})
    assert answer.status == 303 and victim.cookies != planted
    assert attacker.get("/").status == 303  # the one that came with the sign-in has ended
    assert victim.get("/").status == 200
    made_up = here.visitor()
    made_up.cookies = {"keepless": "a" * 52}
    made_up.post("/sign-in", {"email": OWNER, "password": here.password})
    assert made_up.cookies != {"keepless": "a" * 52}


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://elsewhere"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "http://here:81"},
        {"origin": "http://here.elsewhere"},
    ],
    ids=str,
)
def test_a_foreign_form_does_nothing(here: House, headers: dict[str, str]) -> None:
    who, signed_in = here.visitor(), here.owner()
    token = here.sign_in.local_link()
    assert token is not None
    for path, form in (
        ("/sign-in", {"email": OWNER, "password": here.password}),
        ("/sign-in/link", {"token": token[0]}),
        ("/sign-in/invite", {"token": token[0], "password": "a long password"}),
    ):
        answer = who.post(path, form, **headers)
        assert answer.status == 403 and who.cookies == {}
    assert here.sign_in.by_link(token[0])  # not used up
    if headers != {"sec-fetch-site": "none"}:
        for path in ("/sign-out", "/sign-out/everywhere", "/sign-in/again"):
            answer = signed_in.post(path, {"csrf": signed_in.csrf(), "password": here.password}, **headers)
            assert answer.status == 403
    assert signed_in.get("/").status == 200


def test_a_form_without_its_token_does_nothing(here: House) -> None:
    who, other = here.owner(), here.owner()
    for path in ("/sign-out", "/sign-out/everywhere", "/sign-in/again", "/first/key"):
        for csrf in ("", "x", other.csrf()):
            answer = who.post(path, {"csrf": csrf, "password": here.password, "name": "x"})
            assert answer.status == 403, path
    assert who.get("/").status == 200


def test_what_is_no_browser_says_nothing_of_itself_and_is_refused(here: House) -> None:
    who = here.visitor()
    answer = who.post("/sign-in", {"email": OWNER, "password": here.password}, **{"origin": "", "sec-fetch-site": ""})
    assert answer.status == 403


def test_a_cookie_opens_nothing_of_the_api(here: House) -> None:
    who = here.owner()
    cookie = "; ".join(f"{name}={value}" for name, value in who.cookies.items())
    for method in ("GET", "POST"):
        for path in ("/organization/data_controls", "/organization/users", "/organizations"):
            answer = here.console.platform.ask(method, path, {}, key=None)
            assert answer.status == 401
    assert cookie


def test_known_and_unknown_addresses_see_one_page(here: House) -> None:
    pages = set()
    for email in (OWNER, "nobody@example.com", '"><script>alert(1)</script>'):
        answer = here.visitor().post("/sign-in", {"email": email, "password": "wrong"})
        pages.add((answer.status, answer.body, tuple(sorted(k for k in answer.headers if k != "x-request-id"))))
    assert len(pages) == 1
    assert b"alert(1)" not in pages.pop()[1]


@pytest.mark.parametrize(
    "typed",
    [
        "//elsewhere",
        "https://elsewhere/",
        "/\\elsewhere",
        "/%2f/elsewhere",
        "javascript:alert(1)",
        "/x\r\nset-cookie: a=b",
        "/a?b=c",
        "\t//elsewhere",
        "/@elsewhere",
        "/" + "x" * 500,
    ],
    ids=lambda typed: repr(typed)[:20],
)
def test_nobody_is_sent_elsewhere_and_no_header_is_made(here: House, typed: str) -> None:
    answer = here.visitor().post("/sign-in", {"email": OWNER, "password": here.password, "next": typed})
    assert (answer.status, answer.headers["location"]) == (303, "/")
    assert "a=b" not in answer.headers["set-cookie"]


def test_looking_at_a_link_does_not_use_it(here: House) -> None:
    made = here.sign_in.local_link()
    assert made is not None
    who = here.visitor()
    for _ in range(2):
        page = who.get(f"/sign-in/link?token={made[0]}")
        assert page.status == 200 and made[0] in page.body.decode() and who.cookies == {}
        assert page.headers["referrer-policy"] == "same-origin" and page.headers["cache-control"] == "no-store"
    assert who.post("/sign-in/link", {"token": made[0]}).status == 303
    assert who.get("/").status == 200
    answer = here.visitor().post("/sign-in/link", {"token": made[0]})
    assert answer.status == 401 and b"opens nothing" in answer.body


def test_every_page_of_the_entrance_allows_nothing_from_elsewhere(here: House) -> None:
    who = here.owner()
    for method, path, _ in ROUTES:
        if method != "GET":
            assert here.visitor().get(path).status in (200, 303, 405)
            continue
        for visitor in (here.visitor(), who):
            answer = visitor.get(f"{path}?token=%22%3E%3Cscript%3E&next=%22%3E")
            if answer.status == 303:
                continue
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            page = answer.body.decode()
            assert "<script>" not in page and not re.search(r"<[^>]+\s(style|on\w+)=", page), path


def test_forms_that_are_no_forms(here: House) -> None:
    who = here.visitor()
    assert who.post("/sign-in", {"email": "x" * 20_000}).status == 413
    assert who.post("/sign-in", {f"f{n}": "x" for n in range(50)}).status == 400
    assert who.post("/sign-in/link", {}).status == 401
    assert who.get("/sign-out").status == 405


def test_an_address_has_so_many_tries(here: House) -> None:
    for n in range(60):
        here.visitor().post("/sign-in/link", {"token": str(n)})
    assert here.visitor().post("/sign-in/link", {"token": "x"}).status == 429
    assert here.visitor().post("/sign-in", {"email": OWNER, "password": here.password}).status == 429


def test_proving_it_again_makes_a_new_recent_session(here: House) -> None:
    who = here.owner()
    before = dict(who.cookies)
    assert OWNER.encode() in who.get("/sign-in/again?next=/explain").body
    form = {"csrf": who.csrf(), "next": "/explain"}
    assert who.post("/sign-in/again", {**form, "password": "wrong"}).status == 401
    answer = who.post("/sign-in/again", {**form, "password": here.password})
    assert answer.headers["location"] == "/explain" and who.cookies != before
    assert here.visitor().get("/sign-in/again").headers["location"] == "/sign-in"
    assert here.visitor().post("/sign-in/again", {}).headers["location"] == "/sign-in"


def test_an_invite_makes_a_member_once(here: House) -> None:
    deployment = here.console.platform.deployment
    made = here.people.invite(deployment.owner, deployment.organization_id, email="New@Example.com", role=Role.AUDITOR)
    who = here.visitor()
    assert made.secret in who.get(f"/sign-in/invite?token={made.secret}").body.decode()
    form = {"token": made.secret, "name": "<b>New</b>", "password": "a long password"}
    mass = {**form, "role": "owner", "organization_id": "org_x", "email": "other@example.com"}
    assert who.post("/sign-in/invite", {**form, "password": "short"}).status == 400
    assert who.post("/sign-in/invite", mass).status == 303
    page = who.get("/").body.decode()
    assert "&lt;b&gt;New&lt;/b&gt;" in page and "auditor" in page
    assert here.visitor().post("/sign-in/invite", form).status == 401
    found = [one for one in deployment.access.members(deployment.organization_id) if one.role is Role.AUDITOR]
    assert [(one.email, one.name) for one in found] == [("new@example.com", "<b>New</b>")]
    kinds = deployment.kinds(EntryKind.INVITE_CREATED, EntryKind.INVITE_ACCEPTED)
    assert kinds == [EntryKind.INVITE_CREATED, EntryKind.INVITE_ACCEPTED]


def test_a_removed_member_sees_the_door_with_the_next_request(here: House) -> None:
    deployment = here.console.platform.deployment
    made = deployment.access.add_member(
        deployment.owner,
        deployment.organization_id,
        email="gone@example.com",
        role=Role.OWNER,
        password="a long password",
    )
    who = here.visitor()
    who.post("/sign-in", {"email": "gone@example.com", "password": "a long password"})
    assert who.get("/").status == 200
    token = who.csrf()
    deployment.access.remove_member(deployment.owner, deployment.organization_id, made.id)
    assert who.get("/").status == 303
    assert who.post("/first/key", {"csrf": token, "name": "x"}).status == 401


def test_a_role_taken_away_is_gone_with_the_next_request(here: House) -> None:
    deployment = here.console.platform.deployment
    made = deployment.access.add_member(
        deployment.owner,
        deployment.organization_id,
        email="less@example.com",
        role=Role.DEVELOPER,
        password="a long password",
    )
    who = here.visitor()
    who.post("/sign-in", {"email": "less@example.com", "password": "a long password"})
    token = who.csrf()
    here.people.change_role(deployment.owner, deployment.organization_id, made.id, Role.READER)
    assert who.post("/first/key", {"csrf": token, "name": "x"}).status == 403
