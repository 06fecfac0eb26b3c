"""Signing in with a provider in a real browser: an owner who loosens, an operator, an invite that is accepted."""

import re
import socket
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.support.browser import chromium, good, opened
from tests.support.provider import person, provider
from tests.support.serve import Served, serve, upstream_models

PEOPLE = [person("ada", "admins"), person("olga", "ops"), person("guest")]
GROUPS = [{"group": "admins", "role": "owner"}, {"group": "ops", "role": "operator"}]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    folder = tmp_path_factory.mktemp("provider")
    with provider(PEOPLE) as issuer, pytest.MonkeyPatch.context() as patched:
        patched.setenv("OIDC_SECRET", "s")
        oidc = {"issuer": issuer, "client_id": "keepless", "client_secret_env": "OIDC_SECRET", "groups": GROUPS}
        settings = {"oidc": oidc | {"base_url": f"http://127.0.0.1:{port}"}}
        models = upstream_models("http://127.0.0.1:9/v1")
        with serve(folder, models, "--port", str(port), settings=settings) as running:
            yield running


def agreed(page: Page, sub: str) -> None:
    """At the provider: be somebody."""
    page.get_by_role("button", name=sub, exact=True).first.click()


def test_an_owner_signs_in_and_an_operator_sees_no_content(browser: Browser, served: Served) -> None:
    with opened(browser, served.url) as page:
        page.goto("/controls")
        good(page)
        page.get_by_role("link", name="Sign in with single sign-on").click()
        agreed(page, "ada")
        expect(page.get_by_role("heading", name="Data Controls")).to_be_visible()
        page.goto("/sign-in/again?next=/controls")
        good(page)
        page.get_by_role("link", name="Sign in again with single sign-on").click()
        agreed(page, "ada")
        expect(page.get_by_role("heading", name="Data Controls")).to_be_visible()
    with opened(browser, served.url) as page:
        page.goto("/sign-in")
        page.get_by_role("link", name="Sign in with single sign-on").click()
        agreed(page, "olga")
        expect(page.get_by_role("heading", name="Platform")).to_be_visible()
        page.goto("/kept")
        expect(page.get_by_role("heading", name="Your role does not allow this")).to_be_visible()


def staying(route: Route) -> None:
    """The page on the way to the provider, without the leap that it makes by itself."""
    answer = route.fetch(headers=route.request.all_headers())
    body, leaps = re.subn(r'<meta http-equiv="refresh"[^>]*>', "", answer.text())
    assert leaps == 1, body
    route.fulfill(response=answer, body=body)


def test_an_invite_is_accepted_at_the_provider(browser: Browser, served: Served) -> None:
    with opened(browser, served.url, served.told["admin_key"]) as owner:
        owner.goto("/members")
        owner.get_by_label("E-mail address").fill("guest@example.com")
        owner.get_by_role("button", name="Invite", exact=True).click()
        where = owner.locator("#new-key").inner_text()
    with opened(browser, served.url) as page:
        page.goto(where)
        good(page)
        page.route("**/sign-in/oidc/invite", staying)
        page.get_by_role("button", name="Join with single sign-on").click()
        expect(page.get_by_role("heading", name="Go on to single sign-on")).to_be_visible()
        good(page)
        page.get_by_role("link", name="Continue").click()
        expect(page).to_have_url(re.compile("^http://localhost"))
        agreed(page, "guest")
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        expect(page.locator(".end").get_by_text("guest")).to_be_visible()
