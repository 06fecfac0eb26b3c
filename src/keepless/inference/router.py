"""The catalogue: which engines answer for a model.

Holds: `Route`, `Router`, `allowed_modes`. Leaves out: whether a caller's request may go to one of them (target), which
of several is asked and who is next (tries), what the caller's policy is (policy, by way of the pipeline).
"""

from collections.abc import Iterable
from typing import Final

from keepless.accounts.tuned import Tuned
from keepless.config import Engine, ModelConfig, UpstreamConfig, UpstreamRetention
from keepless.ids import trusted
from keepless.inference.backend import Backend
from keepless.inference.embedded.pulse import Pulse
from keepless.inference.target import Target

__all__ = ["Route", "Router", "allowed_modes"]


class Route:
    """A model of the catalogue and the engines that answer for it, in the operator's order.

    `only` is the one there is, None when there are several. `virtual_time`: the turn of who was asked last (tries).
    `name`: what the first one calls the model, when that is another name; `several_names`: they do not agree on one, so
    a request has to be able to be `renamed` (asking). `pulse`: how an embedded engine is, as its supervisor says.
    `tuned`: a customer's own model; `model` is then its base under an id without the customer's words.
    """

    __slots__ = (
        "embedded", "model", "model_id", "name", "only", "pulse", "several_names", "targets", "tuned", "virtual_time",
    )  # fmt: skip

    def __init__(
        self, model: ModelConfig, *backends: Backend, pulse: Pulse | None = None, tuned: Tuned | None = None
    ) -> None:
        upstreams: list[UpstreamConfig] | list[None] = model.all_upstreams() or [None]
        self.model: Final = model
        self.tuned: Final = tuned
        self.model_id: Final = trusted(model.id)
        self.embedded: Final = model.engine is not Engine.OPENAI
        self.targets: Final = tuple(
            Target(model, index, backend, upstream)
            for index, (backend, upstream) in enumerate(zip(backends, upstreams, strict=True))
        )
        self.only: Final = self.targets[0] if len(self.targets) == 1 else None
        names = [target.name or model.id for target in self.targets]
        self.name: Final = names[0] if names[0] != model.id else None
        self.several_names: Final = len(set(names)) > 1
        self.virtual_time = 0.0
        self.pulse: Final = pulse


class Router:
    """The catalogue. Ids are the operator's; a model id that a client typed is only ever looked up."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes: Final = {route.model.id: route for route in routes}
        self._models: Final = [route.model for route in self._routes.values()]

    def models(self) -> list[ModelConfig]:
        """Every model, in the operator's order."""
        return self._models

    def routes(self) -> Iterable[Route]:
        """Every route, in the operator's order."""
        return self._routes.values()

    def route(self, model_id: str) -> Route | None:
        """The route of a model, None when there is no such model."""
        return self._routes.get(model_id)

    async def close(self) -> None:
        """Close every engine, each once."""
        backends = [target.backend for route in self._routes.values() for target in route.targets]
        for backend in {id(backend): backend for backend in backends}.values():
            await backend.close()


def allowed_modes(route: Route) -> tuple[str, ...]:
    """The retention modes under which a model can be used (`data_retention.allowed_modes` of `/models`).

    `zero_data_retention` stands there only when somebody who keeps nothing answers for it.
    """
    if any(target.retention is UpstreamRetention.ZERO for target in route.targets):
        return ("default", "zero_data_retention")
    return ("default",)
