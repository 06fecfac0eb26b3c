"""The console's longer ways in a real browser: two people and a capture, a ZIP before a purge, a batch, receipts."""

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser, Download, Page, expect

from keepless.accounts.people_tables import session
from keepless.accounts.tables import member
from keepless.db import Database
from keepless.ids import Id, Prefix, mint
from keepless.incidents.states import CaseState, Signal
from keepless.incidents.tables import abuse_case
from keepless.receipts.checkpoint import VerifierKey
from keepless.receipts.stated import Stated
from keepless.receipts.verify import Verified, verify_paths
from keepless.receipts.verify_audit import AuditVerified
from keepless.tuning import transitions
from keepless.tuning.values import EventCode, Metrics
from tests.support.browser import chromium, good, opened
from tests.support.outside import keepless
from tests.support.serve import EMBEDDED, Served, serve, upstream_models
from tests.support.upstream import Behaviour, MockUpstream

EVIL = "<img src=x onerror=alert(1)>\"'></textarea>{{7*7}}"
LINES = "".join(
    json.dumps(
        {
            "custom_id": f"line-{at}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "ok", "messages": [{"role": "user", "content": "hello"}]},
        }
    )
    + "\n"
    for at in range(3)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("acts")


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    with (
        MockUpstream() as upstream,
        serve(folder, [*upstream_models(upstream.base_url), EMBEDDED], fresh=True) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def owner(browser: Browser, served: Served, folder: Path) -> Path:
    """What the browser of an owner keeps who has signed in."""
    state = folder / "owner.json"
    with opened(browser, served.url) as person:
        signed_in(person, served.told["sign_in"])
        expect(person.get_by_role("heading", name="Overview")).to_be_visible()
        person.context.storage_state(path=state)
    return state


@pytest.fixture
def page(browser: Browser, served: Served, owner: Path) -> Iterator[Page]:
    with opened(browser, served.url, storage_state=owner) as it:
        yield it


def link(folder: Path, *command: str) -> str:
    """A one-time link, made on the machine itself."""
    code, made = keepless(*command, "--data-dir", str(folder / "data"))
    assert code == 0, made
    return str(made["sign_in_path"])


def signed_in(person: Page, path: str) -> None:
    person.goto(path)
    person.get_by_role("main").get_by_role("button").first.click()


def saved(download: Download, folder: Path) -> Path:
    path = folder / download.suggested_filename
    download.save_as(path)
    return path


def verified(page: Page, path: Path) -> Verified | Stated | AuditVerified:
    """What a file proves under the log's key, without the server."""
    report = verify_paths([path], VerifierKey.parse(page.request.get("/log/key").text().strip()))
    assert report.ok, report
    found = report.files[0].verified
    assert found is not None
    return found


def failing(served: Served, page: Page, text: str) -> None:
    """A request that is captured because the upstream cut its answer."""
    body = {"model": Behaviour.CUT_JSON.value, "messages": [{"role": "user", "content": text}]}
    headers = {"authorization": f"Bearer {served.api_key}"}
    assert page.request.post("/v1/chat/completions", data=body, headers=headers).status == 502


def uploaded(page: Page, path: Path) -> None:
    page.goto("/files")
    page.get_by_label("File", exact=True).set_input_files(path)
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_text("The file is kept.")).to_be_visible()


def test_a_capture_is_opened_by_two_people(page: Page, browser: Browser, served: Served, folder: Path) -> None:
    failing(served, page, f"a question {EVIL}")
    with opened(browser, served.url) as operator:
        operator.on("dialog", lambda _: pytest.fail("a script of a customer's ran"))
        signed_in(operator, link(folder, "operators", "link", "ops@example.com"))
        expect(operator.get_by_role("heading", name="Platform")).to_be_visible()
        good(operator)
        operator.get_by_role("link", name="Captures").first.click()
        operator.get_by_label("Organization").select_option(served.told["organization_id"])
        operator.get_by_role("region", name="Captures").get_by_role("link").first.click()
        good(operator)
        operator.get_by_label("Reference").fill(EVIL)
        operator.get_by_role("button", name="Ask").click()
        expect(operator.get_by_text("A second person decides.").first).to_be_visible()
        expect(operator.get_by_role("button", name="Approve")).to_have_count(0)
        expect(operator.get_by_role("button", name="Show the content")).to_have_count(0)
        page.goto("/captures")
        good(page)
        page.get_by_role("button", name="Approve").click()
        expect(page.get_by_text("The decision stands.")).to_be_visible()
        expect(page.get_by_role("button", name="Show the content")).to_have_count(0)
        operator.reload()
        operator.get_by_role("button", name="Show the content").click()
        expect(operator.get_by_role("heading", name="Content of a capture")).to_be_visible()
        expect(operator.locator("pre").first).to_contain_text("a question <img src=x onerror=alert(1)>")
        assert operator.locator("img[src=x]").count() == 0
        good(operator)
        page.reload()
        page.get_by_role("button", name="End").click()
        expect(page.get_by_text("The decision stands.")).to_be_visible()
        operator.go_back()
        operator.reload()
        expect(operator.get_by_role("button", name="Show the content")).to_have_count(0)
    for kind in ("open_request.created", "open_request.approved", "content.accessed", "open_request.ended"):
        page.goto(f"/audit?type={kind}")
        expect(page.get_by_role("rowheader").filter(has_text=kind)).to_have_count(1)


def test_the_audit_log_is_filtered_and_a_line_of_it_verified_offline(page: Page, tmp_path: Path) -> None:
    page.goto("/audit")
    page.get_by_label("What happened").select_option("organization.created")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_role("rowheader")).to_have_count(1)
    expect(page.get_by_text("in the log")).to_be_visible()
    good(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="the proof as a file").click()
    line = verified(page, saved(download.value, tmp_path))
    assert isinstance(line, Stated)
    assert line.statement["kind"] == "organization_created"
    with page.expect_download() as download:
        page.get_by_role("link", name="Export JSONL").click()
    export = verified(page, saved(download.value, tmp_path))
    assert isinstance(export, AuditVerified)
    assert export.events == 1


