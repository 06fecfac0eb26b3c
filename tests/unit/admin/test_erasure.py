"""Erasing: what operators typed, and entries about persons; every proof made before and after stays valid."""

import io
import json
from typing import Any

import pytest

from keepless.receipts.verify_audit import AuditVerified, verify_audit
from tests.support.platform import Platform

HOLD = {"reason": "litigation", "authority": "court_order", "reference": "docket 7", "review_at": 1_900_000_000}
LOGS = "/organization/audit_logs"


def export(here: Platform) -> bytes:
    return here.ask("GET", f"{LOGS}/export").body


def valid(here: Platform, data: bytes) -> AuditVerified:
    found = verify_audit(io.BytesIO(data), here.rig.log.key)
    assert isinstance(found, AuditVerified), found
    return found


def erase(here: Platform, path: str) -> Any:
    return here.json("DELETE", f"/organization/{path}?organization_id={here.organization_id}", key="operator")


def test_references_are_erased_and_what_they_belong_to_stays(anywhere: Platform) -> None:
    here = anywhere
    object_id = here.put().id
    whose = {"organization_id": here.organization_id}
    hold = here.json("POST", "/organization/legal_holds", {**HOLD, **whose, "object_id": object_id}, key="operator")
    asked = {"reason": "abuse", "reference": "ticket 12"}
    opening = here.json("POST", f"/organization/captures/{object_id}/open_requests", asked)
    before = export(here)
    assert erase(here, f"legal_holds/{hold['id']}/reference")["erased"] is True
    assert erase(here, f"open_requests/{opening['id']}/reference")["id"] == opening["id"]
    shown = here.json("GET", f"/organization/legal_holds/{hold['id']}")
    assert (shown["reference"], shown["objects"]) == (None, 1)
    assert here.json("GET", f"/organization/open_requests/{opening['id']}")["reference"] is None
    assert here.error("DELETE", f"/organization/retained_objects/{object_id}") == (423, "object_held")
    erase(here, f"legal_holds/{hold['id']}/reference")  # again: nothing more
    after = export(here)
    assert valid(here, before).events + 3 == valid(here, after).events  # two erasures, one refusal
    assert b"docket" not in before + after
    types = [event["type"] for event in here.json("GET", f"{LOGS}?event_types=reference.erased")["data"]]
    assert types == ["reference.erased"] * 2
    with here.services.db.read() as tx:
        stored = json.dumps([list(map(str, row)) for row in tx.exec_driver_sql("SELECT * FROM legal_hold")])
    assert "docket" not in stored


def test_what_an_entry_said_about_a_person_is_erased_and_stands_in_the_log(anywhere: Platform) -> None:
    here = anywhere
    user = here.json("POST", "/organization/users", {"email": "ada@example.com", "role": "reader"})["id"]
    (event,) = here.json("GET", f"{LOGS}?event_types=user.added&resource_ids={user}")["data"]
    before = export(here)
    assert erase(here, f"audit_logs/{event['id']}")["erased"] is True
    assert here.json("GET", f"{LOGS}?resource_ids={user}")["data"] == []
    (shown,) = [one for one in here.json("GET", f"{LOGS}?limit=100")["data"] if one["id"] == event["id"]]
    assert (shown["type"], shown["actor"], shown["user.added"]["data"]) == ("user.added", None, {})
    assert user.encode() not in export(here)
    assert (valid(here, before).erased, valid(here, export(here)).erased) == (0, 1)
    newest = here.json("GET", f"{LOGS}?event_types=audit_log.erased")["data"]
    assert newest[0]["audit_log.erased"]["data"]["entry"] == event["log_index"]
    erase(here, f"audit_logs/{event['id']}")
    assert len(here.json("GET", f"{LOGS}?event_types=audit_log.erased")["data"]) == 1


def test_what_was_done_stays_readable(here: Platform) -> None:
    here.json("DELETE", f"/organization/retained_objects/{here.put().id}")
    query = f"?organization_id={here.organization_id}"
    for kind in ("organization.created", "content.captured", "content.deleted"):
        (event,) = here.json("GET", f"{LOGS}?event_types={kind}")["data"]
        refused = here.error("DELETE", f"{LOGS}/{event['id']}{query}", key="operator")
        assert refused == (400, "invalid_value")


@pytest.mark.parametrize("id_", ["audit_log-999999", "audit_log-", "audit_log--1", "MARKER", "audit_log-1e3"])
def test_what_is_no_entry_is_404(here: Platform, id_: str) -> None:
    query = f"?organization_id={here.organization_id}"
    assert here.error("DELETE", f"{LOGS}/{id_}{query}", key="operator") == (404, "not_found")


def test_entries_of_somebody_else_are_404(here: Platform) -> None:
    here.json("POST", "/organization/users", {"email": "ada@example.com", "role": "reader"})
    (event,) = here.json("GET", f"{LOGS}?event_types=user.added&limit=1")["data"]
    query = f"?organization_id={here.other()['id']}"
    assert here.error("DELETE", f"{LOGS}/{event['id']}{query}", key="operator") == (404, "not_found")
