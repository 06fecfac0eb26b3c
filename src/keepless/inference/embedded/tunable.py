"""Whether a base model is of a kind that can be trained here, or take an imported adapter: its file's header alone.

Holds: `can_train`, `can_import`, `TOKENIZERS`. Leaves out: whether its tensors are what that kind has (a job says so).
Needs no library of numbers: it is asked while somebody waits for an answer.
"""

from functools import lru_cache
from typing import Any, Final

from keepless.inference.embedded.gguf import GgufError, open_gguf

__all__ = ["TOKENIZERS", "can_import", "can_train"]

_ARCHITECTURE: Final = "llama"
TOKENIZERS: Final = frozenset({("gpt2", "smollm")})  # those that were compared with the engine's own
_NAMES: Final = ("general.architecture", "tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.chat_template")


def can_import(weights: str) -> bool:
    """Whether adapters for this file can be imported. True also for a file that is not here: the job says that."""
    found = _header(weights)
    return found is None or found[0] == _ARCHITECTURE


def can_train(weights: str) -> bool:
    """Whether this file can be trained on; likewise."""
    found = _header(weights)
    return found is None or (found[0] == _ARCHITECTURE and found[1:3] in TOKENIZERS and found[3] is not None)


@lru_cache(64)
def _header(weights: str) -> tuple[Any, ...] | None:
    try:
        gguf = open_gguf(weights)
    except OSError:
        return None
    except GgufError:
        return (None, None, None, None)
    with gguf.data:
        return tuple(gguf.fields.get(name) for name in _NAMES)
