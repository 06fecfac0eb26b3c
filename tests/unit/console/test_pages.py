"""Usage, audit log, location, files and batches as pages."""

import io
import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.accounts.roles import Role
from keepless.batches.store import create
from keepless.batches.values import BatchEndpoint, NewBatch
from keepless.clock import DAY_MS
from keepless.ids import Id, Prefix, mint
from keepless.receipts.stated import verify_entry
from keepless.receipts.tables import log_entry, log_head, log_node
from keepless.receipts.verify_audit import AuditVerified, verify_audit
from keepless.usage.ledger import Ledger
from keepless.usage.overview import By, overview
from keepless.usage.record import Endpoint, Outcome, Record, Route
from tests.support.asgi import Answer, call
from tests.support.console import TOKEN, Console, text_of


def used(here: Console, count: int, **values: Any) -> None:
    ledger = Ledger(here.platform.services.db)
    ledger.start()
    for at in range(count):
        known: dict[str, Any] = {
            "request_id": mint(Prefix.REQUEST),
            "at_ms": here.platform.rig.clock.now_ms(),
            "organization_id": here.platform.organization_id,
            "project_id": here.platform.project_id,
            "endpoint": Endpoint.CHAT,
            "model": Id("smollm2"),
            "status": 200,
            "prompt_tokens": 5,
            "completion_tokens": 7,
            "latency_us": 1000 * (at + 1),
            "epoch": 1,
            "outcome": Outcome.ON_ERROR,
            "route": Route.EMBEDDED,
        }
        ledger.add(Record(**{**known, **values}))
    ledger.close()


def test_usage(here: Console) -> None:
    assert "No request in this span" in here.page("/usage")
    used(here, 100)
    used(here, 10, status=503, model=Id("other"), prompt_tokens=0, completion_tokens=0)
    page = text_of(here.page("/usage?by=model"))
    for told in ("Requests 110", "Errors 10", "9.09 %", "Tokens in 500", "Tokens out 700", "smollm2 100 0 500 700"):
        assert told in page, told
    assert "Default" in text_of(here.page("/usage?by=project&days=7"))
    assert here.get("/usage?by=mood").status == 400
    table = here.get("/usage/table?by=model")
    lines = table.body.decode().splitlines()
    assert lines[0].startswith("day,model,model_name,requests")
    assert len(lines) == 3
    other = here.platform.other()
    found = overview(here.platform.services.db, Id(other["id"]), 0, 2**52, By.MODEL)
    assert found.total.requests == 0
    assert found.latency is None


def test_percentiles_are_of_requests_that_were(here: Console) -> None:
    used(here, 100)
    now = here.platform.rig.clock.now_ms()
    found = overview(here.platform.services.db, here.platform.organization_id, now - DAY_MS, now + 1, By.ENDPOINT)
    assert found.latency is not None
    assert (found.latency.p50, found.latency.p95, found.latency.p99) == (51_000, 96_000, 100_000)
    assert list(found.latencies) == ["chat.completions"]


def test_percentiles_are_of_every_request_and_of_any_length(here: Console) -> None:
    latencies = (0, 7, 99, 100, 12_345, 999_999, 1_000_000, 123_456_789, 98_765_432_109)
    for latency in latencies:
        used(here, 1, latency_us=latency)
    used(here, 1, latency_us=12_300, model=Id("other"))
    now = here.platform.rig.clock.now_ms()
    found = overview(here.platform.services.db, here.platform.organization_id, now - DAY_MS, now + 1, By.MODEL)
    assert found.latency is not None and found.latency.of == len(latencies) + 1
    for told in (found.latency.p50, found.latency.p95, found.latency.p99):
        assert any(told <= latency <= told * 1.1 + 1 or told == 10_000_000_000 for latency in latencies), told
    assert found.latencies["other"].p99 == 12_000


def test_a_name_is_no_formula_in_the_table(here: Console) -> None:
    owner = here.who[0]
    assert owner is not None
    here.platform.services.organizations.rename_project(
        owner.principal, here.platform.organization_id, here.platform.project_id, name="=HYPERLINK(1)"
    )
    used(here, 1)
    assert b",'=HYPERLINK(1)," in here.get("/usage/table?by=project").body


def test_the_audit_log(here: Console) -> None:
    here.done("/projects", {"name": "Second"})
    page = here.page("/audit")
    assert "Project created" in text_of(page)
    assert "Project created" not in text_of(here.page("/audit?type=api_key.deleted"))
    for wrong in ("type=everything", "project=x", "from=yesterday", "before=x"):
        assert here.get(f"/audit?{wrong}").status in (400, 404), wrong
    export = here.get("/audit/export")
    key = here.platform.services.log.key
    verified = verify_audit(io.BytesIO(export.body), key)
    assert isinstance(verified, AuditVerified), verified
    assert filtered(here, "")[0] == "project.created"
    assert "organization.created" in filtered(here, "")


