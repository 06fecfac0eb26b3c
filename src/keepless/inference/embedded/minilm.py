"""Embeddings of all-MiniLM-L6-v2 with numpy: text -> word pieces -> six layers -> the mean of the pieces, length 1.

Holds: `MiniLM` and `Tokens`, what it reads a text as. Leaves out: the process it runs in, wire formats, whether a text
may be that long (the caller counts first: nothing here cuts a text).

No padding and no masks: texts are put in order of their length, every matrix product of a layer runs once over all
pieces of a pass, and attention runs over texts of the same length together. So a text's vector does not depend on what
it is computed beside (but for the last bit of a matrix product), and not a piece is computed for nothing. A pass takes
about `PASS_TOKENS` pieces: between two of them the caller may stop.

The activation is the exact GELU, as the model's configuration says ("gelu"): erf by Abramowitz and Stegun 7.1.26, whose
error (1.5e-7) is that of the arithmetic.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file
from tokenizers import Tokenizer

__all__ = ["PASS_TOKENS", "MiniLM", "Tokens", "shortened"]

PASS_TOKENS: Final = 2048

Tokens = list[int]
Array = npt.NDArray[np.float32]

_ERF: Final = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
_ERF_P: Final = np.float32(0.3275911)
_HALF_ROOT: Final = np.float32(0.5**0.5)


class _Config(msgspec.Struct):
    """What we read of the model's config.json, and what we can compute of it."""

    hidden_size: int
    num_attention_heads: int
    num_hidden_layers: int
    layer_norm_eps: float
    max_position_embeddings: int
    hidden_act: str
    position_embedding_type: str = "absolute"


class _Layer(msgspec.Struct):
    """One layer's matrices, laid out as they are used."""

    qkv: tuple[Array, Array]
    attended: tuple[Array, Array]
    attended_norm: tuple[Array, Array]
    wide: tuple[Array, Array]
    narrow: tuple[Array, Array]
    norm: tuple[Array, Array]


