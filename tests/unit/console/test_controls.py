"""Data Controls as pages: what is shown is what enforces; a change is reviewed, confirmed, followed."""

import re
from typing import Any

import pytest

from keepless.accounts.roles import Role
from keepless.clock import DAY_MS
from keepless.policy.data_class import DataClass
from keepless.policy.schedule import SCHEDULE
from keepless.vault.tables import kept
from tests.support.console import Console, text_of

REVIEW = "/controls/review"


def hidden(page: str) -> dict[str, str]:
    """The fields that a form sends on."""
    return dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', page))


def confirmed(here: Console, query: str, **more: str) -> str:
    """Review a change and make it; where that leads."""
    page = here.page(f"{REVIEW}?{query}")
    phrase = re.search(r'data-phrase="([^"]+)"', page)
    return here.done("/controls", {**hidden(page), "confirm": phrase[1] if phrase else "", **more})


def state(here: Console) -> Any:
    return here.platform.services.controls.state(here.platform.organization_id)


def test_the_schedule_shown_is_the_one_that_enforces(here: Console) -> None:
    text = text_of(here.page("/controls"))
    for row in SCHEDULE:
        assert row.why in text
        assert row.kept_for in text
        for name in row.classes:
            assert name.value.replace("_", " ").capitalize() in text


def test_zero_data_retention_with_a_purge(here: Console) -> None:
    for _ in range(3):
        here.platform.put()
    page = here.page(f"{REVIEW}?zero_data_retention=on")
    assert "3 captured requests lose their reason" in text_of(page)
    form = hidden(page)
    assert here.post("/controls", {**form, "acknowledge": "yes"}).status == 400
    assert here.post("/controls", {**form, "confirm": "keep nothing"}).status == 400
    assert not state(here)["zero_data_retention"]
    where = here.done("/controls", {**form, "confirm": "Keep Nothing ", "acknowledge": "yes"})
    assert where.startswith("/purges/purge_")
    assert state(here)["zero_data_retention"]
    assert "0 of 3" in text_of(here.page(where))
    assert 'hx-trigger="every 1s"' in here.page(where)
    here.platform.services.sweeper.sweep_once()
    page = here.page(where)
    assert "3 of 3" in text_of(page)
    assert "hx-trigger" not in page
    assert len(re.findall(r'href="/receipts/rcpt_', page)) == 3
    assert "hx-get" not in here.page(where.partition("?")[0] + "/progress")
    text = text_of(here.page("/controls"))
    assert "Zero Data Retention off → on" in text
    assert "Purge requested 3 objects" in text
    assert "Responsibility acknowledged" in text


def test_what_exists_of_a_feature_is_somebodys_choice(here: Console) -> None:
    here.platform.put(data_class=DataClass.BATCH_INPUT)
    page = here.page(f"{REVIEW}?batch=disabled")
    assert "What becomes of the 1 files" in text_of(page)
    form = {**hidden(page), "confirm": "turn off"}
    refused = here.post("/controls", form)
    assert refused.status == 400
    assert b"purge true destroys them" in refused.body
    assert here.done("/controls", {**form, "existing": "keep"}) == "/controls?done=changed"
    assert "1 objects" in text_of(here.page("/controls"))
    assert confirmed(here, "batch=enabled").endswith("done=changed")


def test_the_epoch_that_was_read_goes_along(here: Console) -> None:
    form = {**hidden(here.page(f"{REVIEW}?batch=disabled")), "confirm": "turn off"}
    confirmed(here, "fine_tuning=disabled")
    lost = here.post("/controls", form)
    assert lost.status == 412
    assert state(here)["features"]["batch"] == "enabled"


def test_periods_act_at_once_and_say_so(here: Console) -> None:
    here.platform.put()
    with here.platform.services.db.write() as tx:
        tx.execute(kept.update().values(created_at=kept.c.created_at - 3 * DAY_MS))
    page = here.page(f"{REVIEW}?days.reliability_log=2&days.abuse_log=")
    assert "30 days → 2 days" in text_of(page)
    assert "1 reliability log objects are older than the new period" in text_of(page)
    assert here.post("/controls", hidden(page)).status == 400, "what ends is confirmed by typing"
    confirmed(here, "days.reliability_log=2")
    assert state(here)["retention_days"]["reliability_log"] == 2
    assert "Period of reliability log 30 days → 2 days" in text_of(here.page("/controls/history"))
    assert here.get(f"{REVIEW}?days.reliability_log=2").headers["location"] == "/controls?done=same"
    assert here.get(f"{REVIEW}?days.reliability_log=31").status == 400
    assert here.get(f"{REVIEW}?days.reliability_log=0").status == 400


def test_loosening_needs_a_recent_sign_in(here: Console) -> None:
    confirmed(here, "batch=disabled")
    here.sign_in(Role.OWNER, recent=False)
    page = here.page(f"{REVIEW}?batch=enabled")
    assert "Sign in again" in page
    assert 'action="/controls"' not in page
    refused = here.post("/controls", {"batch": "enabled"})
    assert refused.status == 403
    assert b"within the last 5 minutes" in refused.body
    assert state(here)["features"]["batch"] == "disabled"


def test_a_project_can_only_be_tighter(here: Console) -> None:
    project = here.platform.project_id
    assert confirmed(here, f"batch=disabled&project={project}") == f"/controls?project={project}&done=changed"
    assert "Batch off" in text_of(here.page("/controls"))
    confirmed(here, "fine_tuning=disabled")
    assert "off in the organization" in text_of(here.page(f"/controls?project={project}"))
    assert here.get(f"{REVIEW}?fine_tuning=enabled&project={project}").status == 400
    other = here.platform.other()
    assert here.get(f"/controls?project={other['project_id']}").status == 404
    assert here.get(f"{REVIEW}?batch=disabled&project={other['project_id']}").status == 404


@pytest.mark.parametrize("role", [Role.DEVELOPER, Role.READER])
def test_who_may_not_change_sees_no_switch(here: Console, role: Role) -> None:
    here.sign_in(role)
    page = here.page("/controls")
    assert "review" not in page
    assert here.get(f"{REVIEW}?batch=disabled").status == 403
    assert here.post("/controls", {"batch": "disabled", "confirm": "turn off"}).status == 403
    assert state(here)["features"]["batch"] == "enabled"


def test_fields_of_no_control_are_not_sent_on(here: Console) -> None:
    page = here.page(f'{REVIEW}?batch=disabled&evil=%22%3E%3Cscript%3E&organization_id=org_x&batch.x="><script>')
    assert "evil" not in page
    assert "<script>" not in page.replace("<script src", "")
    assert set(hidden(page)) == {"batch", "epoch", "csrf"}
