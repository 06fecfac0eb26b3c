"""The base model in torch, out of the GGUF file that the engine itself answers from: the same weights, rounded alike.

Holds: `base_model`. Leaves out: adapters and training (loop), the tokenizer (tokens). No cache is made of it.
Only what can be said in one plain configuration is taken: a llama without scaled positions or biases.
"""

from typing import Any, Final

import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from huggingface_hub.errors import StrictDataclassError
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from keepless.inference.embedded.adapter import MODULES, Base
from keepless.inference.embedded.gguf import Gguf, GgufError, Tensor

__all__ = ["base_model"]

_EMBEDDING: Final = "token_embd.weight"
_NORM: Final = "output_norm.weight"
_OUTPUT: Final = "output.weight"
_NORMS: Final = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}


def base_model(gguf: Gguf, base: Base) -> Any:
    """The model, in 32-bit floats. Raises `GgufError` for what cannot be built from this file."""
    fields, tensors = gguf.fields, gguf.tensors
    try:
        config = LlamaConfig(
            vocab_size=tensors[_EMBEDDING].shape[0],
            hidden_size=fields["llama.embedding_length"],
            intermediate_size=fields["llama.feed_forward_length"],
            num_hidden_layers=base.layers,
            num_attention_heads=base.heads,
            num_key_value_heads=base.kv_heads,
            head_dim=base.shapes["self_attn.q_proj"][0] // base.heads,
            max_position_embeddings=fields["llama.context_length"],
            rms_norm_eps=fields["llama.attention.layer_norm_rms_epsilon"],
            rope_parameters={"rope_type": "default", "rope_theta": fields.get("llama.rope.freq_base", 10000.0)},
            tie_word_embeddings=_OUTPUT not in tensors,
            attn_implementation="sdpa",
        )
        names = _names(base, _OUTPUT in tensors)
        if names.keys() != tensors.keys():  # something in it that would be left out in silence
            raise GgufError
        state = {theirs: _read(gguf, tensors[ours], _heads(ours, base)) for ours, theirs in names.items()}
    except (KeyError, TypeError, ValueError, StrictDataclassError):
        raise GgufError from None
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.load_state_dict(state, assign=True, strict=False)
    model.tie_weights()
    model.model.rotary_emb = LlamaRotaryEmbedding(config)  # the only thing that is no weight
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        raise GgufError
    return model.requires_grad_(requires_grad=False)


def _names(base: Base, has_output: bool) -> dict[str, str]:
    """Every tensor that such a file has, and the name of the parameter that it becomes."""
    names = {_EMBEDDING: "model.embed_tokens.weight", _NORM: "model.norm.weight"}
    if has_output:
        names[_OUTPUT] = "lm_head.weight"
    for layer in range(base.layers):
        for ours, theirs in _NORMS.items():
            names[f"blk.{layer}.{ours}.weight"] = f"model.layers.{layer}.{theirs}.weight"
        for theirs, ours in MODULES.items():
            names[f"blk.{layer}.{ours}.weight"] = f"model.layers.{layer}.{theirs}.weight"
    return names


def _heads(name: str, base: Base) -> int | None:
    return {"attn_q.weight": base.heads, "attn_k.weight": base.kv_heads}.get(name.split(".", 2)[-1])


def _read(gguf: Gguf, tensor: Tensor, heads: int | None) -> torch.Tensor:
    kind = GGMLQuantizationType(tensor.type)
    per_block, block_bytes = GGML_QUANT_SIZES[kind]
    *rows, columns = tensor.shape
    width = columns // per_block * block_bytes
    count = int(np.prod(rows, dtype=np.int64)) * width
    raw = np.frombuffer(gguf.data, np.uint8, count, tensor.offset).reshape(*rows, width)
    found = np.array(dequantize(raw, kind), np.float32).reshape(tensor.shape)
    if heads is not None:  # the engine keeps neighbours together, the original halves (adapter_gguf)
        found = found.reshape(heads, -1, 2, columns).swapaxes(1, 2).reshape(tensor.shape)
    return torch.from_numpy(np.ascontiguousarray(found))
