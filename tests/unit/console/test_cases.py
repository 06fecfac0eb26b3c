"""Abuse cases as pages: owners see theirs, operators decide."""

from typing import Any

from keepless.accounts.roles import Role
from keepless.ids import Id, Prefix, mint
from keepless.incidents.states import CaseState, Signal
from keepless.incidents.tables import abuse_case, abuse_case_key
from tests.support.console import Console, text_of


def suspected(here: Console) -> Id:
    case_id = mint(Prefix.CASE)
    values: dict[str, Any] = {
        "id": case_id,
        "organization_id": here.platform.organization_id,
        "state": CaseState.SUSPECTED,
        "signal": Signal.MANY_KEYS,
        "refusals": 7,
        "opened_at": here.platform.rig.clock.now_ms(),
        "captured_total": 0,
        "captured": 0,
    }
    with here.platform.services.db.write() as tx:
        tx.execute(abuse_case.insert().values(values))
        tx.execute(abuse_case_key.insert().values(case_id=case_id, key_id=mint(Prefix.API_KEY)))
    return case_id


def test_an_operator_decides_and_the_owner_sees_it(here: Console) -> None:
    assert "No case is open" in here.page("/cases")
    case_id, whose = suspected(here), {"organization": here.platform.organization_id}
    page = here.page(f"/cases/{case_id}")
    assert "nothing is captured" in text_of(page) and "/confirm" not in page
    assert case_id in here.page("/cases")
    for act in ("confirm", "extend", "close"):
        assert here.post(f"/cases/{case_id}/{act}", whose).status == 403
    here.sign_in(Role.OPERATOR)
    assert case_id in here.page("/cases")
    assert here.get(f"/cases/{case_id}").status == 404, "an operator says whose it is"
    assert "/confirm" in here.page(f"/cases/{case_id}?organization={whose['organization']}")
    assert here.post(f"/cases/{case_id}/extend", {**whose, "hours": "5", "reference": "x"}).status == 400
    here.done(f"/cases/{case_id}/confirm", whose)
    for wrong in ({"hours": "73"}, {"hours": ""}, {"reference": ""}):
        assert here.post(f"/cases/{case_id}/extend", {**whose, "hours": "5", "reference": "x", **wrong}).status == 400
    here.done(f"/cases/{case_id}/extend", {**whose, "hours": "5", "reference": "<b>still going on</b>"})
    page = here.page(f"/cases/{case_id}?organization={whose['organization']}")
    assert "<b>still" not in page and "still going on" in page
    assert here.post(f"/cases/{case_id}/close", {**whose, "reason": "lapsed"}).status == 400
    here.done(f"/cases/{case_id}/close", {**whose, "reason": "false_alarm"})
    here.sign_in(Role.OWNER)
    assert "false alarm" in text_of(here.page(f"/cases/{case_id}"))
    assert "No case is open" in here.page("/cases")
    assert case_id in here.page("/cases?show=all")
    told = text_of(here.page("/audit"))
    for kind in ("abuse_case.confirmed", "abuse_case.extended", "abuse_case.closed"):
        assert kind in told


def test_another_organizations_case_is_not_there(here: Console) -> None:
    case_id, other = suspected(here), here.platform.other()["id"]
    here.sign_in(Role.OPERATOR)
    assert here.get(f"/cases/{case_id}?organization={other}").status == 404
    assert here.post(f"/cases/{case_id}/confirm", {"organization": other}).status == 404
    assert case_id not in here.page(f"/cases?organization={other}")
