"""Tuned models, composed for a process that answers.

Leaves out: their host's process (tuned_host, tuned_child) and how it gets their weights (tuned_source), which needs
libraries of numbers; what each part does (gateway.tuned, inference.embedded).
"""

from collections.abc import Iterable, Mapping
from concurrent.futures import Executor

from keepless.accounts.lease import LEASE_S, Lease
from keepless.accounts.tuned import Tuned
from keepless.app.compose import Deployment
from keepless.config import ModelConfig
from keepless.content import Content, Purpose
from keepless.gateway.tuned import TunedModels
from keepless.ids import Id
from keepless.inference.backend import Backend
from keepless.inference.embedded.tuned_backend import HostAt, TunedBackend
from keepless.inference.router import Router

__all__ = ["tuned_models"]


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
        return TunedBackend(
            at,
            tuned.hexadecimal,
            base,
            load_seconds=load_seconds,
            generation=lambda: lease.generation,
            news_s=LEASE_S,
        )

    return TunedModels(lease, deployment.clock, router, labels=labels, backend=backend, executor=executor)
