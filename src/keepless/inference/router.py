"""Which engine answers for a model, and whether it may for this caller.

Holds: `Route`, `Router`, `eligible`, `allowed_modes`. Leaves out: what the caller's policy is (policy, by way of the
pipeline) and when to ask: `eligible` is pure and is asked at the very moment of sending, under the lease.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from keepless.config import Engine, ModelConfig, UpstreamRetention
from keepless.errors import Code, ErrorType, Problem
from keepless.ids import Id, trusted
from keepless.inference.backend import Backend

__all__ = ["Route", "Router", "allowed_modes", "eligible"]

_EMBEDDED: Final = Engine.LLAMA
_DECLARED: Final = {
    UpstreamRetention.ZERO: "zero retention",
    UpstreamRetention.LOGS_30D: "logs for up to 30 days (logs_30d)",
    UpstreamRetention.UNKNOWN: "nothing about its retention (unknown)",
}


@dataclass(frozen=True, slots=True)
class Route:
    """A model of the catalogue and the engine that answers for it."""

    model: ModelConfig
    backend: Backend
    model_id: Id = field(init=False)
    embedded: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "model_id", trusted(self.model.id))
        object.__setattr__(self, "embedded", self.model.engine is Engine.LLAMA)


class Router:
    """The catalogue. Ids are the operator's; a model id that a client typed is only ever looked up."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes: Final = {route.model.id: route for route in routes}
        self._models: Final = [route.model for route in self._routes.values()]

    def models(self) -> list[ModelConfig]:
        """Every model, in the operator's order."""
        return self._models

    def route(self, model_id: str) -> Route | None:
        """The route of a model, None when there is no such model."""
        return self._routes.get(model_id)

    @staticmethod
    def eligible(route: Route, *, zero_only: bool, region: str | None) -> Problem | None:
        """See the function of the same name."""
        return eligible(route.model, zero_only=zero_only, region=region)

    async def close(self) -> None:
        """Close every engine, each once."""
        for backend in {id(route.backend): route.backend for route in self._routes.values()}.values():
            await backend.close()


def eligible(model: ModelConfig, *, zero_only: bool, region: str | None) -> Problem | None:
    """None when a caller may be routed to a model; otherwise the refusal, which names the control that decides.

    `zero_only`: policy allows only engines that keep nothing. `region`: where the organization is pinned to. An
    embedded engine runs here, in the deployment's own region, and satisfies both.
    """
    if model.engine is _EMBEDDED:
        return None
    if zero_only and model.retention is not UpstreamRetention.ZERO:
        return Problem(
            403,
            Code.UPSTREAM_RETENTION,
            f"The upstream of model `{model.id}` declares {_DECLARED[model.retention]}. Zero data retention, inference "
            "logging turned off, or this request's own retention header allows only upstreams that declare zero "
            "retention. Choose another model, or ask an organization owner about Data Controls.",
            type=ErrorType.INVALID_REQUEST,
            param="model",
            retry=False,
        )
    if region is not None and model.region != region:
        return Problem(
            403,
            Code.UPSTREAM_REGION,
            f"The upstream of model `{model.id}` declares {_region(model)}. This organization is pinned to another "
            "region by its Data Controls. Choose another model, or ask an organization owner about Data Controls.",
            type=ErrorType.INVALID_REQUEST,
            param="model",
            retry=False,
        )
    return None


def allowed_modes(model: ModelConfig) -> tuple[str, ...]:
    """The retention modes under which a model can be used (`data_retention.allowed_modes` of `/models`).

    `zero_data_retention` stands there only when whoever answers keeps nothing.
    """
    if model.engine is Engine.LLAMA or model.retention is UpstreamRetention.ZERO:
        return ("default", "zero_data_retention")
    return ("default",)


def _region(model: ModelConfig) -> str:
    return f"region `{model.region}`" if model.region else "no region"
