"""Which program is behind an engine, and what it needs."""

import shutil
from pathlib import Path

import pytest

from keepless.config import DEFAULT_MODEL, Engine, ModelConfig
from keepless.inference.embedded import fleet
from keepless.inference.embedded.activated import ActivatedProcess
from keepless.inference.embedded.fleet import backend_of, is_missing, supervised
from keepless.inference.embedded.llama import LlamaBackend, LlamaProcess
from keepless.inference.embedded.socket_backend import SocketBackend

OTHERS = [Engine.WHISPER, Engine.FLITE, Engine.MINILM]


def test_llama_is_started_at_once_and_every_other_when_somebody_connects(tmp_path: Path) -> None:
    assert type(supervised(DEFAULT_MODEL, tmp_path / "run", name="a", content_limit=9)) is LlamaProcess
    assert type(backend_of(DEFAULT_MODEL, tmp_path / "a", "key")) is LlamaBackend
    for engine in OTHERS:
        model = ModelConfig(id="m", engine=engine)
        made = supervised(model, tmp_path / "run", name=engine.value, content_limit=9)
        assert type(made) is ActivatedProcess
        assert made.socket.exists()
        made.stop()
        assert type(backend_of(model, made.socket, made.key)) is SocketBackend


def test_what_is_not_on_this_machine_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not is_missing(DEFAULT_MODEL)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert is_missing(ModelConfig(id="m", engine=Engine.FLITE))
    assert not is_missing(ModelConfig(id="m", engine=Engine.WHISPER))
    monkeypatch.setattr(fleet, "find_spec", lambda name: None if name.endswith("part2") else object())
    assert is_missing(ModelConfig(id="m", engine=Engine.WHISPER))
    assert not is_missing(ModelConfig(id="m", engine=Engine.WHISPER, path="/own/weights"))
    assert not backend_of(ModelConfig(id="m", engine=Engine.WHISPER), tmp_path / "a", "key").healthy
