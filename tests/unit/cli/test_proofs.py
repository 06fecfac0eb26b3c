"""`keepless receipts`, `verify` and `explain`."""

from pathlib import Path

import pytest

from tests.support.platform import Platform
from tests.unit.admin.test_usage import record
from tests.unit.cli.conftest import Terminal


def exported(served: Platform, terminal: Terminal, out: Path, count: int = 2) -> list[Path]:
    for _ in range(count):
        served.json("DELETE", f"/organization/retained_objects/{served.put().id}")
    answer = terminal.json("receipts", "export", "--out", str(out))
    assert answer["receipts"] == count
    return sorted(out.glob("rcpt_*.json"))


def test_export_and_verify_offline(
    served: Platform, terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "proofs" / "here"
    files = exported(served, terminal, out)
    assert sorted(path.name for path in out.iterdir()) == sorted(["log.vkey", *(path.name for path in files)])
    code, shown, _ = terminal.run("receipts", "list")
    assert (code, files[0].stem in shown) == (0, True)
    monkeypatch.setenv("KEEPLESS_BASE_URL", "http://127.0.0.1:1")  # offline
    monkeypatch.delenv("KEEPLESS_ADMIN_KEY")
    answer = terminal.json("verify", str(out))
    assert (answer["ok"], answer["key_trusted"], len(answer["files"])) == (True, False, 2)
    code, _, err = terminal.run("verify", str(files[0]))
    assert (code, "key not authenticated" in err) == (0, True)
    trusted = terminal.json("verify", str(out), "--log-key", str(out / "log.vkey"))
    assert trusted["key_trusted"] is True
    assert {file["object_id"][:4] for file in trusted["files"]} == {"obj_"}


def test_a_changed_byte_is_found(served: Platform, terminal: Terminal, tmp_path: Path) -> None:
    files = exported(served, terminal, tmp_path / "out")
    data = files[0].read_bytes()
    files[0].write_bytes(data.replace(b'"cause":"customer"', b'"cause":"expired1"'))
    answer = terminal.json("verify", str(tmp_path / "out"), code=1)
    assert [file["ok"] for file in answer["files"]].count(False) == 1
    code, out, err = terminal.run("verify", str(tmp_path / "out"))
    assert (code, "not every receipt is valid" in err) == (1, True)
    assert files[0].name in out


@pytest.mark.parametrize("text", ["", "not a key\n", "a+b+c\n"])
def test_a_log_key_that_is_none(served: Platform, terminal: Terminal, tmp_path: Path, text: str) -> None:
    files = exported(served, terminal, tmp_path / "out", 1)
    wrong = tmp_path / "wrong.vkey"
    wrong.write_text(text)
    assert (
        "not a log's key" in terminal.json("verify", str(files[0]), "--log-key", str(wrong), code=1)["error"]["message"]
    )


def test_verify_of_nothing(terminal: Terminal, tmp_path: Path) -> None:
    assert terminal.json("verify", str(tmp_path), code=1)["ok"] is False
    assert terminal.json("verify", str(tmp_path / "missing"), code=2)["error"]
    assert terminal.json("verify", code=2)["error"]


def test_export_into_a_folder_that_cannot_be_made(served: Platform, terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    answer = terminal.json("receipts", "export", "--out", str(tmp_path / "file" / "below"), code=1)
    assert "cannot be made" in answer["error"]["message"]


def test_explain(served: Platform, terminal: Terminal) -> None:
    request_id = record(served)
    told = terminal.json("explain", request_id)
    assert (told["kept"], told["route"]) == (False, "embedded")
    code, out, _ = terminal.run("explain", request_id)
    assert (code, "Nothing was kept" in out, " UTC" in out) == (0, True, True)
    assert terminal.json("explain", "req_unknown", code=1)["status"] == 404
