"""The console as owners use it, in a real browser against a running server: from the first key to the last receipt."""

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from keepless.receipts.checkpoint import VerifierKey
from keepless.receipts.verify import Verified, verify_receipt
from tests.support.browser import chromium, good, opened, serious
from tests.support.governed import eventually
from tests.support.serve import Served, serve, upstream_models
from tests.support.upstream import Behaviour, MockUpstream


@pytest.fixture(scope="module")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream() as mock:
        yield mock


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, upstream: MockUpstream) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("console"), upstream_models(upstream.base_url), fresh=True) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def page(browser: Browser, served: Served) -> Iterator[Page]:
    with opened(browser, served.url, served.told["admin_key"]) as it:
        yield it


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


def failing(served: Served) -> None:
    """A request that fails in a way that degrades reliability: it is captured."""
    body = {"model": Behaviour.CUT_JSON.value, "messages": [{"role": "user", "content": "canary"}]}
    with pytest.raises(urllib.error.HTTPError) as refused:
        served.ask("POST", "/chat/completions", body, key="api_key")
    refused.value.close()


def test_what_is_kept_ends_with_a_receipt(page: Page, served: Served) -> None:
    failing(served)
    page.goto("/kept")
    good(page)
    expect(page.locator(".u-legend")).to_be_visible()
    page.get_by_role("link", name="Delete…").first.click()
    button = page.get_by_role("button", name="Delete for good")
    expect(button).to_be_disabled()
    page.get_by_label("To confirm, type delete").fill("delete")
    good(page)
    button.click()
    expect(page.get_by_text("Deleted. The key is destroyed")).to_be_visible()
    good(page)
    where = page.get_by_role("link", name="Download the receipt").get_attribute("href")
    file = served.url + str(where)
    asked = urllib.request.Request(file, headers={"authorization": f"Bearer {served.told['admin_key']}"})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        receipt = answer.read()
    with urllib.request.urlopen(f"{served.url}/log/key", timeout=60) as answer:
        key = VerifierKey.parse(answer.read().decode().strip())
    verified = verify_receipt(receipt, key)
    assert isinstance(verified, Verified), verified
    page.goto("/receipts")
    good(page)
    page.goto("/kept")
    expect(page.get_by_text("Nothing is kept")).to_be_visible()


def test_zero_data_retention_is_watched_to_its_end(page: Page, served: Served) -> None:
    failing(served)
    page.goto("/controls")
    good(page)
    page.get_by_role("link", name="Turn on…").first.click()
    expect(page.get_by_text("to be kept, and")).to_be_visible()
    good(page)
    page.get_by_label("To confirm, type keep nothing").fill("keep nothing")
    page.get_by_label("We stay responsible").check()
    page.get_by_role("button", name="Make the change").click()
    expect(page.get_by_role("heading", name="Done")).to_be_visible()
    good(page)
    page.get_by_role("link", name="Receipt of").first.click()
    expect(page.get_by_text("keepless verify rcpt_")).to_be_visible()
    page.goto("/controls")
    expect(page.locator(".end").get_by_text("Zero Data Retention is on")).to_be_visible()
    page.get_by_role("link", name="Turn off…").first.click()
    page.get_by_role("button", name="Make the change").click()
    expect(page.get_by_text("Data controls changed")).to_be_visible()


def test_a_switch_is_turned_off_without_javascript(browser: Browser, served: Served) -> None:
    with opened(browser, served.url, served.told["admin_key"], java_script_enabled=False) as page:
        page.goto("/controls")
        page.get_by_role("link", name="Turn off… Fine-tuning").click()
        page.get_by_label("To confirm, type turn off").fill("turn off")
        page.get_by_role("button", name="Make the change").click()
        expect(page.get_by_text("Data controls changed")).to_be_visible()


def test_a_file_is_uploaded_and_ends(page: Page, tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>.jsonl"
    (tmp_path / name).write_text("{}\n" * 300_000)
    page.goto("/files")
    page.get_by_label("File", exact=True).set_input_files(tmp_path / name)
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_text("The file is kept.")).to_be_visible()
    expect(page.get_by_role("rowheader", name=name)).to_be_visible()
    good(page)
    page.get_by_role("link", name="Delete…").click()
    page.get_by_label("To confirm, type delete").fill("delete")
    good(page)
    page.get_by_role("button", name="Delete for good").click()
    page.get_by_role("link", name="Open").click()
    expect(page.get_by_role("heading", name="Receipt of a deletion")).to_be_visible()


def test_a_reader_can_change_nothing(browser: Browser, served: Served) -> None:
    made = served.ask("POST", "/organization/admin_api_keys", {"name": "reads", "role": "reader"})
    with opened(browser, served.url, made["value"]) as page:
        for path in ("/", "/controls", "/kept", "/receipts", "/holds", "/projects", "/keys", "/files", "/usage"):
            page.goto(path)
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            assert page.locator("form[method=post]").count() == 0, path
            assert page.get_by_role("link", name="…").count() == 0, path


