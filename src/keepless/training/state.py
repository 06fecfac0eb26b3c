"""A checkpoint as bytes: safetensors with the adapter, the optimizer's moments and the numbers that say where it was.

Holds: `Place`, `pack_state`, `unpack_state`. Leaves out: keeping it (it is content: the vault, or nowhere).
Safetensors hold numbers alone, so reading one can do nothing else, whoever wrote it.
"""

import hashlib
from typing import Final

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from keepless.errors import KeeplessError
from keepless.training.order import Order

__all__ = ["Place", "StateError", "fingerprint", "pack_state", "unpack_state"]

_PLACE: Final = "place"


class StateError(KeeplessError):
    """A checkpoint is damaged, or of another run."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run was, and which run it was."""

    run: str
    step: int
    tokens: int


def fingerprint(order: Order, *examples: bytes) -> str:
    """The same for two orders exactly if one can go on where the other stopped."""
    same = (order.sha256, order.context, order.n_epochs, order.batch_size, order.learning_rate_multiplier)
    digest = hashlib.sha256(msgspec.json.encode((*same, order.r, order.alpha, order.seed)))
    for data in examples:
        digest.update(hashlib.sha256(data).digest())
    return digest.hexdigest()


def pack_state(tensors: dict[str, torch.Tensor], place: Place) -> bytes:
    """A checkpoint."""
    told = torch.frombuffer(bytearray(msgspec.json.encode(place)), dtype=torch.uint8)
    data: bytes = save({**tensors, _PLACE: told})
    return data


def unpack_state(data: bytes, run: str) -> tuple[dict[str, torch.Tensor], Place]:
    """The tensors of a checkpoint and its place. Raises `StateError`."""
    try:
        tensors = load(data)
        place = msgspec.json.decode(bytes(tensors.pop(_PLACE).numpy()), type=Place)
    except (SafetensorError, KeyError, TypeError, ValueError, msgspec.MsgspecError):
        raise StateError from None
    if place.run != run:
        raise StateError
    return tensors, place
