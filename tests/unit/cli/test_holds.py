"""`keepless holds` and `keepless cases`."""

import pytest

from tests.support.platform import Platform
from tests.unit.admin.test_cases import suspect
from tests.unit.cli.conftest import Terminal


@pytest.fixture
def operator(served: Platform, monkeypatch: pytest.MonkeyPatch) -> Platform:
    monkeypatch.setenv("KEEPLESS_ADMIN_KEY", served.operator_key)
    return served


def test_a_hold_from_placing_to_release(operator: Platform, terminal: Terminal) -> None:
    organization = ("--organization-id", operator.organization_id)
    placed = terminal.json(
        *("holds", "place", *organization, "--reason", "litigation", "--authority", "court_order"),
        *("--reference", "docket 1", "--review-at", "2030-01-31", "--class", "reliability_log"),
    )
    assert (placed["class"], placed["review_at"]) == ("reliability_log", 1_896_048_000)
    code, out, _ = terminal.run("holds", "list")
    assert (code, placed["id"] in out) == (0, True)
    assert terminal.json("holds", "release", placed["id"], *organization)["released_at"] is not None
    assert terminal.json("holds", "list", *organization)["data"] == []
    assert len(terminal.json("holds", "list", "--released")["data"]) == 1


def test_whose_a_hold_or_case_is_need_not_be_said(operator: Platform, terminal: Terminal) -> None:
    placed = terminal.json(
        *("holds", "place", "--organization-id", operator.organization_id, "--reason", "litigation"),
        *("--authority", "counsel", "--reference", "r", "--review-at", "+9"),
    )
    assert terminal.json("holds", "release", placed["id"])["released_at"] is not None
    assert "nothing open" in terminal.json("holds", "release", "hold_unknown", code=1)["error"]["message"]
    case_id = suspect(operator)
    assert terminal.json("cases", "confirm", case_id)["state"] == "confirmed"
    assert terminal.json("cases", "close", case_id)["closed_for"] == "resolved"


@pytest.mark.parametrize("when", ["+90", "2030-01-31T12:00:00Z"])
def test_review_dates(operator: Platform, terminal: Terminal, when: str) -> None:
    placed = terminal.json(
        *("holds", "place", "--organization", operator.organization_id, "--reason", "litigation"),
        *("--authority", "counsel", "--reference", "r", "--review-at", when),
    )
    assert placed["review_at"] > placed["placed_at"]


def test_a_date_that_is_none_is_wrong_usage(operator: Platform, terminal: Terminal) -> None:
    answer = terminal.json(
        *("holds", "place", "--organization", operator.organization_id, "--reason", "litigation"),
        *("--authority", "counsel", "--reference", "r", "--review-at", "soon"),
        code=2,
    )
    assert "a date such as" in answer["error"]["message"]


def test_a_case_from_suspicion_to_its_end(operator: Platform, terminal: Terminal) -> None:
    case_id, organization = suspect(operator), ("--organization-id", operator.organization_id)
    code, out, _ = terminal.run("cases", "list")
    assert (code, case_id in out, "suspected" in out) == (0, True, True)
    assert terminal.json("cases", "confirm", case_id, *organization)["state"] == "confirmed"
    extended = terminal.json("cases", "extend", case_id, *organization, "--hours", "3", "--reference", "goes on")
    assert extended["reference"] == "goes on"
    closed = terminal.json("cases", "close", case_id, *organization, "--reason", "false_alarm")
    assert closed["closed_for"] == "false_alarm"
    assert terminal.json("cases", "close", case_id, *organization, code=1)["status"] == 400