def test_a_hold_keeps_until_it_is_released(page: Page, browser: Browser, served: Served) -> None:
    failing(served)
    kept = served.ask("GET", "/organization/retained_objects")["data"][-1]["id"]
    with opened(browser, served.url, served.told["operator_key"]) as operator:
        operator.goto("/holds/new")
        good(operator)
        operator.get_by_label("Reference").fill(EVIL)
        operator.get_by_label("Review date").fill("2099-01-01")
        operator.get_by_label("Object id").fill(kept)
        operator.get_by_role("button", name="Place the hold").click()
        expect(operator.get_by_text("The hold is in place.")).to_be_visible()
        good(operator)
        page.goto(f"/kept/{kept}")
        good(page)
        page.get_by_label("To confirm, type delete").fill("delete")
        page.get_by_role("button", name="Delete for good").click()
        expect(page.get_by_role("heading", name="A legal hold is in the way")).to_be_visible()
        good(page)
        purge = served.ask("POST", "/organization/data_controls", {"zero_data_retention": True})["purge_id"]
        page.goto(f"/purges/{purge}")
        expect(page.get_by_role("heading", name="Held objects remain")).to_be_visible()
        good(page)
        operator.get_by_role("table").get_by_role("link").first.click()
        operator.get_by_label("To confirm, type release").fill("release")
        good(operator)
        operator.get_by_role("button", name="Release the hold").click()
        expect(operator.get_by_text("The hold is released.")).to_be_visible()
        good(operator)
    page.goto(f"/purges/{purge}")
    expect(page.get_by_role("heading", name="Done")).to_be_visible()
    expect(page.get_by_role("link", name=f"Receipt of {kept}")).to_be_visible()
    served.ask("POST", "/organization/data_controls", {"zero_data_retention": False})


EVIL = "<img src=x onerror=alert(1)>\"'></textarea>{{7*7}}"
PAGES = """/ /captures /cases /controls /controls/history /kept /receipts /holds /usage /files /batches /projects /keys
/members /audit"""


def test_no_string_of_a_customer_becomes_markup(page: Page, served: Served) -> None:
    project = served.ask("POST", "/organization/projects", {"name": EVIL})["id"]
    key = served.ask("POST", f"/organization/projects/{project}/api_keys", {"name": EVIL})["id"]
    served.ask("POST", "/organization/admin_api_keys", {"name": EVIL, "role": "reader"})
    served.ask("POST", "/organization/users", {"email": "<img/src=x/onerror=alert(1)>@x", "role": "reader"})
    served.ask("POST", f"/organization/projects/{project}/data_controls", {"zero_data_retention": True})
    page.on("dialog", lambda dialog: pytest.fail("a script of a customer's ran"))
    asked = ["/usage?by=project", "/usage?by=key", f"/projects/{project}", f"/projects/{project}/archive"]
    asked += [f"/keys/{key}/revoke", f"/controls?project={project}", "/explain?request=%3Cimg%20src=x%3E"]
    for path in [*PAGES.split(), *asked]:
        page.goto(path)
        assert page.locator("img[src=x], img[src='x/onerror=alert(1)']").count() == 0, path
    page.goto("/keys")
    expect(page.get_by_role("rowheader").filter(has_text=EVIL).first).to_be_visible()


def test_a_refusal_of_a_feature_that_is_off_is_explained(page: Page, served: Served) -> None:
    served.ask("POST", "/organization/data_controls", {"batch": "disabled"})
    body = json.dumps({"input_file_id": "x", "endpoint": "/v1/chat/completions", "completion_window": "24h"}).encode()
    headers = {"authorization": f"Bearer {served.api_key}"}
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(f"{served.base_url}/batches", body, headers), timeout=60)
    request_id = refused.value.headers["x-request-id"]
    refused.value.close()
    served.ask("POST", "/organization/data_controls", {"batch": "enabled"})

    def explained() -> bool:
        page.goto(f"/explain?request={request_id}")
        return page.get_by_text("feature_disabled_by_data_controls").count() == 1

    eventually(explained, seconds=60)
    expect(page.get_by_role("heading", name="Nothing of it was kept")).to_be_visible()
    good(page)


def test_a_person_signs_in_changes_something_and_is_gone(browser: Browser, served: Served) -> None:
    with opened(browser, served.url) as person:
        person.goto("/controls")
        expect(person).to_have_url(re.compile("/sign-in"))
        good(person)
        person.goto(served.told["sign_in"])
        good(person)
        person.get_by_role("main").get_by_role("button").first.click()
        expect(person.get_by_role("heading", name="Overview")).to_be_visible()
        person.get_by_label("Name of the key").fill("by a person")
        person.get_by_role("button", name="Create key").click()
        expect(person.get_by_role("heading", name="Your new key")).to_be_visible()
        foreign(person, served)
        person.goto("/projects")
        for cookie in person.context.cookies():
            assert cookie["httpOnly"], cookie["name"]
        person.context.clear_cookies()  # as when the session has ended
        person.get_by_label("Name").fill("too late")
        person.get_by_role("button", name="Create project").click()
        expect(person.get_by_text("Nothing was changed: you are not signed in")).to_be_visible()
        person.goto("/projects")
        expect(person).to_have_url(re.compile("/sign-in"))
    assert "too late" not in {one["name"] for one in served.ask("GET", "/organization/projects?limit=100")["data"]}


def foreign(person: Page, served: Served) -> None:
    """Another site's page sends a form with the person's own cookies: nothing happens."""
    evil = person.context.new_page()
    form = f'<form method="post" action="{served.url}/projects"><input name="name" value="forged"><button>Go</button>'
    evil.goto("data:text/html," + urllib.parse.quote(form))
    evil.get_by_role("button").click()
    expect(evil.get_by_text("Nothing was changed")).to_be_visible()
    evil.close()
    assert "forged" not in {one["name"] for one in served.ask("GET", "/organization/projects?limit=100")["data"]}


OTHERS = "/holds /projects /keys /members /usage /audit /location /batches /captures /cases /files /fine-tunings"


@pytest.mark.parametrize("path", OTHERS.split())
def test_nothing_serious_on_any_other_page(page: Page, path: str) -> None:
    page.goto(path)
    good(page)
    page.emulate_media(color_scheme="dark")
    assert serious(page) == []


def test_the_keyboard_alone_reaches_the_content(page: Page) -> None:
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Name of the key")).to_be_focused()
