"""A llama of toy size as a GGUF file, with the tokenizer and template of the embedded one in small."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import pre_tokenizers

from keepless.inference.embedded.adapter import MODULES

TEMPLATE = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
WIDTH, INNER, LAYERS, HEADS, KV_HEADS = 32, 48, 2, 4, 2
HEAD = WIDTH // HEADS
SHAPES = {
    "attn_q": (WIDTH, WIDTH),
    "attn_k": (KV_HEADS * HEAD, WIDTH),
    "attn_v": (KV_HEADS * HEAD, WIDTH),
    "attn_output": (WIDTH, WIDTH),
    "ffn_gate": (INNER, WIDTH),
    "ffn_up": (INNER, WIDTH),
    "ffn_down": (WIDTH, INNER),
}
assert set(SHAPES) == set(MODULES.values())


def words() -> list[str]:
    return [
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        *sorted(pre_tokenizers.ByteLevel.alphabet()),
        "Ġt",
        "he",
        "Ġthe",
    ]


def fields(**changes: Any) -> dict[str, Any]:
    tokens = words()
    return {
        "general.architecture": "llama",
        "llama.block_count": LAYERS,
        "llama.context_length": 512,
        "llama.embedding_length": WIDTH,
        "llama.feed_forward_length": INNER,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.rope.freq_base": 10000.0,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3, 3, 3] + [1] * (len(tokens) - 3),
        "tokenizer.ggml.merges": ["Ġ t", "h e", "Ġt he"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": TEMPLATE,
    } | changes


def tensors(seed: int = 0) -> dict[str, np.ndarray]:
    numbers = np.random.default_rng(seed)
    found = {
        "token_embd.weight": numbers.normal(0, 0.5, (len(words()), WIDTH)),
        "output_norm.weight": np.ones(WIDTH),
    }
    for layer in range(LAYERS):
        for name, shape in SHAPES.items():
            found[f"blk.{layer}.{name}.weight"] = numbers.normal(0, shape[1] ** -0.5, shape)
        for name in ("attn_norm", "ffn_norm"):
            found[f"blk.{layer}.{name}.weight"] = np.ones(WIDTH)
    return {name: tensor.astype("<f4") for name, tensor in found.items()}


def gguf_bytes(said: dict[str, Any], numbers: dict[str, np.ndarray]) -> bytes:
    out = struct.pack("<4sIQQ", b"GGUF", 3, len(numbers), len(said))
    for name, value in said.items():
        out += _text(name) + _value(value)
    at = 0
    for name, tensor in numbers.items():
        shape = tensor.shape[::-1]
        out += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, at)
        at += -(-tensor.nbytes // 32) * 32
    out += bytes(-len(out) % 32)
    return out + b"".join(tensor.tobytes() + bytes(-tensor.nbytes % 32) for tensor in numbers.values())


def tiny(folder: Path, **changes: Any) -> str:
    """The path of a toy model in a folder."""
    path = folder / "tiny.gguf"
    path.write_bytes(gguf_bytes(fields(**changes), tensors()))
    return str(path)


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def _value(value: Any) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    kind = 8 if isinstance(value[0], str) else 5
    items = b"".join(_text(item) if kind == 8 else struct.pack("<i", item) for item in value)
    return struct.pack("<IIQ", 9, kind, len(value)) + items
