"""The caller's policy as the lease knows it, for exactly one upstream."""

from collections.abc import Callable
from typing import cast

import pytest

from keepless.accounts.lease import Lease
from keepless.accounts.tuned import Tuned
from keepless.config import Engine, ModelConfig, UpstreamConfig, UpstreamRetention
from keepless.ids import Prefix, mint
from keepless.inference.asking import Ask
from keepless.inference.permission import refusal
from keepless.inference.router import Route
from keepless.inference.target import Target
from keepless.policy.controls import NO_REQUEST, Controls
from keepless.policy.data_class import Feature
from tests.support.way import ORGANIZATION, PROJECT, FakeBackend, FakeLease
from tests.unit.inference.test_metering import ask_of

ZERO, LOGS = UpstreamRetention.ZERO, UpstreamRetention.LOGS_30D


def asked() -> Ask:
    ask = ask_of(Engine.OPENAI)
    ask.controls = NO_REQUEST
    return ask


@pytest.mark.parametrize(
    ("change", "zero", "logs"),
    [
        (lambda _: None, None, None),
        (lambda lease: lease.set(Controls(zero_data_retention=True)), None, "upstream_retention_not_allowed"),
        (lambda lease: setattr(lease, "valid", False), None, "policy_unreadable"),
        (lambda lease: lease.set(region="eu"), None, None),
        (lambda lease: lease.set(region="us"), "upstream_region_not_allowed", "upstream_region_not_allowed"),
        (lambda lease: setattr(lease, "known", None), "invalid_api_key", "invalid_api_key"),
    ],
)
def test_refusal(change: Callable[[FakeLease], None], zero: str | None, logs: str | None) -> None:
    lease, ask = FakeLease(), asked()
    change(lease)
    model = ModelConfig(id="m", engine=Engine.OPENAI)
    for retention, region, code in ((ZERO, "eu", zero), (LOGS, "eu", logs)):
        upstream = UpstreamConfig(base_url="http://x", retention=retention, region=region)
        found = refusal(cast("Lease", lease), ask, Target(model, 0, FakeBackend(), upstream))
        assert (None if found is None else found.problem.code.value) == code


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda _: None, None),
        (lambda lease: lease.models.clear(), "model_not_found"),
        (lambda lease: lease.set(Controls(off=frozenset({Feature.FINE_TUNING}))), "feature_disabled_by_data_controls"),
        (lambda lease: lease.set(Controls(zero_data_retention=True)), "feature_disabled_by_data_controls"),
        (lambda lease: setattr(lease, "valid", False), "policy_unreadable"),
    ],
    ids=["served", "deleted", "off", "zdr", "no lease"],
)
def test_of_a_tuned_model(change: Callable[[FakeLease], None], code: str | None) -> None:
    lease, ask = FakeLease(), asked()
    tuned = Tuned("0123456789ab", ORGANIZATION, PROJECT, "m", mint(Prefix.OBJECT), 1)
    lease.models[tuned.hexadecimal] = tuned
    ask.route = Route(ModelConfig(id="ft:m:0123456789ab"), FakeBackend(), tuned=tuned)
    change(lease)
    found = refusal(cast("Lease", lease), ask, ask.route.targets[0])
    assert (None if found is None else found.problem.code.value) == code