def test_a_batch_is_begun_watched_and_its_results_taken(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text(LINES)
    uploaded(page, path)
    page.goto("/batches")
    good(page)
    page.get_by_role("button", name="Begin").click()
    expect(page.get_by_text("The batch was accepted.")).to_be_visible()
    expect(page.get_by_role("table").get_by_text("completed")).to_be_visible()
    good(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="Results").click()
    answers = saved(download.value, tmp_path).read_text().splitlines()
    assert {json.loads(line)["custom_id"] for line in answers} == {"line-0", "line-1", "line-2"}


def test_a_file_is_deleted_and_its_receipt_verified_offline(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "secret plans.jsonl"
    path.write_text("{}\n")
    uploaded(page, path)
    page.get_by_role("link", name="Delete… secret plans.jsonl").click()
    page.get_by_label("To confirm, type delete").fill("delete")
    page.get_by_role("button", name="Delete for good").click()
    page.get_by_role("link", name="Open").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the receipt").click()
    receipt = saved(download.value, tmp_path)
    (tmp_path / "log.vkey").write_text(page.request.get("/log/key").text())
    code, told = keepless("verify", str(receipt), "--log-key", str(tmp_path / "log.vkey"))
    assert (code, told["ok"], told["key_trusted"]) == (0, True, True), told
    assert told["files"][0]["class"] == "batch_input"
    assert "secret plans" not in (tmp_path / download.value.suggested_filename).read_text()


def test_a_fine_tuning_is_begun_watched_and_deleted_with_its_receipt(page: Page, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text('{"messages": []}\nno json\n')  # so nothing is trained, whoever takes it
    page.goto("/files")
    page.get_by_label("File", exact=True).set_input_files(path)
    page.get_by_label("Purpose").select_option("fine-tune")
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_text("The file is kept.")).to_be_visible()
    page.goto("/fine-tunings")
    good(page)
    page.get_by_label("Name").fill("mine")
    page.get_by_role("button", name="Begin").click()
    expect(page.get_by_text("The fine-tuning was accepted.")).to_be_visible()
    learned(folder, page.url.split("/fine-tunings/")[1].split("?")[0])
    page.reload()
    expect(page.locator("#tuning .u-legend")).to_contain_text("Loss")
    good(page)
    page.get_by_role("link", name="Delete…").click()
    page.get_by_label("To confirm, type delete").fill("delete")
    page.get_by_role("button", name="Delete for good").click()
    expect(page.get_by_text("The fine-tuning and its model are destroyed.")).to_be_visible()
    page.get_by_role("link", name="Open").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the receipt").click()
    receipt = verified(page, saved(download.value, tmp_path))
    assert isinstance(receipt, Verified)
    assert receipt.data_class == "fine_tuning_work"


def learned(folder: Path, job_id: str) -> None:
    """What a worker would have written of a job that learns."""
    db = Database(f"sqlite:///{folder}/data/keepless.sqlite")
    with db.write() as tx:
        for step in range(1, 30):
            transitions.tell(tx, Id(job_id), EventCode.METRICS, step, step=step, metrics=Metrics(loss=3 / step))
    db.close()


def test_a_zip_is_taken_along_before_a_purge_without_javascript(
    browser: Browser, page: Page, served: Served, owner: Path, tmp_path: Path
) -> None:
    path = tmp_path / "keep me.jsonl"
    path.write_text("the only copy\n")
    uploaded(page, path)
    with opened(browser, served.url, storage_state=owner, java_script_enabled=False) as plain:
        plain.goto("/controls")
        plain.get_by_role("link", name="Turn off… Batch").click()
        with plain.expect_download() as download:
            plain.get_by_role("button", name="Download a ZIP of it").click()
        archive = zipfile.ZipFile(io.BytesIO(saved(download.value, tmp_path).read_bytes()))
        assert archive.testzip() is None
        (name,) = [one for one in archive.namelist() if one.endswith("/keep me.jsonl")]
        assert archive.read(name) == b"the only copy\n"
        assert all(not one.startswith("reliability_log") for one in archive.namelist())
        plain.get_by_label("Destroy them now").check()
        plain.get_by_label("To confirm, type turn off").fill("turn off")
        plain.get_by_role("button", name="Make the change").click()
        expect(plain.get_by_text("Data controls changed")).to_be_visible()
    page.goto("/receipts")
    page.get_by_role("row").filter(has_text="export").get_by_role("link").click()
    expect(page.get_by_role("heading", name="Receipt of an export")).to_be_visible()
    good(page)
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the receipt").click()
    receipt = verified(page, saved(download.value, tmp_path))
    assert isinstance(receipt, Stated)
    assert (receipt.statement["kind"], receipt.statement["complete"]) == ("exported", True)
    served.ask("POST", "/organization/data_controls", {"batch": "enabled"})


def test_what_is_final_works_without_javascript(browser: Browser, page: Page, served: Served, owner: Path) -> None:
    failing(served, page, "hello")
    project = served.ask("POST", "/organization/projects", {"name": "Short-lived"})["id"]
    served.ask("POST", f"/organization/projects/{project}/api_keys", {"name": "short-lived key"})
    served.ask("POST", "/organization/users", {"email": "gone@example.com", "role": "reader"})
    with opened(browser, served.url, storage_state=owner, java_script_enabled=False) as plain:
        for path, link, phrase, button in (
            ("/kept", "Delete…", "delete", "Delete for good"),
            ("/keys", "short-lived key", "revoke", "Revoke"),
            (f"/projects/{project}", "Archive", "archive", "Archive"),
            ("/members", "gone@example.com", "remove", "Remove"),
        ):
            plain.goto(path)
            plain.get_by_role("link", name=re.compile(re.escape(link))).last.click()
            plain.get_by_label(f"To confirm, type {phrase}").fill(phrase)
            plain.get_by_role("button", name=button).click()
            expect(plain.get_by_role("status")).to_be_visible()


def test_what_customers_type_is_text_on_every_page(
    browser: Browser, page: Page, served: Served, owner: Path, tmp_path: Path
) -> None:
    made = served.ask("POST", "/organizations", {"name": EVIL}, key="operator_key")
    path = tmp_path / "<img src=x onerror=alert(1)>.jsonl"
    path.write_text("{}\n")
    page.on("dialog", lambda _: pytest.fail("a script of a customer's ran"))
    uploaded(page, path)
    for where in ("/files", "/batches", "/captures", "/kept", "/audit?actor=%3Cimg%20src=x%3E&resource=%22%3E%3Cimg"):
        page.goto(where)
        assert page.locator("img[src=x], img:not([alt])").count() == 0, where
    with opened(browser, served.url, served.told["operator_key"]) as operator:
        operator.on("dialog", lambda _: pytest.fail("a script of a customer's ran"))
        for where in ("/platform", "/captures", "/cases", "/holds", "/holds/new", "/audit"):
            operator.goto(where)
            assert operator.locator("img[src=x]").count() == 0, where
            good(operator)
        operator.goto("/platform")
        expect(operator.get_by_role("rowheader").filter(has_text=EVIL)).to_be_visible()
    with opened(browser, served.url, made["admin_key"]) as theirs:
        theirs.goto("/")
        expect(theirs.get_by_text(EVIL).first).to_be_attached()
        assert theirs.locator("img[src=x]").count() == 0


def test_nothing_serious_on_pages_that_one_comes_to(page: Page, browser: Browser, served: Served, folder: Path) -> None:
    project = served.ask("GET", "/organization/projects")["data"][0]["id"]
    case = suspected(folder, served.told["organization_id"])
    asked = [f"/projects/{project}", f"/projects/{project}/archive", f"/controls?project={project}", f"/cases/{case}"]
    for where in [*asked, "/sign-in/again?next=/controls", "/nowhere", "/explain"]:
        page.goto(where)
        good(page)
    page.goto("/keys")
    page.get_by_label("Name of the admin key").fill("script")
    page.get_by_role("button", name="Create admin key").click()
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    good(page)
    page.goto("/members")
    page.get_by_label("E-mail address").fill("new@example.com")
    page.get_by_role("button", name="Invite", exact=True).click()
    where = page.locator("#new-key").inner_text()
    good(page)
    with opened(browser, served.url) as invited:
        invited.goto(where)
        good(invited)
        invited.get_by_label("Password").fill("a password that is long")
        invited.get_by_role("button", name="Join").click()
        expect(invited.get_by_role("heading", name="Overview")).to_be_visible()
        invited.goto("/members")
        expect(invited.get_by_role("heading", name="Your role does not allow this")).to_be_visible()
        good(invited)
    with opened(browser, served.url, served.told["operator_key"]) as operator:
        operator.goto(f"/cases/{case}?organization={served.told['organization_id']}")
        good(operator)
        operator.get_by_role("button", name="Confirm").click()
        expect(operator.get_by_text("The decision stands.")).to_be_visible()
        operator.get_by_role("button", name="Close").click()
        expect(operator.get_by_text("Closed", exact=True)).to_be_visible()


def suspected(folder: Path, organization_id: str) -> str:
    """A case as the watch over limits opens it."""
    values: dict[str, Any] = {"id": mint(Prefix.CASE), "organization_id": organization_id, "opened_at": 1}
    values |= {"state": CaseState.SUSPECTED, "signal": Signal.MANY_KEYS, "refusals": 7}
    db = Database(f"sqlite:///{folder}/data/keepless.sqlite")
    with db.write() as tx:
        tx.execute(abuse_case.insert().values(values | {"captured": 0, "captured_total": 0}))
    db.close()
    return str(values["id"])


def test_the_keyboard_alone_destroys_something(page: Page, served: Served) -> None:
    failing(served, page, "hello")
    page.goto("/kept")
    page.get_by_role("link", name="Delete…").first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Delete for good")).to_be_disabled()
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.name") == "confirm":
            break
    page.keyboard.type("delete")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Delete for good")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_text("Deleted. The key is destroyed")).to_be_visible()


def overslept(folder: Path, email: str, **times: int) -> None:
    """The clock has gone on: a member's sessions are as old as that."""
    db = Database(f"sqlite:///{folder}/data/keepless.sqlite")
    with db.write() as tx:
        whose = sa.select(member.c.id).where(member.c.email == email).scalar_subquery()
        assert tx.execute(session.update().where(session.c.member_id == whose).values(**times)).rowcount == 1
    db.close()


@pytest.mark.parametrize("times", [{"seen_at": 1}, {"ends_at": 1}], ids=["left alone", "too long"])
def test_a_session_whose_time_is_over_does_nothing_and_leads_back(
    browser: Browser, served: Served, folder: Path, times: dict[str, int]
) -> None:
    email, password = served.told["owner_email"], "correct horse battery"
    with opened(browser, served.url) as person:
        person.goto(link(folder, "members", "rescue"))
        person.get_by_label("New password").fill(password)
        person.get_by_role("main").get_by_role("button").first.click()
        expect(person.get_by_role("heading", name="Overview")).to_be_visible()
        person.goto("/projects")
        overslept(folder, email, **times)
        person.get_by_label("Name").fill("overslept")
        person.get_by_role("button", name="Create project").click()
        expect(person.get_by_text("Nothing was changed: you are not signed in")).to_be_visible()
        good(person)
        person.goto("/projects")
        expect(person).to_have_url(re.compile("/sign-in[?]next="))
        person.get_by_label("E-mail address").fill(email)
        person.get_by_label("Password").fill(password)
        person.get_by_role("button", name="Sign in", exact=True).click()
        expect(person).to_have_url(re.compile("/projects$"))
        expect(person.get_by_role("rowheader").filter(has_text="overslept")).to_have_count(0)
        person.get_by_label("Name").fill("awake")
        person.get_by_role("button", name="Create project").click()
        expect(person.get_by_role("status")).to_be_visible()
    named = [one["name"] for one in served.ask("GET", "/organization/projects?limit=100")["data"]]
    assert "overslept" not in named
    assert "awake" in named


def test_a_session_that_was_ended_elsewhere_changes_nothing(browser: Browser, served: Served, folder: Path) -> None:
    with opened(browser, served.url) as person:
        signed_in(person, link(folder, "members", "rescue"))
        expect(person.get_by_role("heading", name="Overview")).to_be_visible()
        person.goto("/projects")
        cookies = person.context.cookies()
        elsewhere = person.context.new_page()
        elsewhere.goto("/projects")
        elsewhere.get_by_role("button", name="Sign out everywhere").last.click()
        expect(elsewhere).to_have_url(re.compile("/sign-in"))
        person.context.add_cookies([{**one} for one in cookies])  # as a thief of the cookie has it
        person.get_by_label("Name").fill("too late")
        person.get_by_role("button", name="Create project").click()
        expect(person.get_by_text("Nothing was changed: you are not signed in")).to_be_visible()
        person.goto("/projects")
        expect(person).to_have_url(re.compile("/sign-in"))
    assert "too late" not in {one["name"] for one in served.ask("GET", "/organization/projects?limit=100")["data"]}
