"""Files are gone when the folder says so durably, and not before."""

from pathlib import Path

import pytest

from keepless.ids import Prefix, mint
from keepless.vault.folder import fsync, remove


def test_what_is_there_is_removed_and_what_is_not_is_acknowledged(tmp_path: Path) -> None:
    there, missing, other = (mint(Prefix.BLOB) for _ in range(3))
    for name in (there, other):
        (tmp_path / name).write_bytes(b"x")
        fsync(tmp_path / name)
    assert remove(tmp_path, [there, missing]) == [there, missing]
    assert [path.name for path in tmp_path.iterdir()] == [other]
    assert remove(tmp_path / "none", [missing]) == [missing]


def test_what_cannot_be_removed_is_not_acknowledged(tmp_path: Path) -> None:
    stuck, free = mint(Prefix.BLOB), mint(Prefix.BLOB)
    (tmp_path / stuck).mkdir()
    (tmp_path / free).write_bytes(b"x")
    assert remove(tmp_path, [stuck, free]) == [free]
    assert remove(tmp_path / stuck / "..", [stuck]) == []
    (tmp_path / "file").write_bytes(b"x")
    assert remove(tmp_path / "file", [free]) == []


def test_what_is_not_durable_is_not_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = mint(Prefix.BLOB)
    (tmp_path / free).write_bytes(b"x")

    def fails(_: int) -> None:
        raise OSError

    monkeypatch.setattr("keepless.vault.folder.os.fsync", fails)
    assert remove(tmp_path, [free]) == []
