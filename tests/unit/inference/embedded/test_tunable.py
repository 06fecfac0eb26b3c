"""Which base models can be trained on, or take adapters: by what their file says of itself."""

import struct
from pathlib import Path

import pytest

from keepless.inference.embedded.engine import weights_of
from keepless.inference.embedded.tunable import can_import, can_train
from tests.support.engine import MODEL

GOOD = {
    "general.architecture": "llama",
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.chat_template": "x",
}


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def gguf(folder: Path, fields: dict[str, str]) -> str:
    body = b"".join(text(name) + struct.pack("<I", 8) + text(value) for name, value in fields.items())
    path = folder / "model.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(fields)) + body)
    return str(path)


def test_the_embedded_model_can_be_both() -> None:
    weights = weights_of(MODEL)[0]
    assert can_train(weights) and can_import(weights)


@pytest.mark.parametrize(
    ("changed", "trains", "imports"),
    [
        ({}, True, True),
        ({"general.architecture": "qwen2"}, False, False),
        ({"tokenizer.ggml.pre": "llama-bpe"}, False, True),
        ({"tokenizer.ggml.model": "llama"}, False, True),
    ],
    ids=["good", "architecture", "splitting", "tokenizer"],
)
def test_other_kinds(tmp_path: Path, changed: dict[str, str], trains: bool, imports: bool) -> None:
    weights = gguf(tmp_path, GOOD | changed)
    assert (can_train(weights), can_import(weights)) == (trains, imports)


def test_without_a_chat_template_there_is_nothing_to_train_towards(tmp_path: Path) -> None:
    del (fields := dict(GOOD))["tokenizer.chat_template"]
    assert not can_train(gguf(tmp_path, fields))


def test_what_is_no_such_file_and_what_is_not_here(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"not GGUF")
    assert not can_train(str(tmp_path / "other"))
    assert not can_import(str(tmp_path / "other"))
    assert can_train(str(tmp_path / "none"))  # whoever trains may have it
