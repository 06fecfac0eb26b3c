"""What the command line shows."""

import json

import pytest

from keepless.cli.output import Screen, when


def test_json_is_one_line_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    Screen(json=True).fields({"a": 1}, "Title", {"b": 2})
    assert json.loads(capsys.readouterr().out) == {"a": 1}


def test_values_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    values = {"none": None, "yes": True, "list": ["a", "b"], "empty": [], "map": {"x": 1}, "[red]markup": "[bold]x"}
    Screen(json=False).fields({}, "[i]Title", values)
    out = capsys.readouterr().out
    for shown in ("[i]Title", "[red]markup", "[bold]x", "a, b", "x 1", "yes"):
        assert shown in out


def test_a_pipe_is_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 120
    Screen(json=False).rows({}, "Things", ("id", "other"), [(long, long)])
    assert capsys.readouterr().out.count(long) == 2


def test_nothing_to_list(capsys: pytest.CaptureFixture[str]) -> None:
    Screen(json=False).rows({}, "Things", ("id",), [])
    assert capsys.readouterr().out == "Things: none\n"


def test_progress_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with Screen(json=True).progress("working") as advance:
        advance(1)
        advance(2, 3)
    assert capsys.readouterr().out == ""


def test_instants() -> None:
    assert when(0) == "1970-01-01 00:00:00 UTC"
    assert when(None, "-") == "-"
