"""How many lines of batches go to a model at once: what its owner says, else by its engine, and never none."""

import msgspec
import pytest

from keepless.batches.values import BatchEndpoint
from keepless.config import ModelConfig
from keepless.jobs.driver import ENDPOINT_OF, concurrency_of

UPSTREAM = {"id": "m", "engine": "openai", "base_url": "http://127.0.0.1:9/v1", "retention": "zero"}
OWN = {"id": "m", "engine": "llama"}


@pytest.mark.parametrize(
    ("model", "most"),
    [
        (UPSTREAM, 64),
        (UPSTREAM | {"batch_concurrency": 3}, 3),
        (OWN | {"parallel": 1}, 1),
        (OWN | {"parallel": 4}, 2),
        (OWN | {"parallel": 4, "batch_concurrency": 4}, 4),
    ],
    ids=["upstream", "upstream, said", "one place", "half of its places", "said"],
)
def test_batches_have_a_concurrency_of_their_own(model: dict[str, object], most: int) -> None:
    assert concurrency_of(msgspec.convert(model, ModelConfig)) == most


def test_every_endpoint_of_batches_is_one_of_the_gateway() -> None:
    assert set(ENDPOINT_OF) == set(BatchEndpoint)
    assert {one.value: f"/v1/{at.value.replace('.', '/')}" for one, at in ENDPOINT_OF.items()} == {
        one.value: one.value for one in BatchEndpoint
    }
