"""Errors as OpenAI's JSON: the only place in the source tree that writes one.

Holds: `render` (status, header lines, body) for the request path, the Starlette handlers, and `Guard`, the outermost
ASGI layer of every face that is not the request path: it gives each answer its request id and retention header, and
turns a fault of ours into a 500 without a text. Leaves out: which problem it is (whoever raises it).

A body is `{"error": {"message", "type", "code", "param"}}` plus the numbers and flags of `Problem.extra`. A `Problem`
can carry nothing that a client typed, so nothing is filtered here.
"""

from collections.abc import Mapping
from typing import Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, ExceptionHandler, Message, Receive, Scope, Send

from keepless import log
from keepless.errors import Code, ErrorType, Problem
from keepless.ids import Id, Prefix, mint

__all__ = [
    "NOTHING_KEPT",
    "REQUEST_ID",
    "Guard",
    "error_json",
    "handlers",
    "internal",
    "rejected_json",
    "render",
    "response",
]

NOTHING_KEPT: Final = "none"
REQUEST_ID: Final = "keepless.request_id"  # key of the ASGI scope

_encode: Final = msgspec.json.Encoder().encode


def error_json(problem: Problem) -> bytes:
    """The body alone, also the data of an error event in a stream."""
    error = {
        "message": problem.message,
        "type": problem.type,
        "code": problem.code,
        "param": problem.param,
        **problem.extra,
    }
    return _encode({"error": error})


def rejected_json(said: str) -> bytes:
    """What an upstream said of a request that it refused (a 4xx): for the client whose request it was, nobody else."""
    error = {"message": said, "type": ErrorType.INVALID_REQUEST, "code": Code.UPSTREAM_REJECTED, "param": None}
    return _encode({"error": error})


def render(problem: Problem, request_id: str, retention: str = NOTHING_KEPT) -> tuple[int, bytes, bytes]:
    """Status, encoded header lines (each with its CRLF, no content-length) and body of an answer."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in _headers(problem, request_id, retention).items())
    return problem.status, lines.encode("latin-1"), error_json(problem)


def internal() -> Problem:
    """A fault of ours, without a word about it."""
    return Problem(500, Code.INTERNAL, "The server had an error while processing your request.", type=ErrorType.SERVER)


def handlers() -> Mapping[type[Exception], ExceptionHandler]:
    """Starlette's `exception_handlers`: problems, the router's own 404 and 405, and any fault."""
    return {Problem: _on_problem, HTTPException: _on_http, Exception: _on_problem}


class Guard:
    """The outermost ASGI layer: request id, retention header, and no fault that gets out with its text.

    A handler that kept something sets `x-keepless-retention` itself; then it stays.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope.setdefault(REQUEST_ID, mint(Prefix.REQUEST))
        begun = ended = False

        async def stamped(message: Message) -> None:
            nonlocal begun, ended
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = _stamped(message.get("headers", []), request_id)
            ended = ended or (message["type"] == "http.response.body" and not message.get("more_body", False))
            await send(message)

        try:
            await self._app(scope, receive, stamped)
        except Exception as error:
            log.failure(log.Event.SERVER_FAILED, error, request_id=Id(request_id))
            if ended:  # Starlette has answered with our own handler and passes the fault on
                return
            if begun:
                raise
            problem = error if isinstance(error, Problem) else internal()
            await response(problem, request_id)(scope, receive, send)


def _headers(problem: Problem, request_id: str, retention: str) -> dict[str, str]:
    headers = {
        "content-type": "application/json",
        "x-request-id": request_id,
        "x-keepless-retention": retention,
        **problem.headers,
    }
    if not problem.retry:
        headers["x-should-retry"] = "false"
    if problem.status == 401:
        headers["www-authenticate"] = "Bearer"
    return headers


def _stamped(headers: list[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
    present = {name.lower() for name, _ in headers}
    own = ((b"x-request-id", request_id.encode()), (b"x-keepless-retention", NOTHING_KEPT.encode()))
    return [*headers, *((name, value) for name, value in own if name not in present)]


def response(problem: Problem, request_id: str) -> Response:
    """An answer of Starlette's."""
    return Response(
        error_json(problem), status_code=problem.status, headers=_headers(problem, request_id, NOTHING_KEPT)
    )


def _request_id(request: Request) -> str:
    return str(request.scope.get(REQUEST_ID) or mint(Prefix.REQUEST))


async def _on_problem(request: Request, error: Exception) -> Response:
    return response(error if isinstance(error, Problem) else internal(), _request_id(request))


async def _on_http(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    known = _OF_ROUTER.get(status)
    headers = getattr(error, "headers", None) or {}
    problem = Problem(status, known[0], known[1], headers=headers) if known is not None else internal()
    return response(problem, _request_id(request))


_OF_ROUTER: Final = {
    404: (Code.UNKNOWN_URL, "Unknown request URL. Please check the method and the path."),
    405: (Code.METHOD_NOT_ALLOWED, "This method is not allowed here. The allow header names those that are."),
}
