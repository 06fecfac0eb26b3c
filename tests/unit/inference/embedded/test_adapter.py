"""The form in which adapters are kept."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from keepless.inference.embedded.adapter import CONFIG, MODULES, WEIGHTS, base_of, key, pack, unpack
from keepless.inference.embedded.engine import weights_of
from keepless.inference.embedded.gguf import GgufError, open_gguf
from tests.support.adapters import BASE
from tests.support.engine import MODEL
from tests.support.tiny_gguf import tiny

TENSORS = {
    f"base_model.model.model.layers.{layer}.self_attn.v_proj.lora_{side}.weight": np.ones(shape, np.float32) * layer
    for layer in range(2)
    for side, shape in (("A", (8, 16)), ("B", (8, 8)))
}


def test_what_is_packed_is_unpacked() -> None:
    data = pack(TENSORS, r=8, alpha=16, base="the-base")
    found = unpack(data)
    assert (found.r, found.alpha) == (8, 16)
    assert found.tensors.keys() == TENSORS.keys()
    assert all((found.tensors[name] == tensor).all() for name, tensor in TENSORS.items())
    assert pack(dict(reversed(TENSORS.items())), r=8, alpha=16, base="the-base") == data


def test_it_is_two_files_that_say_no_more_than_they_must() -> None:
    with zipfile.ZipFile(io.BytesIO(pack(TENSORS, r=8, alpha=16, base="the-base"))) as archive:
        assert [(one.filename, one.compress_type, one.date_time[0]) for one in archive.infolist()] == [
            (WEIGHTS, zipfile.ZIP_STORED, 1980),
            (CONFIG, zipfile.ZIP_STORED, 1980),
        ]
        config = json.loads(archive.read(CONFIG))
    assert config["base_model_name_or_path"] == "the-base"
    assert config["target_modules"] == ["v_proj"]


def test_names() -> None:
    assert key("base_model.model.model.layers.12.mlp.up_proj.lora_B.weight") == (12, "mlp.up_proj", "B")
    assert key("base_model.model.model.layers.12.mlp.up_proj.lora_C.weight") is None


def test_what_the_embedded_model_wants() -> None:
    base = base_of(open_gguf(weights_of(MODEL)[0]))
    assert (base.layers, base.heads, base.kv_heads) == (30, 9, 3)
    assert base.shapes["self_attn.k_proj"] == (192, 576)
    assert base.shapes["mlp.down_proj"] == (576, 1536)
    assert base.shapes.keys() == MODULES.keys() == BASE.shapes.keys()


@pytest.mark.parametrize(
    "changes",
    [
        {"general.architecture": "gemma"},
        {"llama.attention.head_count": 5},
        {"llama.attention.head_count_kv": 4},
        {"llama.attention.head_count": 0},
        {"llama.block_count": 9},
        {"llama.block_count": "2"},
    ],
    ids=str,
)
def test_a_model_that_does_not_hold_together(tmp_path: Path, changes: dict) -> None:
    base_of(open_gguf(tiny(tmp_path)))
    with pytest.raises(GgufError):
        base_of(open_gguf(tiny(tmp_path, **changes)))
