"""What a process says of its models: each in its own word, and ready as long as one of them can be asked."""

import os
from collections.abc import Iterator

import pytest

from keepless.admin.health import exposition
from keepless.app.health import engines_of, models_of
from keepless.config import Engine, ModelConfig
from keepless.inference.embedded.pulse import Pulses, State
from keepless.inference.router import Route
from tests.support.way import FakeBackend

FAR = ModelConfig(id="far", engine=Engine.OPENAI, base_url="http://x")


@pytest.fixture
def pulses() -> Iterator[Pulses]:
    made = Pulses(2)
    yield made
    os.close(made.fd)


@pytest.fixture
def engines(pulses: Pulses) -> list[Route]:
    models = [ModelConfig(id="voice", engine=Engine.FLITE), ModelConfig(id="ears", engine=Engine.WHISPER)]
    return [Route(model, FakeBackend(), pulse=pulses[number]) for number, model in enumerate(models)]


def failing(routes: list[Route]) -> dict[str, tuple[str, bool]]:
    """The checks that do not hold: why, and whether the deployment is ready without them."""
    return {check.name: (check.why, check.vital) for check in models_of(routes) if not check.ok}


@pytest.mark.parametrize(("state", "word"), [(State.CRASHED, "crashed"), (State.MISSING, "not installed")])
def test_one_engine_that_is_gone_is_named_and_the_deployment_stays_ready(
    pulses: Pulses, engines: list[Route], state: State, word: str
) -> None:
    assert failing(engines) == {}
    pulses[0].tell(state)
    ((name, (why, vital)),) = failing(engines).items()
    assert (name, vital) == ("model voice", False)
    assert word in why


def test_without_any_model_it_is_not_ready(pulses: Pulses, engines: list[Route]) -> None:
    pulses[0].tell(State.CRASHED)
    pulses[1].tell(State.MISSING)
    assert failing(engines)["models"] == ("no model can be asked", True)


def test_an_upstream_that_does_not_answer_is_vital(engines: list[Route]) -> None:
    assert failing([*engines, Route(FAR, FakeBackend(healthy=False))]) == {
        "model far": ("its upstreams do not answer", True)
    }


def test_metrics_say_the_word_and_count_crashes(pulses: Pulses, engines: list[Route]) -> None:
    pulses[0].tell(State.CRASHED)
    pulses[1].tell(State.RUNNING)
    lines = exposition(engines_of([*engines, Route(FAR, FakeBackend())])).splitlines()
    ones = {line for line in lines if line.startswith("keepless_engine_state") and line.endswith(" 1")}
    assert ones == {
        'keepless_engine_state{model="voice",state="crashed"} 1',
        'keepless_engine_state{model="ears",state="running"} 1',
    }
    assert 'keepless_engine_crashes_total{model="voice"} 1' in lines
    assert 'keepless_engine_crashes_total{model="ears"} 0' in lines
