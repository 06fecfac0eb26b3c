"""Tuned models, as their project asks for them: a name becomes a route to its own engine.

Holds: `TunedModels`, one a process. Leaves out: which models there are (the lease knows, as it knows keys), their
engines (inference.embedded), what a request may (handler, pipeline: the same for every model).

1. The twelve digits at the end of the name find the model in the lease: nobody else's, none that is deleted, none
   whose feature is off. No database is asked.
2. The rest of the name is the customer's own and stands sealed with the weights. It is compared once, in a thread;
   from then on a keyed digest of it is known here, until the model is gone or may not be served any more.
3. The route that comes of it has the base's abilities and limits, an engine of its own, and an id for usage and errors
   in which nothing of the name stands.
"""

import asyncio
import hmac
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from hashlib import blake2b
from typing import Final, Protocol

import msgspec

from keepless.accounts.lease import Lease
from keepless.accounts.principal import Principal
from keepless.accounts.tuned import Tuned
from keepless.clock import Clock
from keepless.config import Engine, ModelConfig
from keepless.content import Content, Purpose
from keepless.errors import Code, ErrorType, Problem
from keepless.http.problems import internal
from keepless.ids import Id
from keepless.inference.backend import Backend
from keepless.inference.permission import no_such_model, refusal_of_tuned
from keepless.inference.router import Route, Router
from keepless.tuning.names import ledger_name, name_of, parse_name

__all__ = ["Labels", "TunedModels", "is_tuned"]

_MOST: Final = 256  # known at once; those in use are never forgotten for others
_LOOKING: Final = 64  # names that are looked up at once
_AGAIN_S: Final = 0.3  # a model can be younger than what the lease has read
_LONGEST_BASE: Final = 96 - len("ft::") - 12  # for the ledger's id


class Labels(Protocol):
    """The vault, as far as names need it."""

    def __call__(self, tuned: Iterable[Tuned]) -> Mapping[Id, tuple[int | None, Content | None]]:
        """By object: when it ends (Unix ms, None = until deleted), and its label. Blocks."""


class _Known:
    """A model whose name was compared. `digest`: of the name; `ends_at`: of its weights, Unix ms."""

    __slots__ = ("digest", "ends_at", "route")

    def __init__(self, digest: bytes, ends_at: int | None, route: Route) -> None:
        self.digest: Final = digest
        self.ends_at: Final = ends_at
        self.route: Final = route


Then = Callable[[Route | Problem], None]


def is_tuned(name: str) -> bool:
    """Whether a model's name is meant to be a tuned one's."""
    return name.startswith("ft:")