def filtered(here: Console, query: str) -> list[str]:
    lines = here.get(f"/audit/export?{query}").body.splitlines()[:-1]  # the last one says how many there were
    return [json.loads(line)["event"]["type"] for line in lines]


def test_every_filter_of_the_audit_log(here: Console) -> None:
    here.done("/projects", {"name": "Second"})
    everything = filtered(here, "")
    created = json.loads(here.get("/audit/export").body.splitlines()[0])["statement"]
    assert filtered(here, "type=project.created").count("project.created") == len(
        filtered(here, "type=project.created")
    )
    assert filtered(here, "actor=user_x") == ["project.created"]
    assert filtered(here, "actor=nobody@example.com") == []
    assert filtered(here, f"project={created['project_id']}") == ["project.created"]
    assert filtered(here, f"resource={created['project_id']}") == ["project.created"]
    today = datetime.fromtimestamp(here.platform.rig.clock.now_ms() / 1000, UTC).strftime("%Y-%m-%d")
    assert filtered(here, f"from={today}&to={today}") == everything
    assert filtered(here, "to=1999-01-01") == []
    page = here.page(f"/audit?actor=user_x&from={today}")
    assert 'value="user_x"' in page and f"/audit/export?actor=user_x&amp;from={today}" in page


def test_each_line_is_proved_and_a_changed_one_is_shown(here: Console) -> None:
    here.done("/projects", {"name": "Second"})
    log, db = here.platform.services.log, here.platform.services.db
    page = here.page("/audit")
    assert "in the log" in page and "not proved" not in page
    paths = re.findall(r'href="(/audit/(\d+)/proof)"', page)
    file = here.get(paths[0][0])
    stated = verify_entry(file.body, log.key)
    assert stated is not None and stated.index == int(paths[0][1])
    with db.write() as tx:  # an operator with the database but not the tree
        tx.execute(log_entry.update().where(log_entry.c.idx == stated.index).values(body=b'{"v":1}'))
    assert here.page("/audit").count("not proved") == 1
    with db.write() as tx:
        log.erase(tx, [stated.index])
    page = here.page("/audit")
    assert "text erased" in page and "not proved" not in page
    assert here.get(paths[0][0]).status == 404
    for nobodys in ("999999", "x", "1" * 30, "-1"):
        assert here.get(f"/audit/{nobodys}/proof").status == 404
    with db.write() as tx:
        tx.execute(log_node.update().values(hash=bytes(32)))
        tx.execute(log_head.update().values(frontier=bytes(32) * stated_size(tx).bit_count()))
    assert "does not continue what was signed before" in here.page("/audit")


def stated_size(tx: Connection) -> int:
    return int(tx.execute(sa.select(log_head.c.size)).scalar_one())


def test_operators_read_the_log_of_an_organization_that_they_name(here: Console) -> None:
    here.sign_in(Role.OPERATOR)
    assert "Choose an organization" in here.page("/audit")
    page = here.page(f"/audit?organization={here.platform.organization_id}")
    assert "organization.created" in page
    assert f"/proof?organization={here.platform.organization_id}" in page
    assert here.get("/audit/export").status == 404


def test_location(shared: Console) -> None:
    here = shared
    here.sign_in(Role.OWNER)
    page = here.page("/location")
    assert "Storage" in page and "No transfer is declared." in page
    told = json.loads(here.get("/location/record").body)
    assert set(told) == {"object", "location", "pinned_to", "models", "transfers", "undeclared"}
    document = here.get("/location/document")
    assert document.headers["content-disposition"].startswith("attachment")
    assert b"<h1>Record of locations and transfers</h1>" in document.body


def send(here: Console, body: bytes, name: str, **headers: str) -> Answer:
    known = {
        "host": "here",
        "origin": "http://here",
        "x-csrf-token": TOKEN,
        "x-file-name": name,
        "x-file-purpose": "batch",
        "x-file-project": str(here.platform.project_id),
        "accept": "application/json",
    }
    changed = {key.replace("_", "-"): value for key, value in headers.items()}
    return call(here.app, "POST", "/files/upload", {**known, **changed}, body)


