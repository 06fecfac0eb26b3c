"""One word for how a model is."""

import os
from collections.abc import Iterator

import pytest

from keepless.config import Engine, ModelConfig, UpstreamConfig
from keepless.inference.condition import Reach, condition_of, is_well
from keepless.inference.embedded.pulse import Pulses, State
from keepless.inference.router import Route
from tests.support.way import FakeBackend

FLITE = ModelConfig(id="flite", engine=Engine.FLITE)
FAR = ModelConfig(
    id="far", engine=Engine.OPENAI, upstreams=[UpstreamConfig(base_url="http://a"), UpstreamConfig(base_url="http://b")]
)


@pytest.fixture
def pulses() -> Iterator[Pulses]:
    made = Pulses(1)
    yield made
    os.close(made.fd)


@pytest.mark.parametrize("state", State)
def test_of_an_engine_its_supervisor_has_the_word(pulses: Pulses, state: State) -> None:
    route = Route(FLITE, FakeBackend(healthy=False), pulse=pulses[0])
    pulses[0].tell(state)
    assert condition_of(route) is state
    assert is_well(state) is (state not in (State.CRASHED, State.MISSING))


@pytest.mark.parametrize(("healthy", "word"), [(True, State.RUNNING), (False, State.MISSING)])
def test_without_a_supervisor_the_engine_s_socket_has(healthy: bool, word: State) -> None:
    assert condition_of(Route(FLITE, FakeBackend(healthy=healthy))) is word


def test_of_several_upstreams_the_best_one_counts() -> None:
    backends = [FakeBackend(), FakeBackend()]
    route = Route(FAR, *backends)
    assert condition_of(route) is Reach.UP
    backends[0].healthy = False
    assert condition_of(route) is Reach.UP
    for _ in range(FAR.breaker_failures):
        route.targets[1].health.failed(1.0)
    assert condition_of(route) is Reach.AVOIDED
    assert is_well(Reach.AVOIDED)
    backends[1].healthy = False
    assert condition_of(route) is Reach.DOWN
    assert not is_well(Reach.DOWN)
