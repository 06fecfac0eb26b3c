"""The console over HTTP: Starlette routes made from the table in `keepless.console.table`.

Holds: `routes`. One way for every row: form read (bounded) -> who looks (else to the sign-in) -> no foreign page's form
-> permission (403) -> handler in a worker thread -> page, redirect or download. Leaves out: every rule of what may be
done: governance checks again, whatever a page offers.

A form is sent by POST, urlencoded, with the visitor's CSRF token; a browser's own word about where a request comes from
(`Sec-Fetch-Site`, `Origin`) is believed too, so a stolen token alone is not enough. A problem is a page as well.
"""

from functools import partial
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Match, Route

from keepless import log
from keepless.console import assets, chrome, render
from keepless.console.files import Upload
from keepless.console.forms import Methods, pairs
from keepless.console.guard import check_origin, check_token
from keepless.console.services import Services, Visitor
from keepless.console.streams import Streamed
from keepless.console.table import ROWS
from keepless.console.visit import Answer, Download, Redirect, Row, Visit, Whose
from keepless.errors import Code, ErrorType, Problem
from keepless.governance.change import not_found
from keepless.governance.refusals import NOTED
from keepless.http import problems
from keepless.http.admin_auth import authorise
from keepless.http.failures import stores_may_fail
from keepless.ids import Id

__all__ = ["routes"]

_FORM_BYTES: Final = 64 * 1024
_FIELDS: Final = 200
_SIGN_IN: Final = "/sign-in"
_NOT_OURS: Final = ("/v1", "/openai", "/log", "/healthz", "/readyz", "/metrics", "/openapi.json", "/static")


def routes(services: Services) -> list[BaseRoute]:
    """Every page. The last of them answers for paths that a browser asks for and nobody has."""
    paths: dict[str, dict[str, Row]] = {}
    for row in ROWS:
        paths.setdefault(row.path, {})[row.method] = row

    def page(rows: dict[str, Row]) -> Methods[Row]:
        return Methods(rows, partial(_answer, services), _FORM_BYTES)

    return [
        Route("/static/{digest}/{name:path}", assets.serve, methods=["GET"]),
        Route("/files/upload", Upload(services), include_in_schema=False),
        *(Route(path, page(rows), include_in_schema=False) for path, rows in paths.items()),
        _Lost("/{rest:path}", page({})),
    ]


class _Lost(Route):
    """Matches what a person's browser asks for and no other route has; programs get the API's own answer."""

    def matches(self, scope: Any) -> tuple[Match, Any]:
        """See Starlette."""
        accepts = dict(scope.get("headers", ())).get(b"accept", b"")
        if scope.get("method") != "GET" or b"text/html" not in accepts or scope["path"].startswith(_NOT_OURS):
            return Match.NONE, {}
        return super().matches(scope)


def _answer(services: Services, row: Row | None, request: Request, raw: bytes | None) -> Response:
    visitor: Visitor | None = None
    try:
        with stores_may_fail():
            visitor = services.doorkeeper(request)
            if row is None:
                return _problem(request, visitor, _no_such_page())
            if visitor is None:
                return _to_sign_in(request)
            visit = _visit(request, row, visitor, raw)
            return _response(services, visit, row.handler(services, visit))
    except Problem as problem:
        if visitor is not None and row is not None and problem.status in NOTED:
            who = visitor.principal
            services.refusals.note(who.id, who.organization_id, row.permission, problem.code)
        return _problem(request, visitor, problem)
    except Exception as error:  # its text may hold what a person typed
        log.failure(log.Event.SERVER_FAILED, error, request_id=Id(request.scope.get(problems.REQUEST_ID, "")))
        return _problem(request, visitor, problems.internal())


def _visit(request: Request, row: Row, visitor: Visitor, raw: bytes | None) -> Visit:
    form = pairs(raw, _FORM_BYTES, _FIELDS)
    if row.method == "POST":
        check_origin(request)
        check_token(visitor, form.get("csrf") or request.headers.get("x-csrf-token", ""))
    authorise(visitor.principal, row.permission)
    if row.whose is Whose.OWN and visitor.principal.organization_id is None:
        raise not_found()
    return Visit(
        visitor=visitor,
        path=request.url.path,
        ids=request.path_params,
        query=pairs(request.scope["query_string"], _FORM_BYTES, _FIELDS),
        form=form,
        origin=request.headers.get("origin") or f"{request.url.scheme}://{request.headers.get('host', '')}",
        partial="hx-request" in request.headers,
    )


def _response(services: Services, visit: Visit, answer: Answer) -> Response:
    if isinstance(answer, Redirect):
        where = answer.location
        if answer.done is not None:
            where += ("&" if urlsplit(where).query else "?") + urlencode({"done": answer.done})
        return RedirectResponse(where, 303, headers={"cache-control": "no-store"})
    if isinstance(answer, Download):
        headers = {
            "content-disposition": f'attachment; filename="{answer.name}"',
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
            "content-security-policy": "default-src 'none'; sandbox",
        }
        if isinstance(answer.body, bytes):
            return Response(answer.body, media_type=answer.media_type, headers=headers)
        return Streamed(answer.body, answer.ended, answer.media_type, headers)
    return render.page(answer.template, {**chrome.around(services, visit), **answer.values}, answer.status)


def _problem(request: Request, visitor: Visitor | None, problem: Problem) -> Response:
    if "hx-request" not in request.headers and "text/html" not in request.headers.get("accept", "text/html"):
        return problems.response(problem, str(request.scope.get(problems.REQUEST_ID, "")))
    values = {"problem": problem, "request_id": str(request.scope.get(problems.REQUEST_ID, "")), "visit": None}
    if visitor is not None:
        bare = Visit(visitor=visitor, path=request.url.path, ids={}, query={}, form={})
        values |= chrome.frame(bare)
    answer = render.page("error.html" if visitor is not None else "alone.html", values, problem.status)
    answer.headers.update(problem.headers)
    return answer


def _to_sign_in(request: Request) -> Response:
    if "hx-request" in request.headers:  # a live part of a page whose session has ended
        return Response(status_code=401, headers={"hx-redirect": _SIGN_IN, "cache-control": "no-store"})
    if request.method not in ("GET", "HEAD"):
        message = "Nothing was changed: you are not signed in, or your session has ended. Sign in and do it again."
        raise Problem(401, Code.INVALID_API_KEY, message, type=ErrorType.AUTHENTICATION)
    where = request.url.path if request.url.path != "/" else ""
    target = _SIGN_IN + ("?" + urlencode({"next": where}) if where else "")
    return RedirectResponse(target, 303, headers={"cache-control": "no-store"})


def _no_such_page() -> Problem:
    return Problem(404, Code.UNKNOWN_URL, "There is no such page.")
