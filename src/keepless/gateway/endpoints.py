"""The inference endpoints of a process: which path is answered by which family.

Holds: `PATHS` and `handlers` (one handler an endpoint, for HTTP and for lines of batches alike), `fast_paths`. Leaves
out: what is not inference (asgi), what an endpoint does (handler and each family).
"""

from collections.abc import Mapping
from typing import Any, Final

from keepless.accounts.lease import Lease
from keepless.clock import Clock
from keepless.config import Endpoint, Limits
from keepless.gateway.chat import ChatFamily
from keepless.gateway.handler import InferenceHandler
from keepless.gateway.reply import FastHandler
from keepless.gateway.responses import InputTokenFamily, ResponseFamily
from keepless.gateway.watch import Watch
from keepless.http.limits import RateLimits
from keepless.inference.router import Router
from keepless.pipeline import Way
from keepless.usage.ledger import Ledger

__all__ = ["BASES", "PATHS", "Handlers", "fast_paths", "handlers"]

BASES: Final = ("/v1", "/openai/v1")
PATHS: Final[Mapping[Endpoint, str]] = {
    Endpoint.CHAT: "/chat/completions",
    Endpoint.RESPONSES: "/responses",
    Endpoint.INPUT_TOKENS: "/responses/input_tokens",
}
_FAMILIES: Final = (ChatFamily, ResponseFamily, InputTokenFamily)

Handlers = Mapping[Endpoint, InferenceHandler[Any, Any]]


def handlers(
    limits: Limits,
    *,
    lease: Lease,
    router: Router,
    way: Way,
    ledger: Ledger,
    clock: Clock,
    rates: RateLimits,
    watch: Watch | None = None,
) -> Handlers:
    """One handler for each endpoint."""
    found: dict[Endpoint, InferenceHandler[Any, Any]] = {}
    for make in _FAMILIES:
        family: Any = make(limits.json_depth)
        found[family.endpoint] = InferenceHandler(
            family, lease=lease, router=router, way=way, ledger=ledger, clock=clock, rates=rates, watch=watch
        )
    return found


def fast_paths(found: Handlers) -> dict[bytes, FastHandler]:
    """What the server answers without the application: the endpoints below both bases."""
    return {f"{base}{PATHS[endpoint]}".encode(): handler for endpoint, handler in found.items() for base in BASES}
