"""Batches by real worker processes against a real upstream: run, refuse, retry, cancel, expire, survive."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from keepless.batches.values import BatchState, Counts
from tests.support.batching import Floor, lines
from tests.support.upstream import Behaviour, MockUpstream


@pytest.fixture(scope="module")
def upstream() -> Iterator[MockUpstream]:
    with MockUpstream() as mock:
        yield mock


def models(upstream: MockUpstream) -> list[dict[str, object]]:
    return [
        {"id": behaviour.value, "engine": "openai", "base_url": upstream.base_url, "retention": "zero",
         "first_byte_timeout": 2.0}
        for behaviour in (Behaviour.OK, Behaviour.ERROR_400, Behaviour.NEVER, Behaviour.SLOW_HEAD)
    ]  # fmt: skip


@pytest.fixture
def floor(tmp_path: Path, upstream: MockUpstream) -> Iterator[Floor]:
    made = Floor(tmp_path, models(upstream))
    yield made
    made.close()


def test_a_batch_is_run_and_delivered(floor: Floor) -> None:
    batch_id = floor.batch(lines(250))
    with floor.worker():
        batch = floor.ended(batch_id)
    assert batch.state is BatchState.COMPLETED
    assert batch.counts == Counts(250, 250, 0)
    floor.assert_each_once(batch_id, 250)
