"""Health checks of upstreams: what is sent, what counts, and when they end."""

import asyncio

import uvloop

from keepless.config import Engine, ModelConfig, UpstreamConfig
from keepless.inference.checks import HealthChecks
from keepless.inference.router import Route
from keepless.inference.upstream import upstream_backends
from tests.support.upstream import MockUpstream


def route_to(*urls: str, path: str | None = "/health") -> Route:
    upstreams = [UpstreamConfig(base_url=url, health_path=path, health_seconds=0.1) for url in urls]
    model = ModelConfig(id="m", engine=Engine.OPENAI, upstreams=upstreams)
    return Route(model, *upstream_backends(model))


async def until(condition) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")


def test_down_after_two_misses_and_up_again() -> None:
    with MockUpstream() as mock:

        async def main() -> None:
            route = route_to(mock.base_url, "http://127.0.0.1:1/v1")
            checks = HealthChecks(route.targets)
            checks.start(asyncio.get_running_loop())
            one, nobody = route.targets
            await until(lambda: nobody.health.down)
            assert not one.health.down
            mock.health = 503
            await until(lambda: one.health.down)
            mock.health = 204
            await until(lambda: not one.health.down)
            checks.stop()
            for target in route.targets:
                await target.backend.close()
            asked = len(mock.received)
            await asyncio.sleep(0.3)
            assert len(mock.received) == asked

        uvloop.run(main())
        got = mock.received[0]
        assert (got.path, got.body, "authorization" in got.headers) == ("/health", b"", False)


def test_without_a_path_nobody_is_asked() -> None:
    with MockUpstream() as mock:

        async def main() -> None:
            route = route_to(mock.base_url, mock.base_url, path=None)
            checks = HealthChecks(route.targets)
            checks.start(asyncio.get_running_loop())
            await asyncio.sleep(0.3)
            checks.stop()

        uvloop.run(main())
        assert mock.received == []
