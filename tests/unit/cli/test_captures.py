"""`keepless captures`: two people open one captured request."""

import pytest

from tests.support.platform import Platform
from tests.unit.admin.test_openings import captured
from tests.unit.cli.conftest import Terminal


def test_a_capture_is_opened_by_two_people(
    served: Platform, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture_id, whose = captured(served), ("--organization-id", served.organization_id)
    operator, owner = served.operator_key, served.owner_key
    monkeypatch.setenv("KEEPLESS_ADMIN_KEY", operator)
    code, out, _ = terminal.run("captures", "list", *whose)
    assert (code, capture_id in out, "MARKER" in out) == (0, True, False)
    asked = terminal.json(
        *("captures", "request", capture_id, *whose, "--reason", "reliability", "--reference", "ticket 12"),
        *("--minutes", "5"),
    )
    show = ("captures", "content", capture_id, *whose, "--open-request", asked["id"])
    assert terminal.json(*show, code=1)["status"] == 403
    assert terminal.json("captures", "approve", asked["id"], *whose, code=1)["status"] == 403
    monkeypatch.setenv("KEEPLESS_ADMIN_KEY", owner)
    code, out, _ = terminal.run("captures", "requests")
    assert (code, asked["id"] in out, "ticket 12" in out) == (0, True, True)
    code, out, _ = terminal.run("captures", "approve", asked["id"])
    assert (code, "approved" in out) == (0, True)
    monkeypatch.setenv("KEEPLESS_ADMIN_KEY", operator)
    assert terminal.run(*show)[:2] == (0, "MARKER question")
    assert terminal.json(*show)["open_request"]["accesses"] == 2
    assert terminal.json("captures", "end", asked["id"], *whose)["state"] == "ended"
    again = terminal.json("captures", "request", capture_id, *whose, "--reason", "abuse", "--reference", "ticket 13")
    monkeypatch.setenv("KEEPLESS_ADMIN_KEY", owner)
    assert terminal.json("captures", "refuse", again["id"])["state"] == "refused"
    assert terminal.json("captures", "delete", capture_id)["deleted"] is True
    assert terminal.json("captures", "list")["data"] == []
