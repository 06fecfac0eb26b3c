"""Sign-in through a real OpenID Connect provider, a process of its own; and everything that must not get in."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from keepless.accounts.roles import Role
from keepless.config import OidcConfig, OidcGroup
from keepless.console.entrance import federation_of
from keepless.db import Database
from keepless.errors import ConfigError
from keepless.receipts.statement import EntryKind
from tests.support.entrance import OWNER, House, Visitor, house

PROVIDER = """
import json, sys, warnings
warnings.simplefilter("ignore")
from oidc_provider_mock import User, run_server_in_thread
users = [User(**one) for one in json.loads(sys.argv[1])]
with run_server_in_thread(user_claims=users) as server:
    print(server.server_port, flush=True)
    sys.stdin.read()
"""
CALLBACK = "/sign-in/oidc/callback"


def person(sub: str, *groups: str, verified: bool = True, email: str | None = None) -> dict[str, object]:
    claims = {"email": email or f"{sub}@example.com", "email_verified": verified, "groups": groups, "name": sub}
    return {"sub": sub, "claims": claims}


PEOPLE = [
    person("ada", "staff", "admins"),
    person("dev", "staff"),
    person("stranger", "guests"),
    person("unverified", "staff", verified=False),
    person("owner", "admins", email=OWNER),
    person("thief", "admins", email=OWNER),
]


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    command = [sys.executable, "-c", PROVIDER, json.dumps(PEOPLE)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None and process.stdin is not None
        yield f"http://localhost:{int(process.stdout.readline())}"
        process.stdin.close()
        process.wait(90)


@pytest.fixture
def here(tmp_path: Path, issuer: str) -> Iterator[House]:
    config = OidcConfig(
        issuer=issuer,
        client_id="keepless",
        client_secret_env="SECRET",
        base_url="http://here",
        groups=[OidcGroup(group="admins", role="owner"), OidcGroup(group="staff", role="developer")],
    )
    db = Database(f"sqlite:///{tmp_path}/keepless.sqlite")
    db.create_all()
    with house(db, tmp_path, federation=federation_of(config, {"SECRET": "s"})) as found:
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
    db = Database(f"sqlite:///{tmp_path}/keepless.sqlite")
    db.create_all()
    with house(db, tmp_path) as found:
        assert found.visitor().get("/sign-in/oidc").status == 404
        assert found.visitor().get(CALLBACK).status == 404
        assert b"/sign-in/oidc" not in found.visitor().get("/sign-in").body
    db.close()


def test_the_secret_must_be_there(issuer: str) -> None:
    groups = [OidcGroup(group="admins", role="owner")]
    config = OidcConfig(issuer=issuer, client_id="x", client_secret_env="SECRET", base_url="http://here", groups=groups)
    with pytest.raises(ConfigError):
        federation_of(config, {})
