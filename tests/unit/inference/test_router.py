"""The catalogue."""

import pytest
import uvloop

from keepless.config import DEFAULT_MODEL, Engine, ModelConfig, UpstreamConfig, UpstreamRetention
from keepless.inference.router import Route, Router, allowed_modes


class NoBackend:
    def __init__(self) -> None:
        self.closed = 0

    def start(self, call: object, sink: object) -> object:
        raise AssertionError

    @property
    def healthy(self) -> bool:
        return True

    async def close(self) -> None:
        self.closed += 1


def model(id: str, *retentions: UpstreamRetention) -> ModelConfig:
    upstreams = [UpstreamConfig(base_url="http://x", retention=retention) for retention in retentions]
    return ModelConfig(id=id, engine=Engine.OPENAI, upstreams=upstreams)


def route(*retentions: UpstreamRetention) -> Route:
    return Route(model("up", *retentions), *(NoBackend() for _ in retentions))


def test_allowed_modes_are_those_of_all_its_upstreams_together() -> None:
    both = ("default", "zero_data_retention")
    assert allowed_modes(Route(DEFAULT_MODEL, NoBackend())) == both
    assert allowed_modes(route(UpstreamRetention.ZERO)) == both
    assert allowed_modes(route(UpstreamRetention.LOGS_30D)) == ("default",)
    assert allowed_modes(route(UpstreamRetention.UNKNOWN, UpstreamRetention.LOGS_30D)) == ("default",)
    assert allowed_modes(route(UpstreamRetention.UNKNOWN, UpstreamRetention.ZERO)) == both


def test_one_upstream_in_the_entry_itself_is_the_only_target() -> None:
    plain = ModelConfig(id="m", engine=Engine.OPENAI, base_url="http://x", region="eu", upstream_model="theirs")
    only = Route(plain, NoBackend()).only
    assert only is not None
    assert (only.region, only.retention, only.name) == ("eu", UpstreamRetention.UNKNOWN, "theirs")
    assert route(UpstreamRetention.ZERO, UpstreamRetention.ZERO).only is None
    with pytest.raises(ValueError, match="zip"):
        Route(plain, NoBackend(), NoBackend())


def test_the_catalogue_keeps_its_order_and_closes_each_engine_once() -> None:
    shared = NoBackend()
    zero = UpstreamRetention.ZERO
    router = Router([Route(model("b", zero, zero), shared, shared), Route(model("a", zero), shared)])
    assert [model.id for model in router.models()] == ["b", "a"]
    assert [len(route.targets) for route in router.routes()] == [2, 1]
    assert router.route("a") is not None
    assert router.route("A") is None
    uvloop.run(router.close())
    assert shared.closed == 1
