"""Sign-in through a real OpenID Connect provider, a process of its own; and everything that must not get in."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
import sqlalchemy as sa

from keepless.accounts.people_tables import session
from keepless.accounts.roles import ROLES, Role
from keepless.accounts.tables import member
from keepless.app.on_demand import open_id_provider
from keepless.config import OidcConfig, OidcGroup
from keepless.console.entrance import federation_of
from keepless.console.table import ROWS
from keepless.console.visit import Whose
from keepless.errors import ConfigError
from keepless.ids import Id
from keepless.receipts.statement import EntryKind
from tests.support.entrance import OWNER, House, Visitor, house
from tests.support.provider import person, provider
from tests.support.sqlite import fresh

CALLBACK = "/sign-in/oidc/callback"


PEOPLE = [
    person("ada", "staff", "admins"),
    person("dev", "staff"),
    person("stranger", "guests"),
    person("unverified", "staff", verified=False),
    person("owner", "admins", email=OWNER),
    person("thief", "admins", email=OWNER),
    person("stale", "admins"),
    person("olga", "ops"),
    person("both", "ops", "admins"),
    person("guest"),
    person("boss", verified=False),
]
MINUTE_MS = 60_000


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    with provider(PEOPLE) as found:
        yield found


@pytest.fixture
def here(tmp_path: Path, issuer: str) -> Iterator[House]:
    config = OidcConfig(
        issuer=issuer,
        client_id="keepless",
        client_secret_env="SECRET",
        base_url="http://here",
        groups=[
            OidcGroup(group="admins", role="owner"),
            OidcGroup(group="staff", role="developer"),
            OidcGroup(group="ops", role="operator"),
        ],
    )
    db = fresh(tmp_path)
    with house(db, tmp_path, federation=federation_of(config, {"SECRET": "s"}, open_id_provider)) as found:
        yield found
    db.close()


def at_provider(location: str, sub: str) -> str:
    """What the provider sends the browser back to, after the person has agreed."""
    answer = httpx2.post(location, data={"sub": sub}, trust_env=False)
    assert answer.status_code == 302, answer.text
    back = urlsplit(answer.headers["location"])
    assert back.path == CALLBACK
    return f"{back.path}?{back.query}"


def arrived(here: House, sub: str, path: str = "/sign-in/oidc") -> Visitor:
    who = here.visitor()
    answer = who.get(at_provider(who.get(path).headers["location"], sub))
    assert answer.status == 303, answer.body.decode()
    return who


def test_who_a_group_grants_a_role_becomes_a_member(here: House) -> None:
    who = here.visitor()
    assert b"single sign-on" in who.get("/sign-in").body
    location = who.get("/sign-in/oidc?next=/explain").headers["location"]
    asked = parse_qs(urlsplit(location).query)
    assert asked["code_challenge_method"] == ["S256"] and len(asked["nonce"][0]) == 64 and asked["state"]
    answer = who.get(at_provider(location, "dev"))
    assert (answer.status, answer.headers["location"]) == (303, "/explain")
    deployment = here.console.platform.deployment
    made = {one.email: one for one in deployment.access.members(deployment.organization_id)}["dev@example.com"]
    assert (made.role, made.name) == (Role.DEVELOPER, "dev")
    assert "dev" in who.get("/").body.decode()
    arrived(here, "dev")
    assert len(deployment.access.members(deployment.organization_id)) == 2
    assert deployment.kinds(EntryKind.SIGNED_IN) == [EntryKind.SIGNED_IN] * 2


def test_the_first_grant_that_fits_decides_and_roles_follow_the_groups(here: House) -> None:
    arrived(here, "ada")
    deployment = here.console.platform.deployment
    made = {one.email: one for one in deployment.access.members(deployment.organization_id)}["ada@example.com"]
    assert made.role is Role.OWNER
    here.people.change_role(deployment.owner, deployment.organization_id, made.id, Role.READER)
    arrived(here, "ada")
    assert here.people.member(deployment.organization_id, made.id).role is Role.OWNER


def test_a_verified_address_finds_its_member_and_no_second_person(here: House) -> None:
    arrived(here, "owner")
    who = here.visitor()
    answer = who.get(at_provider(who.get("/sign-in/oidc").headers["location"], "thief"))
    assert answer.status == 401 and "keepless" not in who.cookies


@pytest.mark.parametrize("sub", ["stranger", "unverified", "nobody@example.com"])
def test_without_a_grant_or_a_verified_address_nobody_comes_in(here: House, sub: str) -> None:
    who = here.visitor()
    answer = who.get(at_provider(who.get("/sign-in/oidc").headers["location"], sub))
    assert answer.status == 401 and "keepless" not in who.cookies
    deployment = here.console.platform.deployment
    assert len(deployment.access.members(deployment.organization_id)) == 1
    assert deployment.kinds(EntryKind.SIGN_IN_REFUSED) == [EntryKind.SIGN_IN_REFUSED]


def test_a_way_back_is_good_once_and_in_its_browser(here: House) -> None:
    who, attacker = here.visitor(), here.visitor()
    back = at_provider(attacker.get("/sign-in/oidc").headers["location"], "dev")
    assert who.get(back).status == 401  # a link to somebody else's way back signs nobody in
    who.get("/sign-in/oidc")
    assert who.get(back).status == 401
    assert attacker.get(back).status == 303
    kept = dict(attacker.cookies)
    assert attacker.get(back).status == 401 and attacker.cookies == kept


@pytest.mark.parametrize("query", ["", "?state=x&code=y", "?error=access_denied", "?code=x&state=" + "x" * 5000])
def test_a_stray_way_back_is_refused(here: House, query: str) -> None:
    assert here.visitor().get(CALLBACK + query).status == 401


def test_a_code_of_another_sign_in_is_worth_nothing(here: House) -> None:
    who, other = here.visitor(), here.visitor()
    own = at_provider(who.get("/sign-in/oidc").headers["location"], "dev")
    theirs = at_provider(other.get("/sign-in/oidc").headers["location"], "ada")
    state, code = parse_qs(urlsplit(own).query)["state"][0], parse_qs(urlsplit(theirs).query)["code"][0]
    assert who.get(f"{CALLBACK}?state={state}&code={code}").status == 401


def test_without_a_provider_there_is_no_such_page(tmp_path: Path) -> None:
    db = fresh(tmp_path)
    with house(db, tmp_path) as found:
        assert found.visitor().get("/sign-in/oidc").status == 404
        assert found.visitor().get(CALLBACK).status == 404
        assert b"/sign-in/oidc" not in found.visitor().get("/sign-in").body
    db.close()


def test_the_secret_must_be_there(issuer: str) -> None:
    groups = [OidcGroup(group="admins", role="owner")]
    config = OidcConfig(issuer=issuer, client_id="x", client_secret_env="SECRET", base_url="http://here", groups=groups)
    with pytest.raises(ConfigError):
        federation_of(config, {}, open_id_provider)


def tightened(here: House, sub: str) -> Visitor:
    """An owner who has turned something off, too long ago to turn it on again."""
    who = arrived(here, sub)
    form = {"csrf": who.csrf(), "batch": "disabled", "confirm": "turn off"}
    assert who.post("/controls", form).status == 303
    with here.console.platform.services.db.write() as tx:
        tx.execute(session.update().values(signed_in_at=session.c.signed_in_at - 6 * MINUTE_MS))
    assert loosened(who) == 403
    return who


def loosened(who: Visitor) -> int:
    """Try to turn on what is off."""
    return who.post("/controls", {"csrf": who.csrf(), "batch": "enabled"}).status


def test_loosening_takes_a_proof_of_the_provider_that_is_recent(here: House) -> None:
    who = tightened(here, "ada")
    assert b"Sign in again with single sign-on" in who.get("/sign-in/again?next=/controls").body
    where = who.get("/sign-in/oidc/again?next=/controls").headers["location"]
    assert parse_qs(urlsplit(where).query)["max_age"] == ["0"]
    before = dict(who.cookies)
    answer = who.get(at_provider(where, "ada"))
    assert (answer.status, answer.headers["location"]) == (303, "/controls")
    assert who.cookies["keepless"] != before["keepless"], "a new session"
    assert loosened(who) == 303


def test_a_proof_that_is_old_loosens_nothing(here: House) -> None:
    who = tightened(here, "stale")
    answer = who.get(at_provider(who.get("/sign-in/oidc/again").headers["location"], "stale"))
    assert answer.status == 401
    assert loosened(who) == 403


def test_somebody_elses_proof_loosens_nothing(here: House) -> None:
    arrived(here, "owner")
    who = tightened(here, "ada")
    answer = who.get(at_provider(who.get("/sign-in/oidc/again").headers["location"], "owner"))
    assert answer.status == 401
    assert loosened(who) == 403
    assert here.visitor().get("/sign-in/oidc/again").headers["location"].startswith("/sign-in")


# --- operators -------------------------------------------------------------------------------------------------------


def test_operators_sign_in_and_see_no_content(here: House) -> None:
    who = here.visitor()
    answer = who.get(at_provider(who.get("/sign-in/oidc").headers["location"], "olga"))
    assert (answer.status, answer.headers["location"]) == (303, "/platform")
    page = who.get("/platform").body.decode()
    assert "olga" in page and "operator" in page and 'href="/kept"' not in page
    assert who.get("/sign-in").headers["location"] == "/platform"
    for row in ROWS:
        if row.method == "GET" and "{" not in row.path:
            allowed = row.permission in ROLES[Role.OPERATOR] and row.whose is Whose.ANY
            assert who.get(row.path).status != 200 or allowed, row.path
    people = here.console.platform.services.people
    assert people.invites(here.console.platform.organization_id) == []
    own = here.console.platform.deployment
    assert "olga@example.com" not in {one.email for one in own.access.members(own.organization_id)}


def test_the_first_group_decides_whether_somebody_runs_the_platform_or_belongs_to_it(here: House) -> None:
    arrived(here, "both")
    own = here.console.platform.deployment
    assert "both@example.com" in {one.email for one in own.access.members(own.organization_id)}


def test_an_operator_belongs_to_no_organization(issuer: str) -> None:
    groups = [OidcGroup(group="ops", role="operator", organization="org_x")]
    config = OidcConfig(issuer=issuer, client_id="x", client_secret_env="SECRET", base_url="http://here", groups=groups)
    with pytest.raises(ConfigError):
        federation_of(config, {"SECRET": "s"}, open_id_provider)


# --- invites ---------------------------------------------------------------------------------------------------------


def invited(here: House, email: str, role: Role = Role.READER) -> str:
    own = here.console.platform.deployment
    return here.people.invite(own.owner, own.organization_id, email=email, role=role).secret


def way_of(here: House, who: Visitor, token: str) -> str:
    """Where the page of an accepted invite leads."""
    assert b"Join with single sign-on" in who.get(f"/sign-in/invite?token={token}").body
    answer = who.post("/sign-in/oidc/invite", {"token": token})
    assert answer.status == 200, answer.body.decode()
    found = re.search(r'class="button primary" href="([^"]+)"', answer.body.decode())
    assert found is not None
    assert token not in found[1]
    return found[1].replace("&amp;", "&")


def test_an_invite_is_accepted_through_the_provider(here: House) -> None:
    token, who = invited(here, "guest@example.com"), here.visitor()
    answer = who.get(at_provider(way_of(here, who, token), "guest"))
    assert answer.status == 303, answer.body.decode()
    own = here.console.platform.deployment
    member = {one.email: one for one in own.access.members(own.organization_id)}["guest@example.com"]
    assert (member.role, member.name) == (Role.READER, "guest")
    assert len(own.kinds(EntryKind.INVITE_ACCEPTED)) == 1
    assert who.post("/sign-in/oidc/invite", {"token": token}).status == 401, "it opens once"
    arrived(here, "guest")  # no group grants anything: the role is the invite's
    assert here.people.member(own.organization_id, member.id).role is Role.READER


def test_a_role_that_groups_gave_ends_with_them(here: House) -> None:
    token, who = invited(here, "dev@example.com"), here.visitor()
    assert who.get(at_provider(way_of(here, who, token), "dev")).status == 303
    own = here.console.platform.deployment
    found = {one.email: one for one in own.access.members(own.organization_id)}["dev@example.com"]
    assert found.role is Role.READER
    arrived(here, "dev")
    assert here.people.member(own.organization_id, found.id).role is Role.DEVELOPER
    with here.console.platform.services.db.read() as tx:
        assert tx.execute(sa.select(member.c.invited).where(member.c.id == found.id)).scalar_one() is False


@pytest.mark.parametrize(("address", "sub"), [("else@example.com", "guest"), ("boss@example.com", "boss")])
def test_an_invite_is_for_the_verified_address_that_was_invited(here: House, address: str, sub: str) -> None:
    token, who = invited(here, address, Role.OWNER), here.visitor()
    answer = who.get(at_provider(way_of(here, who, token), sub))
    assert answer.status == 401 and "keepless" not in who.cookies
    own = here.console.platform.deployment
    assert len(own.access.members(own.organization_id)) == 1


def test_who_is_a_member_already_accepts_no_other_invite(here: House) -> None:
    arrived(here, "dev")
    own = here.console.platform.deployment
    other = here.console.platform.other()["id"]
    actor = replace(own.owner, organization_id=Id(other))
    token = here.people.invite(actor, Id(other), email="dev@example.com", role=Role.OWNER).secret
    who = here.visitor()
    assert who.get(at_provider(way_of(here, who, token), "dev")).status == 401


def test_a_foreign_page_sends_nobody_off_with_an_invite(here: House) -> None:
    token, who = invited(here, "guest@example.com"), here.visitor()
    assert who.post("/sign-in/oidc/invite", {"token": token}, origin="http://elsewhere").status == 403
    assert who.post("/sign-in/oidc/invite", {"token": "x" * 52}).status == 401
    assert who.get(f"/sign-in/oidc/invite?token={token}").status == 405
