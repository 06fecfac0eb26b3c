"""What may be asked about a response afterwards (there is none: nothing was kept), and what is not served at all.

Holds: `routes`. Leaves out: answering (responses). Not compiled: Starlette takes a compiled function for an
application.
"""

from collections.abc import Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from keepless.accounts.lease import Lease
from keepless.errors import Code, Problem
from keepless.gateway.responses import COUNT, PATH
from keepless.http.auth import authenticate

__all__ = ["routes"]

_BASES: Final = ("/v1", "/openai/v1")


def routes(lease: Lease) -> Sequence[BaseRoute]:
    """What a client may ask about a response that it was answered before, below both bases: there is none."""

    async def none_kept(request: Request) -> Response:
        sent = request.headers.get("authorization")
        authenticate(lease, None if sent is None else sent.encode("latin-1"))
        raise Problem(
            404,
            Code.NOT_FOUND,
            "Response not found. Responses are not stored: `store` is always false here, and there is nothing to "
            "retrieve, list, cancel or delete.",
            retry=False,
        )

    async def not_compacted(request: Request) -> Response:
        sent = request.headers.get("authorization")
        authenticate(lease, None if sent is None else sent.encode("latin-1"))
        raise Problem(
            404,
            Code.NOT_FOUND,
            "This endpoint is not served here. Below /responses there is /responses/input_tokens; long conversations "
            "are shortened by who sends them.",
            retry=False,
        )

    found: list[BaseRoute] = []
    for base in _BASES:
        one = f"{base}{PATH}/{{response_id}}"
        # The server answers its POST before the application is asked; any other method is told so.
        found.append(Route(f"{base}{PATH}{COUNT}", none_kept, methods=["POST"]))
        found.append(Route(f"{base}{PATH}/compact", not_compacted, methods=["POST"]))
        found.append(Route(one, none_kept, methods=["GET", "DELETE"]))
        found.append(Route(f"{one}/input_items", none_kept, methods=["GET"]))
        found.append(Route(f"{one}/cancel", none_kept, methods=["POST"]))
    return found
