"""How a command ends, whatever goes wrong in it."""

import io
import json

import pytest

from keepless.cli.outcome import FINDING, OK, USAGE, FindingError, ended
from keepless.errors import Code, ConfigError, Problem
from keepless.log import redirect


def test_a_finding_without_an_answer_is_its_message() -> None:
    assert FindingError("no").answer == {"error": {"message": "no"}}


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (FindingError("not clean", {"clean": False}), FINDING, {"clean": False}),
        (ConfigError("port is taken"), USAGE, {"error": {"message": "port is taken"}}),
        (Problem(404, Code.NOT_FOUND, "Gone."), FINDING, {"error": {"message": "Gone.", "code": Code.NOT_FOUND}}),
    ],
    ids=["finding", "configuration", "problem"],
)
def test_an_error_is_one_object_for_scripts_and_a_line_for_people(
    capsys: pytest.CaptureFixture[str], error: Exception, code: int, says: object
) -> None:
    def work() -> int:
        raise error

    assert ended(work, as_json=True) == code
    said = capsys.readouterr()
    assert json.loads(said.out) == says
    assert said.err.startswith("keepless: ")
    assert ended(work, as_json=False) == code
    assert "keepless: " in capsys.readouterr().err


def test_a_fault_of_ours_is_logged_without_its_text(capsys: pytest.CaptureFixture[str]) -> None:
    lines = io.StringIO()
    redirect(lines)

    def work() -> int:
        raise ValueError("MARKER")

    assert ended(work, as_json=False) == FINDING
    said = capsys.readouterr()
    assert "MARKER" not in said.out + said.err + lines.getvalue()
    assert "internal fault" in said.err


def test_all_is_well() -> None:
    assert ended(lambda: OK, as_json=True) == OK
    assert ended(lambda: 7, as_json=True) == 7  # a server's own exit code