class TunedModels:
    """See the module. On the event loop's thread, but for `offered` and `names`, which block."""

    def __init__(
        self,
        lease: Lease,
        clock: Clock,
        router: Router,
        *,
        labels: Labels,
        backend: Callable[[Tuned, ModelConfig], Backend],
        executor: Executor,
    ) -> None:
        self._lease: Final = lease
        self._clock: Final = clock
        self._labels: Final = labels
        self._backend: Final = backend
        self._executor: Final = executor
        self._bases: Final = {
            model.id: model
            for model in router.models()
            if model.engine is Engine.LLAMA and len(model.id) <= _LONGEST_BASE
        }
        self._key: Final = os.urandom(32)
        self._known: Final[dict[str, _Known]] = {}
        self._looking = 0
        self._closing: Final[set[asyncio.Task[None]]] = set()

    # -- requests ---------------------------------------------------------------------------------------------------

    def find(self, principal: Principal, name: str, then: Then) -> Route | None:
        """The route of a model by its name; None: `then` is told, later. Raises `Problem`."""
        tuned = self._tuned(principal, name)
        if tuned is None:
            # Made a moment ago, perhaps: what the lease reads next decides.
            self._lease.refresh_soon()
            if self._looking >= _LOOKING:
                raise no_such_model()
            self._looking += 1
            asyncio.get_running_loop().call_later(_AGAIN_S, self._again, principal, name, then)
            return None
        return self._route_of(tuned, name, then)

    def offered(self, principal: Principal, name: str) -> Tuned:
        """A model by its name, for whoever may wait (a batch is validated). Blocks. Raises `Problem`."""
        tuned = self._tuned(principal, name)
        if tuned is None or self.names([tuned]).get(tuned.hexadecimal) != name:
            raise no_such_model()
        return tuned

    def lane(self, name: str) -> tuple[str, ModelConfig] | None:
        """What keeps requests of one model together, without its name; None: no model of that name can be there."""
        named = parse_name(name)
        tuned = None if named is None else self._lease.tuned(named.hexadecimal)
        base = None if tuned is None else self._bases.get(tuned.base_model)
        return None if tuned is None or base is None else (ledger_name(tuned.base_model, tuned.hexadecimal), base)

    # -- lists ------------------------------------------------------------------------------------------------------

    def of(self, principal: Principal) -> list[Tuned]:
        """Those that are served to a project now, the newest first."""
        if not self._lease.valid:
            return []
        found = [tuned for tuned in self._lease.tuned_of(principal.project.id) if tuned.base_model in self._bases]
        own = [tuned for tuned in found if tuned.organization_id == principal.organization.id]
        return [tuned for tuned in own if refusal_of_tuned(self._lease, tuned, principal.project) is None]

    def names(self, tuned: Iterable[Tuned]) -> dict[str, str]:
        """Their names, by their digits; none for those whose weights may not be read any more. Blocks."""
        models = list(tuned)
        labels = self._labels(models)
        found = {}
        for model in models:
            _, label = labels.get(model.object_id, (None, None))
            if label is not None:
                found[model.hexadecimal] = _full_name(model, label)
        return found

    def base_of(self, tuned: Tuned) -> ModelConfig:
        """The model that was tuned."""
        return self._bases[tuned.base_model]

    # -- the process ------------------------------------------------------------------------------------------------

    def enforce(self) -> None:
        """After a change of what the lease knows: forget what is not served any more."""
        for hexadecimal, known in tuple(self._known.items()):
            tuned = known.route.tuned
            if tuned is None or not self._serves(tuned):
                self._forget(hexadecimal)

    async def close(self) -> None:
        """End what is under way."""
        for hexadecimal in tuple(self._known):
            self._forget(hexadecimal)
        await asyncio.gather(*self._closing)

    # -- ours -------------------------------------------------------------------------------------------------------

    def _tuned(self, principal: Principal, name: str) -> Tuned | None:
        """The model that a name means; None: not known (yet). Raises `Problem`."""
        named = parse_name(name)
        if named is None or named.organization_id != principal.organization.id:
            raise no_such_model()
        if not self._lease.valid:
            raise _unreadable()
        tuned = self._lease.tuned(named.hexadecimal)
        if tuned is None:
            return None
        theirs = (tuned.organization_id, tuned.project_id) == (principal.organization.id, principal.project.id)
        if not theirs or named.base_model != tuned.base_model or tuned.base_model not in self._bases:
            raise no_such_model()
        refusal = refusal_of_tuned(self._lease, tuned, principal.project)
        if refusal is not None:
            raise refusal
        return tuned

    def _serves(self, tuned: Tuned) -> bool:
        project = self._lease.project(tuned.project_id)
        if self._lease.organization(tuned.organization_id) is None or project is None:
            return False
        return refusal_of_tuned(self._lease, tuned, project) is None

    def _again(self, principal: Principal, name: str, then: Then) -> None:
        self._looking -= 1
        try:
            tuned = self._tuned(principal, name)
            found = no_such_model() if tuned is None else self._route_of(tuned, name, then)
        except Problem as problem:
            found = problem
        if found is not None:
            then(found)

    def _route_of(self, tuned: Tuned, name: str, then: Then) -> Route | None:
        known = self._known.get(tuned.hexadecimal)
        if known is not None and known.ends_at is not None and self._clock.now_ms() >= known.ends_at:
            self._forget(tuned.hexadecimal)
            known = None
        if known is not None:
            if not hmac.compare_digest(known.digest, self._digest(name)):
                raise no_such_model()
            return known.route
        if self._looking >= _LOOKING:
            raise _busy()
        self._looking += 1
        future = asyncio.get_running_loop().run_in_executor(self._executor, self._labels, [tuned])

        def looked(done: "asyncio.Future[Mapping[Id, tuple[int | None, Content | None]]]") -> None:
            self._looking -= 1
            then(self._compared(tuned, name, done))

        future.add_done_callback(looked)
        return None

    def _compared(
        self, tuned: Tuned, name: str, done: "asyncio.Future[Mapping[Id, tuple[int | None, Content | None]]]"
    ) -> Route | Problem:
        if done.cancelled() or done.exception() is not None:
            return internal()
        ends_at, label = done.result().get(tuned.object_id, (None, None))
        if label is None or not self._serves(tuned):
            return no_such_model()
        known = self._known.get(tuned.hexadecimal)  # somebody else was faster
        if known is None:
            self._make_room()
            base = self._bases[tuned.base_model]
            model = msgspec.structs.replace(base, id=ledger_name(tuned.base_model, tuned.hexadecimal))
            route = Route(model, self._backend(tuned, base), tuned=tuned)
            known = _Known(self._digest(_full_name(tuned, label)), ends_at, route)
            self._known[tuned.hexadecimal] = known
        return known.route if hmac.compare_digest(known.digest, self._digest(name)) else no_such_model()

    def _digest(self, name: str) -> bytes:
        return blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16, key=self._key).digest()

    def _make_room(self) -> None:
        if len(self._known) >= _MOST:
            for hexadecimal, known in self._known.items():
                if not any(target.in_flight for target in known.route.targets):
                    self._forget(hexadecimal)
                    return

    def _forget(self, hexadecimal: str) -> None:
        known = self._known.pop(hexadecimal)
        for target in known.route.targets:
            task = asyncio.get_running_loop().create_task(target.backend.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


def _full_name(tuned: Tuned, label: Content) -> str:
    name = label.reveal(Purpose.LOAD).decode("utf-8")
    return name_of(tuned.base_model, tuned.organization_id, name, tuned.hexadecimal)


def _unreadable() -> Problem:
    return Problem(
        503,
        Code.POLICY_UNREADABLE,
        "Data controls cannot be read at the moment, so tuned models are not served. Try again shortly.",
        type=ErrorType.SERVER,
        headers={"retry-after": "1"},
    )


def _busy() -> Problem:
    return Problem(
        503,
        Code.OVERLOADED,
        "Too many tuned models are looked up at the moment. Please try again shortly.",
        type=ErrorType.SERVER,
        headers={"retry-after": "1"},
    )
