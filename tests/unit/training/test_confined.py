"""A process that trains can read, and nothing else: seen through Python, and without it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from keepless.training import confined

ROOT = Path(__file__).parents[3]


def attempts(how: str, folder: Path) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-B", "-m", "tests.support.confined_process", how, str(folder)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return dict(line.split(": ") for line in done.stdout.splitlines())


@pytest.mark.parametrize("how", ["python", "kernel"])
def test_whatever_a_library_tries_nothing_is_written_called_or_started(how: str, tmp_path: Path) -> None:
    found = attempts(how, tmp_path)
    assert found.pop("read") == "there"  # reading goes on
    assert len(found) == 21
    assert {name for name, said in found.items() if said == "done"} == set()
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert (tmp_path / "there").read_text() == "there"
    assert not Path("/dev/shm/keepless-confined").exists()
    refused = {name for name, said in found.items() if said == "refused"}
    if how == "python":
        assert {"new", "old", "append", "folder", "rename", "connect", "run"} <= refused
    else:
        assert not refused


@pytest.mark.parametrize("path", ["/dev/nvidia0", "/dev/nvidiactl", "/dev/dri/renderD128", "/dev/kfd"])
def test_graphics_cards_are_devices_not_files(path: str) -> None:
    assert confined._device(path)
    confined._audit("open", (path, None, os.O_RDWR))


@pytest.mark.parametrize("path", ["/dev/null", "/dev/shm/x", "/dev/nvidia/../shm/x", "/tmp/dev/nvidia0", 3], ids=str)
def test_others_are_none(path: object) -> None:
    assert not confined._device(path)
    with pytest.raises(confined.ConfinedError):
        confined._audit("open", (path, None, os.O_RDWR))
