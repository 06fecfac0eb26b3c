"""Errors as OpenAI's JSON."""

import io
import json
import sys
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from keepless import log
from keepless.errors import Code, ErrorType, Problem
from keepless.http import problems
from tests.support.asgi import call

SECRET = "MARKER-in-an-exception"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    log.redirect(stream)
    yield stream
    log.redirect(sys.stderr)


def test_render_writes_openai_json_and_our_headers() -> None:
    problem = Problem(400, Code.INVALID_VALUE, "no", param="temperature", extra={"objects": 3})
    status, headers, body = problems.render(problem, "req_x")
    assert status == 400
    assert headers == b"content-type: application/json\r\nx-request-id: req_x\r\nx-keepless-retention: none\r\n"
    assert json.loads(body) == {
        "error": {
            "message": "no",
            "type": "invalid_request_error",
            "code": "invalid_value",
            "param": "temperature",
            "objects": 3,
        }
    }


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (Problem(403, Code.FEATURE_DISABLED, "no", retry=False), b"x-should-retry: false\r\n"),
        (Problem(503, Code.OVERLOADED, "no", headers={"retry-after": "3"}), b"retry-after: 3\r\n"),
        (Problem(401, Code.INVALID_API_KEY, "no", type=ErrorType.AUTHENTICATION), b"www-authenticate: Bearer\r\n"),
    ],
)
def test_render_headers(problem: Problem, line: bytes) -> None:
    assert line in problems.render(problem, "req_x")[1]


def test_render_says_what_was_kept() -> None:
    headers = problems.render(problems.internal(), "req_x", "class=reliability_log; object=obj_1")[1]
    assert b"x-keepless-retention: class=reliability_log; object=obj_1\r\n" in headers
    assert b": none" not in headers


async def _fine(_: Request) -> Response:
    return PlainTextResponse("ok")


async def _kept(_: Request) -> Response:
    return PlainTextResponse("ok", headers={"X-Keepless-Retention": "class=batch_input"})


async def _refused(_: Request) -> Response:
    raise Problem(412, Code.EPOCH_MISMATCH, "Decide again.", retry=False)


async def _broken(_: Request) -> Response:
    raise ValueError(SECRET)


def _app() -> problems.Guard:
    routes = [Route(f"/v1/{f.__name__[1:]}", f) for f in (_fine, _kept, _refused, _broken)]
    return problems.Guard(Starlette(routes=routes, exception_handlers=dict(problems.handlers())))


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "retention"),
    [
        ("GET", "/v1/fine", 200, None, "none"),
        ("GET", "/v1/kept", 200, None, "class=batch_input"),
        ("GET", "/v1/refused", 412, "epoch_mismatch", "none"),
        ("GET", "/v1/broken", 500, "internal_error", "none"),
        ("GET", f"/v1/{SECRET}", 404, "unknown_url", "none"),
        ("POST", "/v1/fine", 405, "method_not_allowed", "none"),
    ],
)
def test_every_answer_is_stamped_and_silent(
    method: str, path: str, status: int, code: str | None, retention: str, lines: io.StringIO
) -> None:
    answer = call(_app(), method, path)
    assert answer.status == status
    assert answer.headers["x-keepless-retention"] == retention
    assert answer.headers["x-request-id"].startswith("req_")
    if code is not None:
        assert json.loads(answer.body)["error"]["code"] == code
    assert SECRET.encode() not in answer.body
    assert SECRET not in lines.getvalue()


def test_a_fault_after_the_head_is_raised_so_that_the_connection_is_cut(lines: io.StringIO) -> None:
    async def half(scope: Scope, receive: Receive, send: Send) -> None:
        start: Message = {"type": "http.response.start", "status": 200, "headers": []}
        await send(start)
        raise ValueError(SECRET)

    with pytest.raises(ValueError, match=SECRET):
        call(problems.Guard(half), "GET", "/v1/x")
    assert SECRET not in lines.getvalue()
