"""`keepless audit`: the log out of the platform, and checked without it."""

import json
from pathlib import Path

import pytest

from tests.support.platform import Platform
from tests.unit.cli.conftest import Terminal


def test_export_and_verify_offline(
    served: Platform, terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.json("POST", "/organization/projects", {"name": "Lab"})
    served.json("DELETE", f"/organization/retained_objects/{served.put().id}")
    answer = terminal.json("audit", "export", "--out", str(tmp_path / "all"))
    assert answer["events"] == len(Path(answer["file"]).read_text().splitlines()) - 1 > 2
    some = terminal.json("audit", "export", "--out", str(tmp_path / "some"), "--type", "project.created")
    assert {json.loads(line)["event"]["type"] for line in Path(some["file"]).read_text().splitlines()[:-1]} == {
        "project.created"
    }
    monkeypatch.setenv("KEEPLESS_BASE_URL", "http://127.0.0.1:1")  # offline
    monkeypatch.delenv("KEEPLESS_ADMIN_KEY")
    checked = terminal.json("verify", str(tmp_path / "all"))
    (file,) = checked["files"]
    assert (checked["ok"], file["events"], file["organization_id"]) == (True, answer["events"], served.organization_id)
    code, out, _ = terminal.run("audit", "verify", answer["file"], "--log-key", answer["key"])
    assert (code, f"{answer['events']} events" in out) == (0, True)
    data = Path(answer["file"]).read_bytes()
    Path(answer["file"]).write_bytes(data.replace(b'"content.deleted"', b'"content.created"'))
    wrong = terminal.json("verify", str(tmp_path / "all"), code=1)
    assert wrong["files"][0]["finding"] == "an event is not what its entry in the log says"


def test_a_refusal_leaves_no_file(terminal: Terminal, served: Platform, tmp_path: Path) -> None:
    code, _, _ = terminal.run("audit", "export", "--out", str(tmp_path / "x"), "--organization-id", "org_other")
    assert code == 1
    assert list((tmp_path / "x").iterdir()) == []


def test_what_operators_typed_is_erased(served: Platform, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    user = served.json("POST", "/organization/users", {"email": "ada@example.com", "role": "reader"})["id"]
    (event,) = served.json("GET", f"/organization/audit_logs?resource_ids={user}")["data"]
    monkeypatch.setenv("KEEPLESS_ADMIN_KEY", served.operator_key)
    organization = ("--organization-id", served.organization_id)
    placed = terminal.json(
        *("holds", "place", *organization, "--reason", "litigation", "--authority", "court_order"),
        *("--reference", "docket 1", "--review-at", "2030-01-31"),
    )
    assert terminal.json("audit", "erase", placed["id"], *organization)["erased"] is True
    assert terminal.json("holds", "list", *organization)["data"][0]["reference"] is None
    assert terminal.run("holds", "list")[0] == 0
    assert terminal.json("audit", "erase", event["id"], *organization)["erased"] is True
    assert served.json("GET", f"/organization/audit_logs?resource_ids={user}")["data"] == []
    assert terminal.run("audit", "erase", "obj_x", *organization)[0] == 2
    assert terminal.run("audit", "erase", "audit_log-99999", *organization)[0] == 1
