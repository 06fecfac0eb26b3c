"""Adapters as strangers bring them: peft's two files in a ZIP, right or wrong in any way."""

import io
import json
import struct
import zipfile
from typing import Any

import numpy as np

from keepless.inference.embedded.adapter import CONFIG, MODULES, WEIGHTS, Base

BASE = Base(
    layers=2,
    heads=4,
    kv_heads=2,
    shapes={
        "self_attn.q_proj": (16, 16),
        "self_attn.k_proj": (8, 16),
        "self_attn.v_proj": (8, 16),
        "self_attn.o_proj": (16, 16),
        "mlp.gate_proj": (24, 16),
        "mlp.up_proj": (24, 16),
        "mlp.down_proj": (16, 24),
    },
)
# What peft 0.21.2 writes beside an adapter.
PEFT = {
    "alora_invocation_tokens": None,
    "alpha_pattern": {},
    "arrow_config": None,
    "auto_mapping": None,
    "base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "bias": "none",
    "corda_config": None,
    "ensure_weight_tying": False,
    "eva_config": None,
    "exclude_modules": None,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_alpha": 16,
    "lora_bias": False,
    "lora_dropout": 0.05,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "peft_type": "LORA",
    "peft_version": "0.21.2",
    "qalora_group_size": 16,
    "r": 8,
    "rank_pattern": {},
    "revision": None,
    "target_modules": ["q_proj", "k_proj"],
    "target_parameters": None,
    "task_type": "CAUSAL_LM",
    "trainable_token_indices": None,
    "use_dora": False,
    "use_qalora": False,
    "use_rslora": False,
}

Tensors = dict[str, tuple[str, list[int], bytes]]


def tensors(base: Base = BASE, r: int = 8, dtype: str = "F32", seed: int = 0) -> Tensors:
    """Random numbers under the right names: type, shape, bytes."""
    numbers = np.random.default_rng(seed)
    found: Tensors = {}
    for layer in range(base.layers):
        for module in MODULES:
            outputs, inputs = base.shapes[module]
            for side, shape in (("A", (r, inputs)), ("B", (outputs, r))):
                values = numbers.normal(0, 0.05, shape).astype("<f4")
                name = f"base_model.model.model.layers.{layer}.{module}.lora_{side}.weight"
                found[name] = (dtype, list(shape), encoded(values, dtype))
    return found


def encoded(values: Any, dtype: str) -> bytes:
    if dtype == "BF16":
        return bytes((values.view(np.uint32) >> 16).astype("<u2").tobytes())
    return bytes(values.astype({"F32": "<f4", "F16": "<f2", "F64": "<f8", "I32": "<i4"}[dtype]).tobytes())


def safetensors(found: Tensors, **metadata: str) -> bytes:
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at, body = 0, b""
    for name, (dtype, shape, data) in found.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at, body = at + len(data), body + data
    return with_header(header, body)


def with_header(header: Any, body: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def adapter_zip(found: Tensors | bytes | None = None, compression: int = zipfile.ZIP_DEFLATED, **config: Any) -> bytes:
    """A ZIP that is right but for what is said."""
    weights = found if isinstance(found, bytes) else safetensors(tensors() if found is None else found)
    return zipped({WEIGHTS: weights, CONFIG: json.dumps(PEFT | config).encode()}, compression)
