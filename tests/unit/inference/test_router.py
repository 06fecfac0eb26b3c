"""Who may be routed where: the whole table."""

import itertools

import pytest
import uvloop

from keepless.config import DEFAULT_MODEL, Engine, ModelConfig, UpstreamRetention
from keepless.errors import Code
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


def upstream(retention: UpstreamRetention, region: str | None, id: str = "up") -> Route:
    model = ModelConfig(id=id, engine=Engine.OPENAI, base_url="http://x", retention=retention, region=region)
    return Route(model, NoBackend())


@pytest.mark.parametrize(
    ("retention", "declared", "zero_only", "pinned"),
    list(itertools.product(UpstreamRetention, ("us", "eu", None), (False, True), (None, "us"))),
)
def test_eligible(retention: UpstreamRetention, declared: str | None, zero_only: bool, pinned: str | None) -> None:
    problem = Router.eligible(upstream(retention, declared), zero_only=zero_only, region=pinned)
    keeps, elsewhere = retention is not UpstreamRetention.ZERO, declared != "us"
    if zero_only and keeps:
        assert problem is not None
        assert problem.code is Code.UPSTREAM_RETENTION
        assert retention.value in problem.message
        assert "ero data retention" in problem.message
    elif pinned and elsewhere:
        assert problem is not None
        assert problem.code is Code.UPSTREAM_REGION
    else:
        assert problem is None
    if problem is not None:
        assert (problem.status, problem.retry) == (403, False)


@pytest.mark.parametrize(("zero_only", "region"), list(itertools.product((False, True), (None, "us", "eu"))))
def test_an_embedded_engine_is_always_eligible(zero_only: bool, region: str | None) -> None:
    assert Router.eligible(Route(DEFAULT_MODEL, NoBackend()), zero_only=zero_only, region=region) is None


def test_allowed_modes() -> None:
    both = ("default", "zero_data_retention")
    assert allowed_modes(DEFAULT_MODEL) == both
    assert allowed_modes(upstream(UpstreamRetention.ZERO, None).model) == both
    assert allowed_modes(upstream(UpstreamRetention.LOGS_30D, None).model) == ("default",)
    assert allowed_modes(upstream(UpstreamRetention.UNKNOWN, None).model) == ("default",)


def test_the_catalogue_keeps_its_order_and_closes_each_engine_once() -> None:
    shared = NoBackend()
    first, second = upstream(UpstreamRetention.ZERO, None, "b"), upstream(UpstreamRetention.ZERO, None, "a")
    router = Router([Route(first.model, shared), Route(second.model, shared)])
    assert [model.id for model in router.models()] == ["b", "a"]
    assert router.route("a") is not None
    assert router.route("A") is None
    uvloop.run(router.close())
    assert shared.closed == 1
