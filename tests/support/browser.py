"""A real browser: Debian's Chromium, driven by Playwright; one for a module, a fresh context for each test."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from tests.support.governed import eventually

AXE = Path(__file__).parent / "axe" / "axe.min.js"
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A browser for the time of a `with`."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--force-prefers-reduced-motion"],
        )
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def opened(browser: Browser, url: str, key: str | None = None, **options: Any) -> Iterator[Page]:
    """A page of a fresh context. What the browser refuses or a script throws fails the test.

    `key`: an admin key that is sent with what is asked of the console.
    """
    context = browser.new_context(base_url=url, **options)
    context.set_default_timeout(PATIENCE_MS)

    def with_key(route: Route) -> None:
        route.continue_(headers={**route.request.headers, "authorization": f"Bearer {key}"})

    if key is not None:
        context.route(lambda asked: "/v1/" not in asked and "/static/" not in asked, with_key)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if "Content Security Policy" in said.text else None)
    try:
        yield page
        assert not faults, faults
    finally:
        context.close()


def serious(page: Page) -> list[str]:
    """What axe-core finds serious or critical on a page, as it is now."""
    page.evaluate(AXE.read_text("utf-8") + "\n;0")
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{rule['id']}: {node['target']} {node['failureSummary']}"
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]


def overflow(page: Page) -> int:
    """By how many pixels a page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def good(page: Page) -> None:
    """Nothing serious for axe-core, no page wider than a phone, none larger than it may be."""
    assert serious(page) == []
    assert len(page.content()) < 150_000
    page.set_viewport_size({"width": 360, "height": 740})
    eventually(lambda: overflow(page) <= 0)  # what measures its place (a chart) draws itself anew a frame later
    page.set_viewport_size({"width": 1280, "height": 800})
