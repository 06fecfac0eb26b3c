"""Who may be routed where: the whole table. And what a target learns from how requests end."""

import itertools
import time

import pytest

from keepless.config import DEFAULT_MODEL, Engine, ModelConfig, UpstreamConfig, UpstreamRetention
from keepless.errors import Code
from keepless.inference import faults
from keepless.inference.backend import Failure, FailureKind
from keepless.inference.health import Standing
from keepless.inference.target import Target, eligible
from tests.support.way import FakeBackend


def target(retention: UpstreamRetention = UpstreamRetention.ZERO, region: str | None = None) -> Target:
    upstream = UpstreamConfig(base_url="http://x", retention=retention, region=region)
    return Target(ModelConfig(id="up", engine=Engine.OPENAI, breaker_failures=1), 0, FakeBackend(), upstream)


@pytest.mark.parametrize(
    ("retention", "declared", "zero_only", "pinned"),
    list(itertools.product(UpstreamRetention, ("us", "eu", None), (False, True), (None, "us"))),
)
def test_eligible(retention: UpstreamRetention, declared: str | None, zero_only: bool, pinned: str | None) -> None:
    problem = eligible(target(retention, declared), zero_only=zero_only, region=pinned)
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
    embedded = Target(DEFAULT_MODEL, 0, FakeBackend(), None)
    assert eligible(embedded, zero_only=zero_only, region=region) is None
    assert (embedded.retention, embedded.said) == (UpstreamRetention.ZERO, b"")


ENDINGS = {
    "answered": (None, True, Standing.WELL, 0),
    "the client left": (None, False, Standing.WELL, 0),
    "unreachable": (faults.of_failure(Failure(FailureKind.UNREACHABLE)), False, Standing.AVOIDED, 1),
    "our own queue": (faults.of_failure(Failure(FailureKind.BUSY, 1)), False, Standing.WELL, 0),
    "not permitted": (faults.of_failure(Failure(FailureKind.WITHDRAWN)), False, Standing.WELL, 0),
    "500": (faults.of_status(500, None, embedded=False), False, Standing.AVOIDED, 1),
    "401": (faults.of_status(401, None, embedded=False), False, Standing.AVOIDED, 1),
    "429": (faults.of_status(429, 9, embedded=False), False, Standing.AVOIDED, 0),
    "a fault of ours": (faults.internal(), False, Standing.WELL, 0),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_an_ending_says_of_its_health(ending: str) -> None:
    fault, answered, standing, failures = ENDINGS[ending]
    one = target()
    one.take()
    assert one.in_flight == 1
    one.leave(fault, answered=answered)
    assert (one.in_flight, one.tries, one.failures) == (0, 1, failures)
    assert one.standing(time.monotonic()) is standing
    assert one.healthy == (failures == 0)
    assert one.reachable
