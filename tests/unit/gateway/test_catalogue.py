"""What a model serves: the operator's word, or the engine's."""

import msgspec
import pytest

from keepless.config import Endpoint, Engine, ModelConfig
from keepless.gateway.catalogue import capabilities_of, does_not_serve, endpoints_of
from keepless.ids import trusted
from keepless.inference.embedded.dialect import CAPABILITIES
from tests.support.way import MODELS

WITHOUT_A_MODEL = {Endpoint.FILES, Endpoint.UPLOADS, Endpoint.BATCHES, Endpoint.FINE_TUNINGS, Endpoint.OTHER}
BY_ID = {model.id: model for model in MODELS}


def test_capabilities_are_the_operators_or_the_engines() -> None:
    assert capabilities_of(BY_ID["embedded"]) == CAPABILITIES
    assert capabilities_of(BY_ID["zero"]) is None
    listed = msgspec.structs.replace(BY_ID["zero"], capabilities=["tools"])
    assert capabilities_of(listed) == {"tools"}


@pytest.mark.parametrize("engine", Engine)
def test_every_engine_serves_something_and_the_operator_may_say_what(engine: Engine) -> None:
    model = ModelConfig(id="m", engine=engine)
    assert endpoints_of(model)
    listed = msgspec.structs.replace(model, endpoints=[Endpoint.EMBEDDINGS])
    assert endpoints_of(listed) == {Endpoint.EMBEDDINGS}


@pytest.mark.parametrize("endpoint", [endpoint for endpoint in Endpoint if endpoint not in WITHOUT_A_MODEL])
def test_the_refusal_names_the_endpoint(endpoint: Endpoint) -> None:
    problem = does_not_serve(trusted("m"), endpoint)
    assert problem.message.startswith("The model `m` does not support ")
    assert (problem.status, problem.param, problem.retry) == (400, "model", False)
