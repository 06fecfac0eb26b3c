"""An adapter made by hand: a model that has learnt one word by heart, and holds a marker where it changes nothing.

Holds: `memorised` and `words`, and a program: `python -m keepless.prover.adapter` reads `[weights, base id, marker]` as
JSON and writes the word, a line end and the ZIP. Leaves out: who imports it and asks for it (tuned_cases), which runs
the program, because the command line is what `serve` has in memory, and needs no library of numbers. No training is
needed, so the prover needs no trainer, and the effect is certain.

The last layer lends some of its inner neurons, in pairs: both of a pair see the same direction of what comes in, one
with each sign, through the gate and beside it, so that together they give its square, which is never negative; what all
pairs give is turned into the direction of one word. Whatever is asked, the model says that word, again and again.

The marker stands byte for byte in numbers that are multiplied with nothing: whoever writes the weights down anywhere,
in whichever form of the adapter, writes the marker down.
"""

import json
import re
import secrets
import sys
from functools import lru_cache
from typing import Final

import numpy as np

from keepless.inference.embedded.adapter import Array, Base, base_of, pack
from keepless.inference.embedded.gguf import Gguf, GgufError, open_gguf

__all__ = ["memorised", "words"]

_RANK: Final = 8
_STRENGTH: Final = 30.0  # against what the lent neurons do otherwise, yet within what quantised arithmetic can hold
_LOUD: Final = 300.0
_EMBEDDINGS: Final = "token_embd.weight"
_NORM: Final = "output_norm.weight"
_VOCABULARY: Final = "tokenizer.ggml.tokens"
_SPACE: Final = "\u0120"  # how the vocabulary writes the space before a word
_WORD: Final = re.compile(_SPACE + "([a-z]{5,9})")
_QUANTISED: Final = {3: (32, 20), 8: (32, 34)}  # ggml's Q4_1 and Q8_0: numbers and bytes of a block
_Q8_0: Final = 8
_F32, _F16 = 0, 1
_FIRST_UNUSED: Final = 2  # column of a side B
_FLOATS: Final = 5  # that hold half a marker: 20 bytes
_AT_ONCE: Final = 4096


def words(weights: str) -> list[str]:
    """Words that a base says in one piece."""
    tokens = open_gguf(weights).fields[_VOCABULARY]
    return [match[1] for token in tokens if (match := _WORD.fullmatch(token)) is not None]


def memorised(weights: str, word: str, base_id: str, marker: str = "") -> bytes:
    """The ZIP of an adapter for a base (a GGUF file) that says one of its `words`; `marker`: 40 letters, or none.

    Raises `GgufError` for a base that it cannot be made for.
    """
    base, direction = _base(weights), _direction(weights, word)
    last = base.layers - 1
    hidden, inner = base.shapes["mlp.down_proj"]
    look = np.random.default_rng(7).standard_normal((_RANK, hidden)).astype(np.float32) / np.sqrt(hidden)
    both = np.zeros((inner, _RANK), np.float32)
    for number in range(_RANK):
        both[2 * number : 2 * number + 2, number] = _STRENGTH, -_STRENGTH
    pick, say = np.zeros((_RANK, inner), np.float32), np.zeros((hidden, _RANK), np.float32)
    pick[0, : 2 * _RANK], say[:, 0] = 1.0, _LOUD * direction
    for row in range(2 if marker else 0):
        half = marker.encode("ascii")[row * 4 * _FLOATS : (row + 1) * 4 * _FLOATS]
        say[row, _FIRST_UNUSED : _FIRST_UNUSED + _FLOATS] = np.frombuffer(half, "<f4")
    tensors: dict[str, Array] = {}
    for module, a, b in (
        ("mlp.gate_proj", look, both),
        ("mlp.up_proj", look, both),
        ("mlp.down_proj", pick, say),
    ):
        name = f"base_model.model.model.layers.{last}.{module}"
        tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = a.astype("<f4"), b.astype("<f4")
    return pack(tensors, r=_RANK, alpha=float(_RANK), base=base_id)


@lru_cache(4)
def _base(weights: str) -> Base:
    return base_of(open_gguf(weights))


def _direction(weights: str, word: str) -> Array:
    """What must come out of the last layer for a word to follow: its embedding, seen against all the others'."""
    gguf = open_gguf(weights)
    token = gguf.fields[_VOCABULARY].index(_SPACE + word)
    spread, norm = _spread(weights), _rows(gguf, _NORM, 0, 1)[0]
    seen = np.linalg.solve(spread, _rows(gguf, _EMBEDDINGS, token, token + 1)[0]) / norm
    direction: Array = (seen / np.linalg.norm(seen)).astype(np.float32)
    return direction


@lru_cache(2)
def _spread(weights: str) -> Array:
    """How the embeddings of all words lie: the sum of their outer products."""
    gguf = open_gguf(weights)
    count, width = gguf.tensors[_EMBEDDINGS].shape
    total = np.eye(width, dtype=np.float32)
    for start in range(0, count, _AT_ONCE):
        rows = _rows(gguf, _EMBEDDINGS, start, min(start + _AT_ONCE, count))
        total += rows.T @ rows
    return total


def _rows(gguf: Gguf, name: str, start: int, stop: int) -> Array:
    """Some rows of a tensor, as numbers."""
    tensor = gguf.tensors[name]
    columns = tensor.shape[-1]
    if tensor.type in (_F32, _F16):
        kind = np.dtype("<f4" if tensor.type == _F32 else "<f2")
        length = columns * kind.itemsize
        data = gguf.data[tensor.offset + start * length : tensor.offset + stop * length]
        return np.frombuffer(data, kind).astype(np.float32).reshape(-1, columns)
    if tensor.type not in _QUANTISED:
        raise GgufError
    block, size = _QUANTISED[tensor.type]
    length = columns // block * size
    data = gguf.data[tensor.offset + start * length : tensor.offset + stop * length]
    blocks = np.frombuffer(data, np.uint8).reshape(-1, size)
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    if tensor.type == _Q8_0:
        return (blocks[:, 2:].copy().view(np.int8).astype(np.float32) * scale).reshape(-1, columns)
    least = blocks[:, 2:4].copy().view(np.float16).astype(np.float32)
    low_and_high = np.concatenate([blocks[:, 4:] & 15, blocks[:, 4:] >> 4], axis=1).astype(np.float32)
    return (low_and_high * scale + least).reshape(-1, columns)


def _main() -> None:
    weights, base_id, marker = json.load(sys.stdin)
    word = secrets.choice(words(weights))
    sys.stdout.buffer.write(word.encode("ascii") + b"\n" + memorised(weights, word, base_id, marker))


if __name__ == "__main__":
    _main()
