"""Files of proofs: whole, or not there."""

from pathlib import Path

import pytest

from keepless.cli.export import Folder
from keepless.cli.outcome import FindingError


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "a" / "b")
    folder.write("one.json", "first")
    assert folder.write("one.json", "second").read_text() == "second"
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["one.json"]


def test_a_disk_that_takes_nothing_leaves_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "MARKER")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(FindingError, match="cannot be written") as caught:
        folder.write("one.json", "x")
    assert "MARKER" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
