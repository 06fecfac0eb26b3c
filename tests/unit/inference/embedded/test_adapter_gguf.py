"""The GGUF form of an adapter, read back by the format's own library: the engine takes it in the same sense."""

import os
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from keepless.inference.embedded.adapter import pack
from keepless.inference.embedded.adapter_gguf import to_gguf
from keepless.inference.embedded.gguf import GgufError
from tests.support.adapters import BASE, tensors

FOUND = {
    name: np.frombuffer(data, "<f4").reshape(shape) for name, (_, shape, data) in tensors(BASE, r=8, seed=3).items()
}


@pytest.fixture
def read() -> GGUFReader:
    file = os.memfd_create("adapter")
    try:
        os.write(file, to_gguf(pack(FOUND, r=8, alpha=24, base="b"), BASE))
        yield GGUFReader(f"/proc/self/fd/{file}")
    finally:
        os.close(file)


def test_it_says_what_it_is(read: GGUFReader) -> None:
    said = {name: read.fields[name].contents() for name in ("general.type", "adapter.type", "adapter.lora.alpha")}
    assert said == {"general.type": "adapter", "adapter.type": "lora", "adapter.lora.alpha": 24.0}
    assert read.fields["general.architecture"].contents() == "llama"
    assert len(read.tensors) == len(FOUND)


def test_tensors_have_the_engine_s_names_and_the_same_numbers(read: GGUFReader) -> None:
    there = {tensor.name: tensor.data for tensor in read.tensors}
    for ours, theirs in (
        ("mlp.down_proj.lora_A", "ffn_down.weight.lora_a"),
        ("self_attn.q_proj.lora_A", "attn_q.weight.lora_a"),
        ("self_attn.v_proj.lora_B", "attn_v.weight.lora_b"),
    ):
        expected = FOUND[f"base_model.model.model.layers.1.{ours}.weight"]
        assert (there[f"blk.1.{theirs}"] == expected).all()


@pytest.mark.parametrize(("module", "name", "heads"), [("q_proj", "attn_q", 4), ("k_proj", "attn_k", 2)])
def test_rows_of_what_is_turned_stand_as_the_engine_turns_them(
    read: GGUFReader, module: str, name: str, heads: int
) -> None:
    there = {tensor.name: tensor.data for tensor in read.tensors}[f"blk.0.{name}.weight.lora_b"]
    ours = FOUND[f"base_model.model.model.layers.0.self_attn.{module}.lora_B.weight"]
    width = len(ours) // heads
    for head in range(heads):
        for pair in range(width // 2):  # neighbours there are the two halves here
            assert (there[head * width + 2 * pair] == ours[head * width + pair]).all()
            assert (there[head * width + 2 * pair + 1] == ours[head * width + width // 2 + pair]).all()


def test_names_that_are_none_of_ours(tmp_path: Path) -> None:
    with pytest.raises(GgufError):
        to_gguf(pack({"x": np.ones((2, 2), np.float32)}, r=8, alpha=16, base="b"), BASE)
