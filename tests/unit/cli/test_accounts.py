"""`keepless organizations|projects|keys|members`."""

import io
from pathlib import Path

import pytest

from tests.support.platform import Platform
from tests.unit.cli.conftest import Terminal


def test_organizations(served: Platform, terminal: Terminal) -> None:
    operator = ("--admin-key", served.operator_key)
    made = terminal.json("organizations", "create", "Acme", "--region", "us", *operator)
    assert made["admin_key"].startswith("ak-keepless-")
    code, out, _ = terminal.run("organizations", "list", *operator)
    assert (code, made["id"] in out, made["admin_key"] in out) == (0, True, False)
    assert terminal.json("organizations", "revoke", made["id"], *operator)["deleted"] is True
    assert terminal.json("organizations", "list", code=1)["error"]["code"] == "insufficient_permissions"


def test_what_is_created_takes_its_name_either_way(served: Platform, terminal: Terminal) -> None:
    assert terminal.json("projects", "create", "--name", "One")["name"] == "One"
    operator = ("--admin-key", served.operator_key)
    assert terminal.json("organizations", "create", "--name", "Two", *operator)["name"] == "Two"
    assert terminal.json("keys", "create", "three", "--project", served.project_id)["name"] == "three"
    assert terminal.json("keys", "create", "--project", served.project_id)["name"] == "key"
    assert (
        terminal.json("members", "invite", "--email", "b@example.com", "--role", "reader")["email"] == "b@example.com"
    )
    assert "Missing argument" in terminal.json("projects", "create", code=2)["error"]["message"]
    assert "once" in terminal.json("projects", "create", "One", "--name", "One", code=2)["error"]["message"]


def test_projects(served: Platform, terminal: Terminal) -> None:
    made = terminal.json("projects", "create", "Research")
    assert {p["name"] for p in terminal.json("projects", "list")["data"]} == {"Default", "Research"}
    assert terminal.json("projects", "revoke", made["id"])["status"] == "archived"
    assert len(terminal.json("projects", "list")["data"]) == 1
    assert len(terminal.json("projects", "list", "--archived")["data"]) == 2


def test_api_keys(served: Platform, terminal: Terminal) -> None:
    code, out, _ = terminal.run("keys", "create", "--name", "ci")
    assert code == 0
    assert "sk-keepless-" in out
    made = terminal.json("keys", "create", "--name", "two")
    listed = terminal.json("keys", "list")["data"]
    assert {key["name"] for key in listed} == {"Default", "ci", "two"}
    assert {key["project_id"] for key in listed} == {served.project_id}
    assert terminal.json("keys", "revoke", made["id"])["deleted"] is True
    assert terminal.json("keys", "revoke", "key_unknown", code=1)["error"]
    terminal.json("projects", "create", "Second")
    assert "give --project" in terminal.json("keys", "create", code=2)["error"]["message"]
    assert terminal.json("keys", "create", "--project", served.project_id)["value"]


def test_admin_keys(served: Platform, terminal: Terminal) -> None:
    made = terminal.json("keys", "create", "--admin", "--role", "reader", "--name", "audit")
    assert made["owner"]["role"] == "reader"
    assert {key["name"] for key in terminal.json("keys", "list", "--admin")["data"]} == {"Default", "audit"}
    assert terminal.json("keys", "revoke", made["id"])["object"] == "organization.admin_api_key.deleted"
    assert terminal.json("keys", "create", "--role", "reader", code=2)["error"]


def test_members(served: Platform, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("correct horse battery\n"))
    made = terminal.json("members", "create", "a@example.com", "--role", "reader", "--password-stdin")
    assert made["email"] == "a@example.com"
    code, out, _ = terminal.run("members", "list")
    assert (code, "a@example.com" in out) == (0, True)
    assert terminal.json("members", "revoke", made["id"])["deleted"] is True


def test_lists_longer_than_a_page_are_complete(
    served: Platform, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keepless.cli.client._PAGE", 2)
    for number in range(4):
        served.json("POST", f"/organization/projects/{served.project_id}/api_keys", {"name": f"k{number}"})
    listed = sorted(key["name"] for key in terminal.json("keys", "list")["data"])
    assert listed == ["Default", "k0", "k1", "k2", "k3"]


def test_inviting_roles_and_links(served: Platform, terminal: Terminal) -> None:
    invited = terminal.json("members", "invite", "b@example.com", "--role", "auditor")
    assert invited["sign_in_path"].startswith("/sign-in/invite?token=")
    owner = terminal.json("members", "list")["data"][0]["id"]
    assert terminal.json("members", "link", owner)["sign_in_path"].startswith("/sign-in/link?token=")
    assert terminal.json("members", "role", owner, "reader", code=1)["error"]["code"] == "invalid_value"


def test_a_locked_out_owner_is_let_in_on_the_machine_itself(terminal: Terminal, tmp_path: Path) -> None:
    folder = ("--data-dir", str(tmp_path / "data"))
    made = terminal.json("init", *folder)
    told = terminal.json("members", "rescue", *folder)
    assert told["email"] == made["owner_email"] and "/sign-in/link?token=" in told["sign_in_path"]
    assert (
        "address"
        in terminal.json("members", "rescue", "--email", "nobody@example.com", *folder, code=1)["error"]["message"]
    )
