"""`keepless init`, `serve`, `worker` and `sweep`."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from keepless.cli import deployment, server
from keepless.clock import DAY_MS
from keepless.config import Settings
from keepless.log import redirect
from tests.unit.cli.conftest import Terminal

KEYS = (
    "organization_id",
    "project_id",
    "api_key",
    "admin_key",
    "operator_key",
    "owner_email",
    "owner_password",
    "sign_in_path",
)


def test_init_prints_the_keys_once_and_refuses_a_second_time(terminal: Terminal, tmp_path: Path) -> None:
    folder = ("--data-dir", str(tmp_path / "data"))
    made = terminal.json("init", *folder)
    assert tuple(made) == KEYS
    again = terminal.json("init", *folder, code=2)
    assert "has an organization already" in again["error"]["message"]
    assert made["api_key"] not in str(again)


def test_what_init_makes_is_for_its_user_alone(terminal: Terminal, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        terminal.json("init", "--data-dir", str(tmp_path / "data"))
    finally:
        os.umask(before)
    made = [tmp_path / "data", *(tmp_path / "data").rglob("*")]
    assert {path.name for path in made} >= {"keepless.sqlite", "log.key"}
    assert [path.name for path in made if path.stat().st_mode & 0o077] == []


def test_init_for_people(terminal: Terminal, tmp_path: Path) -> None:
    code, out, _ = terminal.run("init", "--data-dir", str(tmp_path / "data"))
    assert (code, "shown this once" in out, "sk-keepless-" in out) == (0, True, True)


def test_the_folder_may_come_from_the_environment(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEEPLESS_DATA_DIR", str(tmp_path / "there"))
    terminal.json("init")
    assert (tmp_path / "there" / "keyring").is_dir()


def test_a_wrong_setting_is_2_and_named(terminal: Terminal, tmp_path: Path) -> None:
    config = tmp_path / "keepless.toml"
    config.write_text("wrokers = 3\n")
    answer = terminal.json("init", "--data-dir", str(tmp_path / "data"), "--config", str(config), code=2)
    assert "setting" in answer["error"]["message"]
    assert not (tmp_path / "data").exists()


def test_sweep_reports_what_it_did(terminal: Terminal, tmp_path: Path) -> None:
    folder = ("--data-dir", str(tmp_path / "data"))
    terminal.json("init", *folder)
    answer = terminal.json("sweep", "--once", *folder)
    assert (answer["clean"], answer["destroyed"], answer["write_ahead_log_clean"]) == (True, 0, True)
    code, out, _ = terminal.run("sweep", "--once", *folder)
    assert (code, "keys destroyed" in out) == (0, True)
    assert "--once" in terminal.json("sweep", *folder, code=2)["error"]["message"]


def test_a_sweep_that_finds_something_wrong_is_1(terminal: Terminal, tmp_path: Path) -> None:
    from keepless.app.compose import open_deployment
    from keepless.config import load
    from keepless.ids import Prefix, mint
    from keepless.vault.states import KekKind, KekState
    from keepless.vault.tables import kek

    folder = ("--data-dir", str(tmp_path / "data"))
    terminal.json("init", *folder)
    opened = open_deployment(load(environ={}, data_dir=folder[1]))
    later = opened.clock.now_ms() // DAY_MS + 9
    row = {"id": mint(Prefix.KEK), "kind": KekKind.DAY, "location": "local", "state": KekState.ACTIVE}
    with opened.db.write() as tx:  # a KEK without its file: whatever it wrapped is lost
        tx.execute(kek.insert().values(**row, expiry_day=later, created_at=0, early_deletions=0))
    opened.close()
    answer = terminal.json("sweep", "--once", *folder, code=1)
    assert [finding["kind"] for finding in answer["findings"]] == ["key_missing"]


@pytest.mark.parametrize("as_json", [True, False])
def test_serve_says_where_and_passes_its_exit_code_on(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool
) -> None:
    given: list[Settings] = []

    def stand_in(settings: Settings, *, announce: Any, works: bool) -> int:
        given.append(settings)
        assert works is False
        announce({"url": "http://127.0.0.1:9", "api_key": "sk-1", "admin_key": "ak-1"})
        return 3

    monkeypatch.setattr(server, "serve", stand_in)
    arguments = ["serve", "--port", "9", "--workers", "4", "--no-worker", "--data-dir", str(tmp_path)]
    code, out, _ = terminal.run(*arguments, *(["--json"] if as_json else []))
    assert code == 3
    assert (given[0].port, given[0].workers, given[0].data_dir) == (9, 4, str(tmp_path))
    assert "sk-1" in out
    assert "http://127.0.0.1:9" in out


def test_a_fault_of_ours_says_nothing_of_its_text(
    terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> int:
        raise ValueError("MARKER")

    lines = io.StringIO()
    redirect(lines)
    monkeypatch.setattr(server, "serve", broken)
    code, out, err = terminal.run("serve", "--data-dir", str(tmp_path))
    assert code == 1
    assert "internal fault" in err
    assert "MARKER" not in out + err + lines.getvalue()
    assert '"command:run:failed"' in lines.getvalue()


def test_worker_runs_what_it_is_told(terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[Settings, list[str]]] = []

    def stand_in(settings: Settings, queues: list[str]) -> int:
        given.append((settings, queues))
        return 4

    monkeypatch.setattr(deployment, "run_jobs", stand_in)
    assert terminal.run("worker", "--queues", "batch", "--data-dir", str(tmp_path))[0] == 4
    assert (given[0][0].data_dir, given[0][1]) == (str(tmp_path), ["batch"])
    assert terminal.run("worker", "--queues", "fine_tuning, batch", "--data-dir", str(tmp_path))[0] == 4
    assert given.pop()[1] == ["batch", "fine_tuning"]
    code, _, error = terminal.run("worker", "--queues", "batch,other")
    assert (code, len(given)) == (2, 1)
    assert "one or more of batch" in error


# What a server does not need while it serves, and is megabytes each: the durable jobs and the migrations (processes of
# their own), what only the engines' processes use, other databases' drivers, the command line's other commands, what
# only servers with OpenID Connect use.
NOT_SERVING = {
    *(
        "dbos",
        "alembic",
        "mako",
        "pygments",
        "psycopg",
        "sqlalchemy.dialects.postgresql",
        "numpy",
        "av",
        "soundfile",
        "xllamacpp",
        "faster_whisper",
    ),
    *("tokenizers", "safetensors", "pytest", "sqlalchemy.orm", "keepless.jobs.durable", "keepless.app.migrate"),
    *("rich", "keepless.cli.main", "keepless.cli.output", "keepless.prover", "keepless.testing"),
    *("httpx2", "authlib", "joserfc", "cryptography.x509", "keepless.http.oidc"),
}
LOADED = "import sys; {}; print(*sys.modules)"


def loaded(program: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", LOADED.format(program)], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_process_that_serves_loads_nothing_that_serving_does_not_need() -> None:
    """All our imports stand at the top of modules: what is imported here is what `serve` has in memory."""
    found = loaded(
        "from keepless.cli.programs import Program, main_of; import keepless.__main__; main_of(Program.SERVER)"
    )
    assert "keepless.app.worker" in found
    assert not found & NOT_SERVING


def test_a_command_does_not_load_the_server_before_it_is_known_to_be_one() -> None:
    found = loaded("import keepless.__main__")
    assert "keepless.cli.serving" in found
    assert not found & (NOT_SERVING | {"keepless.app.worker", "sqlalchemy", "keepless.cli.server"})


@pytest.mark.parametrize("command", [("sweep", "--once"), ("worker",), ("members", "rescue"), ("doctor",)])
def test_a_folder_that_was_mistyped_is_not_made(terminal: Terminal, tmp_path: Path, command: tuple[str, ...]) -> None:
    code, _, err = terminal.run(*command, "--data-dir", str(tmp_path / "other"))
    assert code == 2
    assert "keepless: " in err
    assert list(tmp_path.iterdir()) == []
