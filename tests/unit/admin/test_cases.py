"""Abuse cases over HTTP: operators decide, owners see."""

from keepless.ids import Id, Prefix, mint
from keepless.incidents.states import CaseState, Signal
from keepless.incidents.tables import abuse_case, abuse_case_key
from tests.support.platform import Platform

CASES = "/organization/abuse_cases"


def suspect(here: Platform) -> Id:
    case_id = mint(Prefix.CASE)
    values = {"id": case_id, "organization_id": here.organization_id, "state": CaseState.SUSPECTED}
    counts = {"signal": Signal.MANY_KEYS, "refusals": 9, "captured": 0, "captured_total": 0}
    with here.rig.database.write() as tx:
        tx.execute(abuse_case.insert().values(**values, **counts, opened_at=here.rig.clock.now_ms()))
        tx.execute(abuse_case_key.insert().values(case_id=case_id, key_id=mint(Prefix.API_KEY)))
    return case_id


def test_a_case_from_suspicion_to_its_end(anywhere: Platform) -> None:
    case_id = suspect(anywhere)
    who = {"organization_id": anywhere.organization_id}
    seen = anywhere.json("GET", f"{CASES}/{case_id}")
    assert (seen["state"], seen["signal"], seen["capture_until"], len(seen["key_ids"])) == (
        "suspected",
        "many_keys",
        None,
        1,
    )
    extension = {**who, "hours": 5, "reference": "still going on"}
    assert anywhere.error("POST", f"{CASES}/{case_id}/extend", extension, key="operator") == (400, "invalid_value")
    now = anywhere.rig.clock.now_ms() // 1000
    confirmed = anywhere.json("POST", f"{CASES}/{case_id}/confirm", who, key="operator")
    assert (confirmed["state"], confirmed["capture_until"]) == ("confirmed", now + 72 * 3600)
    extended = anywhere.json("POST", f"{CASES}/{case_id}/extend", extension, key="operator")
    assert (extended["capture_until"], extended["reference"]) == (now + 5 * 3600, "still going on")
    assert [case["id"] for case in anywhere.json("GET", CASES, key="operator")["data"]] == [case_id]
    closing = {**who, "reason": "false_alarm"}
    closed = anywhere.json("POST", f"{CASES}/{case_id}/close", closing, key="operator")
    assert (closed["state"], closed["closed_for"]) == ("closed", "false_alarm")
    assert anywhere.json("GET", CASES)["data"] == []
    assert len(anywhere.json("GET", f"{CASES}?include_closed=true")["data"]) == 1


def test_bad_decisions(here: Platform) -> None:
    case_id = suspect(here)
    who = {"organization_id": here.organization_id}
    for wrong in ({"hours": 73, "reference": "x"}, {"hours": 1, "reference": ""}, {"hours": 1}):
        assert here.error("POST", f"{CASES}/{case_id}/extend", {**who, **wrong}, key="operator")[0] == 400
    assert here.error("POST", f"{CASES}/{mint(Prefix.CASE)}/confirm", who, key="operator") == (404, "not_found")
    foreign = {"organization_id": here.other()["id"]}
    assert here.error("POST", f"{CASES}/{case_id}/confirm", foreign, key="operator") == (404, "not_found")
    assert here.json("GET", f"{CASES}/{case_id}")["state"] == "suspected"
