"""`keepless transfers export`."""

from pathlib import Path

from keepless.governance.record import NAME
from tests.support.platform import Platform
from tests.unit.cli.conftest import Terminal


def test_the_register_is_exported(served: Platform, terminal: Terminal) -> None:
    told = terminal.json("transfers", "export")
    assert (told["object"], told["transfers"], told["undeclared"]) == ("transfers.register", [], [])
    assert told["location"]["writable"] is True
    assert told == served.json("GET", "/organization/transfers")


def test_it_is_written_as_a_document(served: Platform, terminal: Terminal, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    told = terminal.json("transfers", "export", "--out", str(folder))
    assert told["document"] == str(folder / NAME)
    assert "<h1>Record of locations and transfers</h1>" in (folder / NAME).read_text("utf-8")
    code, out, _ = terminal.run("transfers", "export", "--out", str(folder))
    assert (code, NAME in out) == (0, True)
    (tmp_path / "file").touch()
    assert terminal.run("transfers", "export", "--out", str(tmp_path / "file" / "x"))[0] == 1
