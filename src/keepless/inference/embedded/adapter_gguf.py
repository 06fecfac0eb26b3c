"""An adapter as llama.cpp takes it: a GGUF file, made in memory (ggml's public specification, version 3).

Holds: `to_gguf`. Leaves out: where the bytes go (never to a disk), the kept form (adapter). Needs no torch.

llama.cpp keeps the rows of q and k in another order than peft does, since it turns neighbours where the original turns
halves: so the rows of their B, which make the output, are put into that order; A reads the input and stays as it is.
"""

from struct import Struct
from typing import Final

import numpy as np

from keepless.inference.embedded.adapter import MODULES, Array, Base, key, unpack
from keepless.inference.embedded.gguf import GgufError

__all__ = ["to_gguf"]

_ALIGNMENT: Final = 32
_F32: Final = 0  # ggml's number of the type
_U32: Final = Struct("<I")
_U64: Final = Struct("<Q")
_HEAD: Final = Struct("<4sIQQ")
_VERSION: Final = 3
_FLOAT: Final = 6
_STRING: Final = 8


def to_gguf(archive: bytes, base: Base) -> bytes:
    """The GGUF adapter out of an adapter's ZIP. Raises `GgufError` when it is not one of this base's."""
    adapter = unpack(archive)
    named = sorted((_name(name), _ordered(name, tensor, base)) for name, tensor in adapter.tensors.items())
    fields = [
        _text("general.architecture") + _U32.pack(_STRING) + _text("llama"),
        _text("general.type") + _U32.pack(_STRING) + _text("adapter"),
        _text("adapter.type") + _U32.pack(_STRING) + _text("lora"),
        _text("adapter.lora.alpha") + _U32.pack(_FLOAT) + Struct("<f").pack(adapter.alpha),
    ]
    out = bytearray(_HEAD.pack(b"GGUF", _VERSION, len(named), len(fields)) + b"".join(fields))
    offset = 0
    for name, tensor in named:
        out += _text(name) + _U32.pack(tensor.ndim) + b"".join(map(_U64.pack, tensor.shape[::-1]))
        out += _U32.pack(_F32) + _U64.pack(offset)
        offset += _padded(tensor.nbytes)
    out += bytes(_padded(len(out)) - len(out))
    for _, tensor in named:
        out += tensor.tobytes()
        out += bytes(_padded(tensor.nbytes) - tensor.nbytes)
    return bytes(out)


def _name(name: str) -> str:
    found = key(name)
    if found is None:
        raise GgufError
    layer, module, side = found
    return f"blk.{layer}.{MODULES[module]}.weight.lora_{side.lower()}"


def _ordered(name: str, tensor: Array, base: Base) -> Array:
    heads = {"self_attn.q_proj.lora_B": base.heads, "self_attn.k_proj.lora_B": base.kv_heads}
    count = next((heads[end] for end in heads if name.endswith(f"{end}.weight")), None)
    if count is not None:
        rows, columns = tensor.shape
        tensor = tensor.reshape(count, 2, rows // count // 2, columns).swapaxes(1, 2).reshape(rows, columns)
    return np.ascontiguousarray(tensor, np.float32)


def _text(text: str) -> bytes:
    data = text.encode()
    return _U64.pack(len(data)) + data


def _padded(length: int) -> int:
    return -(-length // _ALIGNMENT) * _ALIGNMENT
