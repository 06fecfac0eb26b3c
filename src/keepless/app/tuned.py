"""Serving tuned models, composed: how a process that answers finds them, and how their host gets their weights.

Holds: `tuned_models` (for a process that answers), `adapter_source` (for the host). Leaves out: the host's process
(tuned_host, tuned_child), what each part does (gateway.tuned, inference.embedded).
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from functools import lru_cache

from keepless.accounts.lease import Lease
from keepless.accounts.tuned import Tuned
from keepless.app.compose import Deployment
from keepless.config import ModelConfig
from keepless.content import Content, Purpose
from keepless.gateway.tuned import TunedModels
from keepless.ids import Id
from keepless.inference.backend import Backend, FailureKind
from keepless.inference.embedded.adapter import Base, base_of
from keepless.inference.embedded.engine import weights_of
from keepless.inference.embedded.gguf import open_gguf
from keepless.inference.embedded.tuned import Adapter, NotHeldError
from keepless.inference.embedded.tuned_backend import HostAt, TunedBackend
from keepless.inference.embedded.tuned_process import in_memory
from keepless.inference.router import Router
from keepless.vault.errors import NotKeptError

__all__ = ["adapter_source", "tuned_models"]


def tuned_models(
    deployment: Deployment, at: HostAt, *, lease: Lease, router: Router, executor: Executor
) -> TunedModels:
    """Those of a process. `at`: the host of this machine."""
    vault, load_seconds = deployment.vault, deployment.settings.fine_tuning.load_seconds

    def labels(tuned: Iterable[Tuned]) -> Mapping[Id, tuple[int | None, Content | None]]:
        by_owner: dict[Id, list[Id]] = {}
        for one in tuned:
            by_owner.setdefault(one.organization_id, []).append(one.object_id)
        return {
            object_id: (labelled.ends_at, labelled.label)
            for owner, objects in by_owner.items()
            for object_id, labelled in vault.labels(objects, owner, Purpose.LOAD).items()
        }

    def backend(tuned: Tuned, base: ModelConfig) -> Backend:
        return TunedBackend(at, tuned.hexadecimal, base, load_seconds=load_seconds, generation=lambda: lease.generation)

    return TunedModels(lease, deployment.clock, router, labels=labels, backend=backend, executor=executor)


def adapter_source(deployment: Deployment, tuned: Callable[[str], Tuned | None]) -> Adapter:
    """From a model's digits to a descriptor with its adapter: out of the vault, into memory, nowhere else."""

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
