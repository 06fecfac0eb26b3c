"""GET models and models/{id}: the operator's catalogue, as this caller may use it.

Holds: `routes`. Leaves out: what a model answers (chat). Members of OpenAI's and Groq's model objects, and ours:
`health` (one word: how its engine or its upstreams are now; see inference.condition and embedded.pulse),
`capabilities` (what is served; anything else is 400), `data_retention` (the mode that a request of this caller would
run under, the control that decides it, and the modes under which the model can be used at all), and of an embedded
model `speech` (voices, formats and their sample rates) or `embeddings` (dimensions). Tuned models stand after the
catalogue, those of the caller's own project only, with what their base can do.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from keepless.accounts.lease import Lease
from keepless.accounts.principal import Principal
from keepless.accounts.tuned import Tuned
from keepless.config import Endpoint, Engine, ModelConfig
from keepless.gateway.catalogue import capabilities_of, endpoints_of, no_such_model
from keepless.gateway.chat_params import CAPABILITIES
from keepless.gateway.embedding_params import DIMENSIONS, MOST_INPUTS
from keepless.gateway.tuned import TunedModels, is_tuned
from keepless.http.auth import authenticate
from keepless.inference.condition import condition_of
from keepless.inference.embedded.formats import FORMATS
from keepless.inference.embedded.pulse import State
from keepless.inference.embedded.voices import ALIASES, VOICES
from keepless.inference.router import Route as Offered
from keepless.inference.router import Router, allowed_modes
from keepless.inference.target import eligible
from keepless.policy.data_class import Feature

__all__ = ["routes"]

_BASES: Final = ("/v1", "/openai/v1")
_CONVERSING: Final = frozenset({Endpoint.CHAT, Endpoint.RESPONSES})
_NOBODY_KNOWS: Final[Mapping[str, int]] = {}


def routes(
    lease: Lease,
    router: Router,
    tuned: TunedModels | None = None,
    deletion: ASGIApp | None = None,
    *,
    appeared: Mapping[str, int] = _NOBODY_KNOWS,
) -> Sequence[BaseRoute]:
    """The routes, below both bases. `tuned`: where tuned models are served; `deletion`: who answers a DELETE of one.

    `appeared`: when each model was first in the catalogue (Unix ms), which is what `created` says.
    """
    pages = _Pages(lease, router, tuned, appeared)
    found: list[BaseRoute] = []
    for base in _BASES:
        found.append(Route(f"{base}/models", pages.index, methods=["GET"]))
        if deletion is None:
            found.append(Route(f"{base}/models/{{model:path}}", pages.one, methods=["GET"]))
        else:
            both = _Either(pages.one, deletion)
            found.append(Route(f"{base}/models/{{model:path}}", both, methods=["GET", "DELETE"]))
    return found


class _Either:
    """One path, two methods of different makes."""

    def __init__(self, page: Callable[[Request], Awaitable[Response]], deletion: ASGIApp) -> None:
        self._page: Final = page
        self._deletion: Final = deletion

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["method"] == "DELETE":
            await self._deletion(scope, receive, send)
        else:
            await (await self._page(Request(scope, receive)))(scope, receive, send)


class _Pages:
    def __init__(self, lease: Lease, router: Router, tuned: TunedModels | None, appeared: Mapping[str, int]) -> None:
        self._lease: Final = lease
        self._router: Final = router
        self._tuned: Final = tuned
        self._appeared: Final = appeared

    async def index(self, request: Request) -> Response:
        principal = self._caller(request)
        data = [self._shown(route, principal) for route in self._router.routes()]
        if self._tuned is not None:
            own = self._tuned.of(principal)
            names = await asyncio.to_thread(self._tuned.names, own) if own else {}
            data += [self._own(names[one.hexadecimal], one, principal) for one in own if one.hexadecimal in names]
        return JSONResponse({"object": "list", "data": data})

    async def one(self, request: Request) -> Response:
        principal = self._caller(request)
        name = request.path_params["model"]
        route = self._router.route(name)
        if route is not None:
            return JSONResponse(self._shown(route, principal))
        if self._tuned is None or not is_tuned(name):
            raise no_such_model()
        one = await asyncio.to_thread(self._tuned.offered, principal, name)
        return JSONResponse(self._own(name, one, principal))

    def _caller(self, request: Request) -> Principal:
        sent = request.headers.get("authorization")
        return authenticate(self._lease, None if sent is None else sent.encode("latin-1"))

    def _own(self, name: str, one: Tuned, principal: Principal) -> dict[str, Any]:
        """A tuned model: what its base is, by its own name."""
        base = self._router.route(one.base_model)
        if base is None:
            raise no_such_model()
        created, owner = one.created_at // 1000, one.organization_id
        return {**self._shown(base, principal), "id": name, "created": created, "owned_by": owner}

    def _shown(self, route: Offered, principal: Principal) -> dict[str, Any]:
        model, condition = route.model, condition_of(route)
        return {
            "id": model.id,
            "object": "model",
            "created": self._appeared.get(model.id, 0) // 1000,
            "owned_by": model.owned_by,
            "active": condition is not State.MISSING,
            "health": condition.value,
            "context_window": model.context_window,
            "max_completion_tokens": model.max_completion_tokens,
            "public_apps": None,
            "capabilities": _served(model),
            **_OF_ENGINE.get(model.engine, _nothing)(model),
            "data_retention": self._retention(route, principal),
        }

    def _retention(self, route: Offered, principal: Principal) -> dict[str, Any]:
        """The policy that a request would meet now; without a lease that is as under ZDR.

        Of several upstreams `upstream` and `region` are said only where all say the same; `upstreams` has each.
        """
        valid = self._lease.valid
        effective = principal.project.effective
        zero_only = effective.zero_upstream_only or not valid
        if effective.zero_data_retention:
            source = effective.zdr_source.value
        else:
            source = effective.feature_source[Feature.INFERENCE_LOGGING].value
        upstreams = [
            {
                "retention": target.retention.value,
                "region": target.region,
                "permitted": eligible(target, zero_only=zero_only, region=principal.organization.region) is None,
            }
            for target in route.targets
        ]
        return {
            "mode": "zero_data_retention" if zero_only else "default",
            "source": source if valid else "policy_unreadable",
            "allowed_modes": list(allowed_modes(route)),
            "permitted": any(upstream["permitted"] for upstream in upstreams),
            "upstream": _common([upstream["retention"] for upstream in upstreams]),
            "region": _common([upstream["region"] for upstream in upstreams]),
            "regions": sorted({target.region for target in route.targets if target.region is not None}),
            "upstreams": upstreams,
        }


def _speech(model: ModelConfig) -> dict[str, Any]:
    return {
        "speech": {
            "voices": sorted(VOICES),
            "voice_aliases": ALIASES,
            "response_formats": {name: list(kind.rates) for name, kind in FORMATS.items()},
            "max_input_characters": model.max_input_characters,
        }
    }


def _embeddings(model: ModelConfig) -> dict[str, Any]:
    dimensions = DIMENSIONS if model.path is None else None
    return {"embeddings": {"dimensions": dimensions, "max_inputs": MOST_INPUTS}}


def _nothing(_: ModelConfig) -> dict[str, Any]:
    return {}


_OF_ENGINE: Final = {Engine.FLITE: _speech, Engine.MINILM: _embeddings}


def _common(values: list[Any]) -> Any:
    return values[0] if len(set(values)) == 1 else None


def _served(model: ModelConfig) -> list[str]:
    """The endpoints, and what they can do: anything else is 400."""
    endpoints, capabilities = endpoints_of(model), capabilities_of(model)
    if capabilities is None:
        capabilities = frozenset() if _CONVERSING.isdisjoint(endpoints) else CAPABILITIES
    return sorted(capabilities | endpoints)
