"""Who keeps the host of tuned models: nobody pays for one that nobody needs, and one that dies is there again."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from keepless.app import tuned_child
from keepless.app.tuned_child import TunedChild
from keepless.config import Settings, load
from keepless.db import Database
from keepless.ids import Prefix, mint
from keepless.log import Event
from keepless.tuning.tables import tuned_model
from tests.support.governed import eventually

PATIENCE_S = 90.0

# Takes what waits, as a host does, and ends as it is told; -1: it stays.
HOST = """
import json, socket, sys, time
assert sys.stdin.buffer.readline().strip().isdigit()
plan, code = json.load(sys.stdin.buffer), int(sys.argv[1])
if code < 0:
    time.sleep(600)
listening = socket.socket(fileno=plan["listening"])
listening.settimeout(60)
listening.accept()[0].close()
sys.exit(code)
"""


class Hosts:
    """In place of the real ones; how each ends, in their order; the last way goes on. None: it cannot be started."""

    def __init__(self, *codes: int | None) -> None:
        self.codes = list(codes)
        self.begun: list[subprocess.Popen[bytes]] = []
        self._popen = subprocess.Popen

    def __call__(self, arguments: list[str], **named: Any) -> "subprocess.Popen[bytes]":
        assert arguments == [sys.executable, "-m", "keepless.app.tuned_host"]  # nothing of the plan is an argument
        code = self.codes.pop(0) if len(self.codes) > 1 else self.codes[0]
        if code is None:
            raise BlockingIOError("no process is left")
        self.begun.append(self._popen([sys.executable, "-c", HOST, str(code)], **named))
        return self.begun[-1]


def settings(folder: Path, engine: str = 'engine = "llama"') -> Settings:
    (folder / "keepless.toml").write_text(f'[[models]]\nid = "m"\n{engine}\n')
    return load(folder / "keepless.toml", {}, data_dir=str(folder / "data"))


def ask(path: str) -> None:
    """As a worker does; whoever listens ends the connection."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(90)
        asking.connect(path)
        assert asking.recv(1) == b""


@pytest.fixture
def child(tmp_path: Path) -> Iterator[TunedChild]:
    chosen = settings(tmp_path)
    (tmp_path / "data").mkdir(mode=0o700)
    database = Database(chosen.database)
    database.create_all()
    database.close()
    made = TunedChild(chosen, tmp_path / "run", "t")
    yield made
    made.stop()
    made.stop()  # as often as anybody likes
    assert list((tmp_path / "run").iterdir()) == []


def test_where_no_model_can_be_tuned_there_is_nothing_to_ask(tmp_path: Path) -> None:
    elsewhere = 'engine = "openai"\nbase_url = "http://127.0.0.1:1/v1"'
    one = TunedChild(settings(tmp_path, elsewhere), tmp_path / "run", "t")
    assert one.start() is None
    one.stop()
    assert not (tmp_path / "run").exists()


def test_nobody_is_started_before_somebody_asks(child: TunedChild, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[bool] = []
    hosts = Hosts(0)
    monkeypatch.setattr(tuned_child.subprocess, "Popen", hosts)
    monkeypatch.setattr(tuned_child, "_ASK_S", 0.01)
    has_models = tuned_child._has_models
    monkeypatch.setattr(tuned_child, "_has_models", lambda db: looked.append(has_models(db)))
    at = child.start()
    assert at is not None
    assert (Path(at.socket).stat().st_mode & 0o777, Path(at.socket).parent.stat().st_mode & 0o777) == (0o600, 0o700)
    eventually(lambda: len(looked) > 3, PATIENCE_S)
    assert not any(looked) and hosts.begun == []
    ask(at.socket)
    eventually(lambda: hosts.begun[0].poll() == 0, PATIENCE_S)
    ask(at.socket)  # it had nothing to do any more, so it ended: another one comes
    assert len(hosts.begun) == 2


def test_with_the_first_model_it_is_started(child: TunedChild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = Hosts(-1)
    monkeypatch.setattr(tuned_child.subprocess, "Popen", hosts)
    monkeypatch.setattr(tuned_child, "_ASK_S", 0.01)
    child.start()
    database = Database(settings(tmp_path).database)
    ids = {name: mint(Prefix.TUNED_MODEL) for name in ("organization_id", "project_id", "job_id", "object_id")}
    with database.write() as tx:
        tx.execute(tuned_model.insert().values(hexadecimal="0" * 12, base_model="m", rank=8, created_at=1, **ids))
    database.close()
    eventually(lambda: hosts.begun, PATIENCE_S)
    child.stop()
    assert hosts.begun[0].returncode is not None  # it ends with who started it


def test_one_that_dies_is_told_and_replaced_and_who_asks_meanwhile_waits(
    child: TunedChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = Hosts(3, 3, -1)
    told: list[tuple[Event, dict[str, object]]] = []
    monkeypatch.setattr(tuned_child.log, "emit", lambda event, **values: told.append((event, values)))
    monkeypatch.setattr(tuned_child.subprocess, "Popen", hosts)
    at = child.start()
    assert at is not None
    ask(at.socket)
    ask(at.socket)
    eventually(lambda: len(hosts.begun) == 3, PATIENCE_S)
    child.stop()
    assert told == [(Event.ENGINE_DIED, {"code": 3})] * 2


def test_a_database_that_is_away_is_asked_again(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/none.sqlite")
    assert tuned_child._has_models(database) is False
    database.create_all()
    with database.read() as tx:
        assert tx.execute(sa.select(tuned_model)).all() == []
    database.close()


def test_a_machine_that_can_start_none_at_the_moment_is_asked_again(
    child: TunedChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts = Hosts(None, None, 0)
    monkeypatch.setattr(tuned_child.subprocess, "Popen", hosts)
    at = child.start()
    assert at is not None
    ask(at.socket)
    assert len(hosts.begun) == 1
