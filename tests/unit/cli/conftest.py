"""The command line against a real server of ours in a thread, on a whole deployment."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from keepless.cli.main import main
from keepless.http import problems
from tests.support.http import running
from tests.support.platform import Platform, platform
from tests.support.sqlite import fresh


@dataclass
class Terminal:
    """Runs commands in this process and says what they said."""

    capture: pytest.CaptureFixture[str]

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, standard output, standard error."""
        self.capture.readouterr()
        code = main(list(arguments))
        said = self.capture.readouterr()
        return code, said.out, said.err

    def json(self, *arguments: str, code: int = 0) -> Any:
        """What a command says with `--json`: exactly one object on standard output."""
        found, out, err = self.run(*arguments, "--json")
        assert found == code, (out, err)
        assert out.count("\n") == 1
        value = json.loads(out)
        assert isinstance(value, dict)
        return value


@pytest.fixture
def terminal(capsys: pytest.CaptureFixture[str]) -> Terminal:
    """A terminal without a server."""
    return Terminal(capsys)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    """A platform behind a server; the environment names it and the owner's key."""
    db = fresh(tmp_path)
    with platform(db, tmp_path) as found, running(app=problems.Guard(found.app)) as server:
        monkeypatch.setenv("KEEPLESS_BASE_URL", f"http://127.0.0.1:{server.port}")
        monkeypatch.setenv("KEEPLESS_ADMIN_KEY", found.owner_key)
        yield found
    db.close()
