"""The console as owners use it, in a real browser against a running server: from the first key to the last receipt."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import chromium, opened, overflow, serious
from tests.support.serve import Served, serve, upstream_models
from tests.support.upstream import MockUpstream


@pytest.fixture(scope="module")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream() as mock:
        yield mock


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, upstream: MockUpstream) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("console"), upstream_models(upstream.base_url)) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def page(browser: Browser, served: Served) -> Iterator[Page]:
    with opened(browser, served.url, served.told["admin_key"]) as it:
        yield it


def good(page: Page) -> None:
    """Nothing serious for axe-core, and no page wider than a phone."""
    assert serious(page) == []
    page.set_viewport_size({"width": 360, "height": 740})
    assert overflow(page) <= 0
    page.set_viewport_size({"width": 1280, "height": 800})


def test_the_first_key_and_the_first_request(page: Page, upstream: MockUpstream) -> None:
    page.goto("/")
    good(page)
    page.get_by_label("Name of the key").fill("<b>first</b>")
    page.get_by_role("button", name="Create key").click()
    expect(page.get_by_role("heading", name="Your new key")).to_be_visible()
    expect(page.get_by_role("heading", name="<b>first</b>")).to_be_visible()
    secret = page.locator("#new-key").inner_text()
    assert len(secret) > 20
    good(page)
    page.get_by_role("button", name="Send to").click()
    expect(page.locator("[data-kept]")).to_have_text("none")
    expect(page.locator("[data-text]")).to_have_text(upstream.text)
    page.locator("[data-explain]").click()
    expect(page.get_by_role("heading", name="Nothing of it was kept")).to_be_visible()
    good(page)
    page.goto("/")
    assert secret not in page.content()


def test_the_keyboard_alone_reaches_the_content(page: Page) -> None:
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Name of the key")).to_be_focused()