def test_a_file(here: Console) -> None:
    assert "No file is kept" in here.page("/files")
    answer = send(here, b"line\n" * 500_000, "%3Cscript%3E%22.jsonl")
    assert answer.status == 200 or answer.status == 413, answer.body
    answer = send(here, b"line\n", "%3Cscript%3E%22.jsonl")
    assert answer.status == 200, answer.body
    file_id = json.loads(answer.body)["id"]
    page = here.page("/files")
    assert "&lt;script&gt;" in page
    assert "<script>&#34;" not in page
    content = here.get(f"/files/{file_id}/content")
    assert content.body == b"line\n"
    assert content.headers["content-disposition"].startswith("attachment")
    assert "sandbox" in content.headers["content-security-policy"]
    here.sign_in(Role.READER)
    assert file_id in here.page("/files")
    assert here.get(f"/files/{file_id}/content").status == 403
    assert here.post(f"/files/{file_id}/delete", {"confirm": "delete"}).status == 403
    assert send(here, b"x", "name").status == 403
    here.sign_in(Role.DEVELOPER)
    assert here.post(f"/files/{file_id}/delete").status == 400
    where = here.done(f"/files/{file_id}/delete", {"confirm": "delete"})
    here.sign_in(Role.OWNER)
    assert "customer" in text_of(here.page(where))
    assert here.get(f"/files/{file_id}/content").status == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x_csrf_token": ""}, 403),
        ({"origin": "http://elsewhere"}, 403),
        ({"x_file_name": ""}, 400),
        ({"x_file_name": "n" * 901}, 400),
        ({"x_file_purpose": "vision"}, 400),
        ({"x_file_project": "proj_aaaaaaaaaaaaaaaaaaaaaaaa"}, 404),
    ],
)
def test_an_upload_that_is_refused_keeps_nothing(shared: Console, headers: dict[str, str], status: int) -> None:
    here = shared
    here.sign_in(Role.OWNER)
    assert send(here, b"x", "name", **headers).status == status
    here.sign_in(None)
    assert send(here, b"x", "name").status == 401
    here.sign_in(Role.OWNER)
    assert "No file is kept" in here.page("/files")
    assert "Nothing is kept" in here.page("/kept")


def test_a_feature_that_is_off_says_so(here: Console) -> None:
    here.done("/controls", {"batch": "disabled", "fine_tuning": "disabled", "confirm": "turn off"})
    assert send(here, b"x", "name").status == 403
    here.sign_in(Role.DEVELOPER)
    assert "The feature is off" in text_of(here.page("/files"))


def test_batches(here: Console) -> None:
    assert "No batch" in text_of(here.page("/batches"))
    new = NewBatch(
        organization_id=here.platform.organization_id,
        project_id=here.platform.project_id,
        key_id=mint(Prefix.API_KEY),
        endpoint=BatchEndpoint.CHAT,
        input_file_id=mint(Prefix.FILE),
        window_ms=DAY_MS,
    )
    with here.platform.services.db.write() as tx:
        batch, _ = create(tx, new, here.platform.rig.clock.now_ms())
    page = here.page("/batches")
    assert batch.id in page
    assert 'hx-trigger="every 2s"' in page
    assert "<html" not in here.page(f"/batches/part?project={here.platform.project_id}")
    form = {"project": here.platform.project_id, "confirm": "cancel"}
    assert here.done(f"/batches/{batch.id}/cancel", form).endswith("batch_cancelled")
    assert "cancelling" in text_of(here.page("/batches"))
    other = here.platform.other()
    assert here.get(f"/batches?project={other['project_id']}").status == 404
    here.sign_in(Role.READER)
    assert "Cancel" not in here.page("/batches")


def test_a_batch_is_begun_from_the_page(here: Console) -> None:
    assert "No input file" in text_of(here.page("/batches"))
    file_id = json.loads(send(here, b"{}\n", "%3Cb%3Elines%3C%2Fb%3E.jsonl").body)["id"]
    tuned = json.loads(send(here, b"{}\n", "set.jsonl", x_file_purpose="fine-tune").body)["id"]
    page = here.page("/batches")
    assert file_id in page and tuned not in page and "<b>lines" not in page
    form = {"project": here.platform.project_id, "file": file_id, "endpoint": "/v1/chat/completions", "days": "2"}
    wrongs = ({"endpoint": ""}, {"endpoint": "/v1/else"}, {"days": "8"}, {"file": ""}, {"file": tuned}, {"file": "x"})
    for wrong in wrongs:
        assert here.post("/batches", {**form, **wrong}).status in (400, 404), wrong
    here.sign_in(Role.READER)
    assert here.post("/batches", form).status == 403
    assert "Begin a batch" not in here.page("/batches")
    here.sign_in(Role.DEVELOPER)
    assert here.done("/batches", form).endswith("batch_created")
    ((batch, _),) = here.services.batches.listing(here.platform.project_id, limit=10)
    assert (batch.input_file_id, batch.key_id, batch.window_ms) == (file_id, "user_x", 2 * DAY_MS)
    here.sign_in(Role.OWNER)
    here.done("/controls", {"batch": "disabled", "existing": "keep", "confirm": "turn off"})
    assert "The feature is off" in text_of(here.page("/batches"))
    assert here.post("/batches", form).status == 403
