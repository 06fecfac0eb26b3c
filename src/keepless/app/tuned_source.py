"""Where the host of tuned models gets their weights from: out of the vault, into memory, nowhere else.

Leaves out: the host's process (tuned_host, tuned_child).
"""

from collections.abc import Callable
from functools import lru_cache

from keepless.accounts.tuned import Tuned
from keepless.app.compose import Deployment
from keepless.config import ModelConfig
from keepless.content import Purpose
from keepless.inference.backend import FailureKind
from keepless.inference.embedded.adapter import Base, base_of
from keepless.inference.embedded.engine import weights_of
from keepless.inference.embedded.gguf import open_gguf
from keepless.inference.embedded.tuned import Adapter, NotHeldError
from keepless.inference.embedded.tuned_process import in_memory
from keepless.vault.errors import NotKeptError

__all__ = ["adapter_source"]


def adapter_source(deployment: Deployment, tuned: Callable[[str], Tuned | None]) -> Adapter:
    """From a model's digits to a descriptor with its adapter."""

    def adapter(model: str, base: ModelConfig) -> int:
        found = tuned(model)
        if found is None:
            raise NotHeldError(FailureKind.WITHDRAWN)
        try:
            weights = deployment.vault.read(found.object_id, found.organization_id, Purpose.LOAD)
        except NotKeptError:
            raise NotHeldError(FailureKind.WITHDRAWN) from None
        return in_memory(weights, _base(weights_of(base)[0]))

    return adapter


@lru_cache(16)
def _base(weights: str) -> Base:
    """What a base wants of its adapters."""
    return base_of(open_gguf(weights))