class MiniLM:
    """The model, in memory. `folder` holds model.safetensors, tokenizer.json and config.json.

    Raises `ValueError` when the configuration is one that this code does not compute.
    """

    def __init__(self, folder: Path) -> None:
        config = msgspec.json.decode((folder / "config.json").read_bytes(), type=_Config)
        if config.hidden_act != "gelu" or config.position_embedding_type != "absolute":
            raise ValueError("not a model of this kind")
        weights: dict[str, Array] = {
            name: array.astype(np.float32, copy=False)
            for name, array in load_file(folder / "model.safetensors").items()
        }
        self.dimensions: Final = config.hidden_size
        self.positions: Final = config.max_position_embeddings
        self._heads: Final = config.num_attention_heads
        self._epsilon: Final = np.float32(config.layer_norm_eps)
        self._words: Final = weights["embeddings.word_embeddings.weight"]
        self.vocabulary: Final = len(self._words)
        self._places: Final = (
            weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
        )
        self._norm: Final = _pair(weights, "embeddings.LayerNorm")
        self._layers: Final = [_layer(weights, f"encoder.layer.{i}.") for i in range(config.num_hidden_layers)]
        self._tokenizer: Final[Any] = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.encode_special_tokens = True  # that a text spells one of them does not make it one
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def tokens(self, texts: Sequence[str]) -> list[Tokens]:
        """Each text as word pieces, the two that mark its beginning and end included."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]

    def embed(self, inputs: Sequence[Tokens]) -> Iterator[tuple[list[int], Array]]:
        """Passes over all inputs: the positions computed in this one, and their vectors (rows, each of length 1)."""
        order = sorted(range(len(inputs)), key=lambda position: len(inputs[position]))
        for positions in _passes(order, inputs):
            yield positions, self._pass([inputs[position] for position in positions])

    def _pass(self, inputs: list[Tokens]) -> Array:
        groups = [(length, len(list(same))) for length, same in groupby(len(tokens) for tokens in inputs)]
        ids = np.fromiter((token for tokens in inputs for token in tokens), np.intp)
        places = np.concatenate([np.tile(np.arange(length), count) for length, count in groups])
        x = self._normal(self._words[ids] + self._places[places], self._norm)
        for layer in self._layers:
            attended = _linear(self._attend(_linear(x, layer.qkv), groups), layer.attended)
            x = self._normal(x + attended, layer.attended_norm)
            x = self._normal(x + _linear(_gelu(_linear(x, layer.wide)), layer.narrow), layer.norm)
        means, at = [], 0
        for length, count in groups:
            end = at + length * count
            means.append(x[at:end].reshape(count, length, -1).mean(1))
            at = end
        return _unit(np.concatenate(means))

    def _attend(self, qkv: Array, groups: list[tuple[int, int]]) -> Array:
        size = self.dimensions // self._heads
        scale = np.float32(size**-0.5)
        out = np.empty((len(qkv), self.dimensions), np.float32)
        at = 0
        for length, count in groups:
            end = at + length * count
            block = qkv[at:end].reshape(count, length, 3, self._heads, size)
            q, k, v = (block[:, :, part].transpose(0, 2, 1, 3) for part in range(3))
            scores = (q * scale) @ k.transpose(0, 1, 3, 2)
            scores -= scores.max(-1, keepdims=True)
            np.exp(scores, out=scores)
            scores /= scores.sum(-1, keepdims=True)
            out[at:end] = (scores @ v).transpose(0, 2, 1, 3).reshape(length * count, self.dimensions)
            at = end
        return out

    def _normal(self, x: Array, scale: tuple[Array, Array]) -> Array:
        x = x - x.mean(-1, keepdims=True)
        variance = np.einsum("ij,ij->i", x, x)[:, None] / np.float32(x.shape[-1])
        x /= np.sqrt(variance + self._epsilon)
        return x * scale[0] + scale[1]


def shortened(vectors: Array, dimensions: int) -> Array:
    """The first `dimensions` members of each vector, of length 1 again (for models that were trained for it)."""
    return _unit(vectors[:, :dimensions])


def _passes(order: list[int], inputs: Sequence[Tokens]) -> Iterator[list[int]]:
    positions: list[int] = []
    size = 0
    for position in order:
        length = len(inputs[position])
        if positions and size + length > PASS_TOKENS:
            yield positions
            positions, size = [], 0
        positions.append(position)
        size += length
    if positions:
        yield positions


def _pair(weights: dict[str, Array], name: str) -> tuple[Array, Array]:
    return weights[f"{name}.weight"], weights[f"{name}.bias"]


def _matrix(weights: dict[str, Array], *names: str) -> tuple[Array, Array]:
    """Linear maps of the same input as one."""
    pairs = [_pair(weights, name) for name in names]
    return np.ascontiguousarray(np.concatenate([pair[0] for pair in pairs]).T), np.concatenate([p[1] for p in pairs])


def _layer(weights: dict[str, Array], name: str) -> _Layer:
    own = f"{name}attention.self."
    return _Layer(
        qkv=_matrix(weights, f"{own}query", f"{own}key", f"{own}value"),
        attended=_matrix(weights, f"{name}attention.output.dense"),
        attended_norm=_pair(weights, f"{name}attention.output.LayerNorm"),
        wide=_matrix(weights, f"{name}intermediate.dense"),
        narrow=_matrix(weights, f"{name}output.dense"),
        norm=_pair(weights, f"{name}output.LayerNorm"),
    )


def _linear(x: Array, matrix: tuple[Array, Array]) -> Array:
    y: Array = x @ matrix[0]
    y += matrix[1]
    return y


def _gelu(x: Array) -> Array:
    """Each number times the normal distribution's share below it."""
    z = np.abs(x)
    z *= _HALF_ROOT
    t = np.float32(1) / (np.float32(1) + _ERF_P * z)
    tail = np.full_like(t, _ERF[4])
    for factor in (*_ERF[3::-1], 0.0):
        tail *= t
        tail += np.float32(factor)
    np.square(z, out=z)
    np.negative(z, out=z)
    np.exp(z, out=z)
    tail *= z  # 1 - erf(|x| / sqrt 2)
    # Below zero the share is tail / 2, above it is 1 - tail / 2.
    tail *= np.float32(0.5)
    share = np.where(x < 0, tail, np.float32(1) - tail)
    share *= x
    return share


def _unit(vectors: Array) -> Array:
    lengths: Array = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]
    lengths[lengths == 0] = 1
    return vectors / lengths
