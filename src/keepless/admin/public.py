"""What is not under `/v1`: health, metrics, the API's description, and the transparency log's public face.

`/log/*` asks for no key: it serves salted commitments, hashes of hashes and signatures only (DECISIONS 16), which is
what lets an outsider watch that the log never forks. `/metrics` answers to the operator's key, or to this machine
itself when no proxy stands in front (behind one, every peer looks like this machine).
"""

import ipaddress
from collections.abc import Callable
from typing import Final

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from keepless.accounts.roles import Permission
from keepless.admin import health
from keepless.admin.openapi import document
from keepless.admin.receipts import unsigned
from keepless.admin.services import Services
from keepless.governance.change import not_found
from keepless.http.admin_auth import authenticate, authorise
from keepless.http.failures import stores_may_fail
from keepless.receipts.checkpoint import LogForkError
from keepless.receipts.tiles import tile

__all__ = ["routes"]

_TILES_FOREVER: Final = {"cache-control": "public, max-age=31536000, immutable"}
_encode: Final = msgspec.json.Encoder().encode
Handler = Callable[[Services, Request], Response]


def routes(services: Services) -> list[BaseRoute]:
    """The routes, each a blocking handler in a worker thread."""
    table: dict[str, Handler] = {
        "/healthz": _healthz,
        "/readyz": _readyz,
        "/metrics": _metrics,
        "/openapi.json": _openapi,
        "/log/checkpoint": _checkpoint,
        "/log/key": _key,
        "/log/tile/{path:path}": _tile,
    }
    return [Route(path, _threaded(services, handler), methods=["GET"]) for path, handler in table.items()]


def _threaded(services: Services, handler: Handler) -> Callable[[Request], object]:
    def work(request: Request) -> Response:
        with stores_may_fail():
            return handler(services, request)

    async def serve(request: Request) -> Response:
        return await run_in_threadpool(work, request)

    return serve


def _healthz(_: Services, __: Request) -> Response:
    return _json({"status": "alive"})


def _readyz(services: Services, _: Request) -> Response:
    checks = [*_own(services), *services.checks()]
    ready = all(check.ok for check in checks if check.vital)
    shown = [{"check": c.name, "ok": c.ok, "vital": c.vital, "why": "" if c.ok else c.why} for c in checks]
    return _json(
        {"status": "ready" if ready else "not_ready", "checks": shown, "location": services.location.status()},
        200 if ready else 503,
    )


def _own(services: Services) -> list[health.Check]:
    """What this face knows itself; the rest is handed over by who composes the process."""
    return [
        health.readable(services.db),
        health.Check("policy", services.lease.valid, "keys and data controls cannot be read; nothing is kept"),
        health.Check("location", services.location.writable(), "no content is written there; see location"),
    ]


def _metrics(services: Services, request: Request) -> Response:
    if not _at_this_machine(services, request):
        caller = authenticate(request.headers.get("authorization", "").encode("latin-1"), services.lease)
        authorise(caller, Permission.METRICS_READ)
    text = health.exposition(services.metrics())
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4")


def _at_this_machine(services: Services, request: Request) -> bool:
    if services.settings.behind_proxy or services.settings.trusted_proxies or "x-forwarded-for" in request.headers:
        return False
    try:
        return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


def _openapi(_: Services, __: Request) -> Response:
    return Response(document(), media_type="application/json")


def _checkpoint(services: Services, _: Request) -> Response:
    try:
        text = services.log.checkpoint()
    except LogForkError:
        raise unsigned() from None
    return PlainTextResponse(text, headers={"cache-control": "no-store"})


def _key(services: Services, _: Request) -> Response:
    return PlainTextResponse(f"{services.log.key}\n")


def _tile(services: Services, request: Request) -> Response:
    found = tile(services.db, services.log, request.path_params["path"])
    if found is None:
        raise not_found()
    return Response(found, media_type="application/octet-stream", headers=_TILES_FOREVER)


def _json(value: object, status: int = 200) -> Response:
    return Response(_encode(value), status_code=status, media_type="application/json")
