"""What may be asked about a response afterwards: nothing, and why."""

import json
from typing import cast

import pytest
from starlette.applications import Starlette

from keepless.accounts.lease import Lease
from keepless.gateway.response_routes import routes
from keepless.http import problems
from tests.support.asgi import call as through_asgi
from tests.support.way import KEY, FakeLease

M = "MARKER"


@pytest.mark.parametrize("base", ["/v1", "/openai/v1"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("DELETE", ""), ("GET", "/input_items"), ("POST", "/cancel")],
)
def test_no_response_is_kept(base: str, method: str, path: str) -> None:
    app = problems.Guard(
        Starlette(routes=routes(cast("Lease", FakeLease())), exception_handlers=dict(problems.handlers()))
    )
    url = f"{base}/responses/resp_{M}{path}"
    answered = through_asgi(app, method, url, {"authorization": f"Bearer {KEY}"})
    error = json.loads(answered.body)["error"]
    assert (answered.status, error["code"]) == (404, "not_found")
    assert "not stored" in error["message"]
    assert M.encode() not in answered.body
    assert through_asgi(app, method, url, {}).status == 401


def test_counting_has_one_method() -> None:
    app = Starlette(routes=routes(cast("Lease", FakeLease())), exception_handlers=dict(problems.handlers()))
    answered = through_asgi(problems.Guard(app), "PUT", "/v1/responses/input_tokens", {})
    assert (answered.status, answered.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("base", ["/v1", "/openai/v1"])
def test_compacting_is_not_served_and_says_so(base: str) -> None:
    app = problems.Guard(
        Starlette(routes=routes(cast("Lease", FakeLease())), exception_handlers=dict(problems.handlers()))
    )
    answered = through_asgi(app, "POST", f"{base}/responses/compact", {"authorization": f"Bearer {KEY}"})
    error = json.loads(answered.body)["error"]
    assert (answered.status, error["code"]) == (404, "not_found")
    assert "not served" in error["message"]
    assert through_asgi(app, "POST", f"{base}/responses/compact", {}).status == 401
    assert through_asgi(app, "POST", f"{base}/responses/resp_{M}/{M}", {}).status == 404  # as any unknown address
