"""Adapters (LoRA) as they are kept: a ZIP, stored, with `adapter_model.safetensors` and `adapter_config.json`.

Holds: `Base` (what an adapter must fit), `base_of`, the names in an adapter, `pack` and `unpack`. Leaves out: whether a
stranger's ZIP may become one of ours (tuning.adapter), the form that the engine takes (adapter_gguf), torch.

One form whoever made it, peft's own: 32-bit floats, one A and one B for each module, the configuration written anew.
"""

import io
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
from safetensors.numpy import load, save

from keepless.inference.embedded.gguf import Gguf, GgufError

__all__ = ["CONFIG", "MODULES", "RANKS", "WEIGHTS", "Adapter", "Array", "Base", "base_of", "key", "pack", "unpack"]

WEIGHTS: Final = "adapter_model.safetensors"
CONFIG: Final = "adapter_config.json"
RANKS: Final = (8, 16, 32, 64)
# peft's names of the modules that can be adapted, and llama.cpp's
MODULES: Final = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_KEY: Final = re.compile(
    r"base_model\.model\.model\.layers\.(0|[1-9][0-9]{0,3})\."
    rf"({'|'.join(map(re.escape, MODULES))})\.lora_([AB])\.weight"
)
_ARCHITECTURE: Final = "llama"
_LONG_AGO: Final = (1980, 1, 1, 0, 0, 0)  # the same adapter is the same ZIP

Array = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Base:
    """What an adapter must fit. `shapes`: outputs and inputs of each of `MODULES`."""

    layers: int
    heads: int
    kv_heads: int
    shapes: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter, unpacked."""

    r: int
    alpha: float
    tensors: Mapping[str, Array]


def base_of(gguf: Gguf) -> Base:
    """What a base model wants of its adapters. Raises `GgufError` when it is no llama, or none that can be adapted."""
    fields = gguf.fields
    try:
        if fields["general.architecture"] != _ARCHITECTURE:
            raise GgufError
        heads = fields["llama.attention.head_count"]
        layers = fields["llama.block_count"]
        shapes = {}
        for name, theirs in MODULES.items():
            outputs, inputs = gguf.tensors[f"blk.0.{theirs}.weight"].shape
            shapes[name] = (outputs, inputs)
        kv_heads = fields.get("llama.attention.head_count_kv", heads)
        width, rest = divmod(shapes["self_attn.q_proj"][0], heads)
        if rest or width % 2 or shapes["self_attn.k_proj"][0] != width * kv_heads or heads % kv_heads:
            raise GgufError
        found = Base(layers, heads, kv_heads, shapes)
        for layer in range(layers):
            for name, theirs in MODULES.items():
                if gguf.tensors[f"blk.{layer}.{theirs}.weight"].shape != shapes[name]:
                    raise GgufError
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        raise GgufError from None
    return found


def key(name: str) -> tuple[int, str, str] | None:
    """Layer, module and side (A or B) of a tensor's name; None when it is no adapter's."""
    match = _KEY.fullmatch(name)
    return (int(match[1]), match[2], match[3]) if match is not None else None


def pack(tensors: Mapping[str, Array], *, r: int, alpha: float, base: str) -> bytes:
    """The ZIP of an adapter. `base`: the id of its base model."""
    config = {
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": r,
        "target_modules": _targets(tensors),
        "task_type": "CAUSAL_LM",
    }
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(WEIGHTS, _LONG_AGO), save(dict(sorted(tensors.items())), {"format": "pt"}))
        archive.writestr(zipfile.ZipInfo(CONFIG, _LONG_AGO), msgspec.json.encode(config))
    return out.getvalue()


def unpack(data: bytes) -> Adapter:
    """An adapter that `pack` has made."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        config = msgspec.json.decode(archive.read(CONFIG))
        return Adapter(config["r"], config["lora_alpha"], load(archive.read(WEIGHTS)))


def _targets(names: Iterable[str]) -> list[str]:
    return sorted({found[1].split(".")[1] for name in names if (found := key(name)) is not None})
