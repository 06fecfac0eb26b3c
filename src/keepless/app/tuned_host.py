"""`python -m keepless.app.tuned_host`: the process that holds tuned models, one a machine, shared by all that answer.

1. Open the deployment, take a lease like every process that acts on policy.
2. Load a model when a worker asks for it (descriptor in the plan): its weights come out of the vault's door, with the
   purpose of loading, which the door refuses when the feature is off, and exist in memory only.
3. After every change of what the lease knows, and at its end, the engines of models that are deleted or may not be
   served any more are ended; only then is the change acknowledged.
4. With nothing loaded and nobody connected for `served_idle_stop` seconds it ends; the next request starts it again.

Leaves out: who starts it (tuned_child). It reads its plan from its standard input.
"""

import asyncio
import signal
import socket
import sys
from pathlib import Path
from typing import Final

import uvloop

from keepless import log
from keepless.accounts.lease import Lease
from keepless.app.compose import Deployment, open_deployment
from keepless.app.harden import silence_loop
from keepless.app.life import born
from keepless.app.plan import HostPlan, decode_host
from keepless.app.tuned_source import adapter_source
from keepless.config import ModelConfig
from keepless.inference.backend import FailureKind
from keepless.inference.embedded.tuned import NotHeldError, TunedEngines
from keepless.inference.embedded.tuned_host import TunedHost
from keepless.inference.permission import refusal_of_tuned
from keepless.log import Event
from keepless.tuning.served import read_served

__all__ = ["run"]

_NEWS_S: Final = 2.0  # for what a worker knows already
_LOOK_S: Final = 0.02


def run(plan: HostPlan) -> int:
    """Hold models until a signal comes, or there is nothing to do."""
    deployment = open_deployment(plan.settings)
    try:
        return uvloop.run(_Host(plan, deployment).work())
    finally:
        deployment.close()


class _Host:
    def __init__(self, plan: HostPlan, deployment: Deployment) -> None:
        self._plan: Final = plan
        self._deployment: Final = deployment
        self._bases: Final = {model.id: model for model in plan.settings.models}
        self._lease: Final = Lease(deployment.db, deployment.clock, read_tuned=read_served)

    async def work(self) -> int:
        """See `run`."""
        loop, plan, lease = asyncio.get_running_loop(), self._plan, self._lease
        silence_loop(loop)
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        settings, folder = plan.settings.fine_tuning, Path(plan.settings.data_dir) / "run"
        source = adapter_source(self._deployment, lease.tuned)
        engines = TunedEngines(settings, folder, plan.name, source)

        def enforce() -> None:
            for model in engines.models:
                if self._base(model) is None:
                    engines.end(model)

        lease.on_swap = enforce
        await asyncio.to_thread(lease.start, loop)
        host = TunedHost(engines, plan.key, self._base_of)
        server = await host.serve(socket.socket(fileno=plan.listening))
        idle = loop.time()
        while not stop.is_set() and loop.time() - idle < settings.served_idle_stop:
            try:
                await asyncio.wait_for(stop.wait(), 0.5)
            except TimeoutError:
                idle = loop.time() if engines.loaded or host.connections else idle
        server.close()
        await engines.close()
        await asyncio.to_thread(lease.stop)
        return 0

    def _base(self, model: str) -> ModelConfig | None:
        """The base of a model that may be served now."""
        if not self._lease.valid:
            return None
        tuned = self._lease.tuned(model)
        project = None if tuned is None else self._lease.project_of(tuned.organization_id, tuned.project_id)
        if tuned is None or project is None or refusal_of_tuned(self._lease, tuned, project) is not None:
            return None
        return self._bases.get(tuned.base_model)

    async def _base_of(self, model: str, generation: int) -> ModelConfig:
        """See `BaseOf`. A worker can know of a model, or that it may be served again, before this process does."""
        until = asyncio.get_running_loop().time() + _NEWS_S
        while True:
            base = self._base(model)
            if base is not None:
                return base
            if asyncio.get_running_loop().time() >= until:
                raise NotHeldError(FailureKind.WITHDRAWN)
            self._lease.refresh_soon()
            await asyncio.sleep(_LOOK_S)


def _main() -> int:
    try:
        return run(decode_host(born()))
    except Exception as error:  # the interpreter would print its text
        log.failure(Event.ENGINE_DIED, error)
        return 2


if __name__ == "__main__":
    sys.exit(_main())
