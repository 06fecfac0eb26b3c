"""Exit codes, help, and the one JSON object of every refusal."""

import json
import subprocess
import sys

import click
import pytest

from keepless.cli.main import cli
from tests.unit.cli.conftest import Terminal


def leaves(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every command below a group."""
    found: list[tuple[str, ...]] = []
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None and command.name == name
        found += leaves(command, (*path, name)) if isinstance(command, click.Group) else [(*path, name)]
    return found


COMMANDS = leaves(cli)


def test_the_commands_of_the_contract_are_there() -> None:
    expected = {("init",), ("serve",), ("sweep",), ("doctor",), ("verify",), ("explain",), ("receipts", "export")}
    expected |= {("controls", verb) for verb in ("show", "set", "preview")}
    expected |= {(noun, verb) for noun in ("organizations", "projects", "keys", "members") for verb in ("create",)}
    expected |= {(noun, verb) for noun in ("organizations", "projects", "keys", "members") for verb in ("list",)}
    expected |= {(noun, verb) for noun in ("organizations", "projects", "keys", "members") for verb in ("revoke",)}
    expected |= {("holds", verb) for verb in ("place", "list", "release")}
    expected |= {("cases", verb) for verb in ("list", "confirm", "extend", "close")}
    assert expected <= set(COMMANDS)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_help_json_and_says_what_it_does(terminal: Terminal, path: tuple[str, ...]) -> None:
    code, out, _ = terminal.run(*path, "--help")
    assert code == 0
    assert "--json" in out
    assert "." in out.partition("Options:")[0]


@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"], ["controls", "set", "--nonsense"], ["verify"]])
def test_wrong_usage_is_2(terminal: Terminal, arguments: list[str]) -> None:
    code, out, err = terminal.run(*arguments)
    assert (code, out) == (2, "")
    assert "Usage:" in err


@pytest.mark.parametrize("arguments", [[], ["keys"]])
def test_no_command_shows_the_commands_there_are(terminal: Terminal, arguments: list[str]) -> None:
    code, out, err = terminal.run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("Usage: keepless")
    assert err.endswith("keepless: a command is missing\n")


def test_no_admin_key_is_wrong_usage(terminal: Terminal) -> None:
    answer = terminal.json("controls", "show", "--base-url", "http://127.0.0.1:1", code=2)
    assert "KEEPLESS_ADMIN_KEY" in answer["error"]["message"]


def test_an_unreachable_server_is_1(terminal: Terminal) -> None:
    where = ("--base-url", "http://127.0.0.1:1", "--admin-key", "ak-keepless-x")
    answer = terminal.json("controls", "show", *where, code=1)
    assert "cannot be reached" in answer["error"]["message"]
    assert "ak-keepless-x" not in json.dumps(answer)


def test_a_command_that_asks_a_server_loads_no_other() -> None:
    """`keepless controls show` answers in a fifth of a second: it needs no database, and neither prover nor server."""
    heavy = {"sqlalchemy", "keepless.cli.prove", "keepless.cli.accounts", "keepless.cli.server", "keepless.app.compose"}
    code = f"import sys; from keepless.cli.main import main; main(); print(*sorted({heavy} & set(sys.modules)))"
    for command, loads in (("controls", set[str]()), ("files", set()), ("prove", {"sqlalchemy", "keepless.cli.prove"})):
        asked = [sys.executable, "-c", code, command, "--help"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=90, check=True)
        assert set(done.stdout.splitlines()[-1].split()) == loads


def test_as_a_module() -> None:
    command = [sys.executable, "-m", "keepless", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.startswith("keepless")) == (0, True), done.stderr


def test_a_command_leaves_no_core_dump() -> None:
    """It may hold keys (a sweep) or a customer's texts (files, batches); 3 asks whether a process can be dumped."""
    code = (
        "import ctypes, sys; from keepless.cli.main import main; sys.argv = ['keepless', '--help']; main();"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=90, check=True)
    assert done.stdout.splitlines()[-1] == "0"
