"""The admin API over HTTP: Starlette routes made from the table in `keepless.admin.matrix`.

Holds: `routes`. One way for every row: path and method -> key (401) -> permission (403) -> query and body (400, 413) ->
whose organization (404) -> handler in a worker thread -> JSON. Leaves out: every rule of what may be done (handlers ask
governance), errors' JSON (`keepless.http.problems`), request id and retention header (its `Guard`).

A refusal (403, 423) is also an entry of the audit log, bounded by `governance.refusals`.

Order matters: a caller without the permission learns nothing about bodies or ids. Handlers block (database, fence), so
none of them runs on the event loop's thread.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from keepless.accounts.principal import AdminPrincipal, Principal
from keepless.admin import parse, public
from keepless.admin.endpoint import Ask, Endpoint, Scope
from keepless.admin.matrix import ENDPOINTS
from keepless.admin.services import Services
from keepless.admin.unserved import UNSERVED
from keepless.errors import Code, Problem
from keepless.governance.change import not_found
from keepless.governance.refusals import NOTED
from keepless.http.admin_auth import authenticate, authorise, key_of
from keepless.http.failures import stores_may_fail
from keepless.ids import Id, Prefix
from keepless.ids import parse as parse_id

__all__ = ["PREFIXES", "routes"]

PREFIXES: Final = ("/v1", "/openai/v1")
_ID: Final = re.compile(r"\{\w+\}")
_METHODS: Final = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def _text(value: object) -> str:
    """An id is a text; msgspec encodes only the exact type."""
    if isinstance(value, Id):
        return str(value)
    raise TypeError("an answer holds structs, numbers, texts and ids only")


_encode: Final = msgspec.json.Encoder(enc_hook=_text).encode


def routes(services: Services) -> list[BaseRoute]:
    """Every route of the admin API, the log's public face, health, metrics and `/openapi.json`."""
    paths: dict[str, dict[str, Endpoint | str]] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method] = endpoint
    named = {_ID.sub("{}", path): path for path in paths}  # two tables may name the ids of one path differently
    for (method, path), why in UNSERVED.items():
        paths.setdefault(named.get(_ID.sub("{}", path), path), {})[method] = why
    made: list[BaseRoute] = []
    for prefix in PREFIXES:
        made += [
            Route(prefix + path, _Dispatch(services, rows), include_in_schema=False) for path, rows in paths.items()
        ]
        made += [
            Route(prefix + path, _unknown, methods=_METHODS, include_in_schema=False)
            for path in ("/organization", "/organization/{rest:path}")
        ]
    return made + public.routes(services)


class _Dispatch:
    """The methods of one path. An ASGI application, so that it is given every method and can name those it has."""

    def __init__(self, services: Services, rows: dict[str, Endpoint | str]) -> None:
        self._services = services
        self._rows = rows

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        endpoint = self._rows.get("GET" if request.method == "HEAD" else request.method)
        if isinstance(endpoint, str):  # OpenAI has it, and we say why it is not here
            raise Problem(404, Code.UNKNOWN_URL, f"This deployment does not serve this route. {endpoint}")
        if endpoint is None:
            served = [method for method, row in self._rows.items() if isinstance(row, Endpoint)]
            allowed = [*served, *(["HEAD"] if "GET" in served else [])]
            raise HTTPException(405, headers={"allow": ", ".join(sorted(allowed))})
        raw = await _body(request)
        answer = await run_in_threadpool(_answer, self._services, endpoint, request, raw)
        await answer(scope, receive, send)


def _answer(services: Services, endpoint: Endpoint, request: Request, raw: bytes | None) -> Response:
    authorization = request.headers.get("authorization", "").encode("latin-1")
    caller: AdminPrincipal | Principal | None = None
    try:
        caller = authenticate(authorization, services.lease)
        return _handled(services, endpoint, request, raw, caller)
    except Problem as problem:
        if problem.status in NOTED:
            _note(services, endpoint, caller or key_of(authorization, services.lease), problem)
        raise


def _note(services: Services, endpoint: Endpoint, who: AdminPrincipal | Principal | None, problem: Problem) -> None:
    """Leave a trace of what was tried, by an admin key or by an API key that opens nothing here."""
    if isinstance(who, Principal):
        services.refusals.note(who.key_id, who.organization.id, endpoint.permission, problem.code)
    elif who is not None:
        services.refusals.note(who.id, who.organization_id, endpoint.permission, problem.code)


def _handled(
    services: Services, endpoint: Endpoint, request: Request, raw: bytes | None, caller: AdminPrincipal
) -> Response:
    authorise(caller, endpoint.permission)
    if raw is None:
        raise Problem(413, Code.REQUEST_TOO_LARGE, f"The body is larger than {parse.BODY_BYTES} bytes.")
    query = parse.query(request.scope["query_string"], endpoint.query)
    body = parse.body(raw, endpoint.body)
    ask: Ask[Any, Any] = Ask(
        caller=caller,
        organization=_organization(endpoint.scope, caller, query, body),
        ids=request.path_params,
        query=query,
        body=body,
    )
    with stores_may_fail():
        answer = endpoint.handler(services, ask)
    if isinstance(answer, Iterator):
        return StreamingResponse(iterate_in_threadpool(answer), media_type="application/jsonl")
    return Response(answer if isinstance(answer, bytes) else _encode(answer), media_type="application/json")


def _organization(scope: Scope, caller: AdminPrincipal, *asked: msgspec.Struct) -> Id | None:
    """The organization a call is about: the key's own, or the one an operator named. Raises `Problem` 404."""
    if scope is Scope.PLATFORM:
        return None
    named = next((name for values in asked if (name := getattr(values, "organization_id", None))), None)
    if named is None or named == caller.organization_id:
        return caller.organization_id
    found = parse_id(named, Prefix.ORGANIZATION)
    if found is None or caller.organization_id is not None:
        raise not_found()
    return found


async def _body(request: Request) -> bytes | None:
    """The body, or None when it is too large (it is then not read to its end)."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > parse.BODY_BYTES:
            return None
        parts.append(part)
    return b"".join(parts)


async def _unknown(_: Request) -> Response:
    raise Problem(
        404,
        Code.UNKNOWN_URL,
        "This deployment does not serve this route of the admin API. /openapi.json lists those it serves.",
    )
