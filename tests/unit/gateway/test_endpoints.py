"""Every endpoint has a path below both bases, and one handler for HTTP and batches."""

import asyncio

import pytest
from starlette.applications import Starlette

from keepless.gateway.endpoints import BASES, PATHS, fast_paths, other_methods
from keepless.http import problems
from tests.support.asgi import call as through_asgi
from tests.support.way import Harness


def test_every_handler_has_its_paths() -> None:
    async def main() -> None:
        harness = Harness()
        assert harness.handlers.keys() == PATHS.keys()
        paths = fast_paths(harness.handlers)
        assert len(paths) == len(PATHS) * len(BASES)
        for endpoint, path in PATHS.items():
            for base in BASES:
                assert paths[f"{base}{path}".encode()] is harness.handlers[endpoint]
        harness.close()

    asyncio.run(main())


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_an_inference_endpoint_has_one_method_and_says_so(method: str) -> None:
    app = problems.Guard(Starlette(routes=other_methods(), exception_handlers=dict(problems.handlers())))
    for url in (base + path for base in BASES for path in PATHS.values()):
        answered = through_asgi(app, method, url, {})
        assert (answered.status, answered.headers["allow"]) == (405, "POST"), url
        assert b"method_not_allowed" in answered.body
