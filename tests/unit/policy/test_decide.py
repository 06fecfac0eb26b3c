"""decide() over the full product of what it depends on; the expected answers are written out, not derived from it."""

from dataclasses import replace
from itertools import product

import pytest

from keepless.policy.controls import Controls, RequestControls, Source, effective
from keepless.policy.data_class import DataClass, Feature
from keepless.policy.decide import Query, decide
from keepless.policy.decision import Discard, DiscardReason, Reason, Retain, Trigger

DAY = 86_400_000
NOW = 1_790_000_000_000

# The promises, from the page that customers read: class -> (feature, days or None, the one trigger that may ask for it)
PROMISED = {
    "reliability_log": ("inference_logging", 30, "reliability_error"),
    "abuse_log": ("inference_logging", 30, "abuse_case"),
    "upload_part": ("batch", 1, "feature"),
    "batch_input": ("batch", 30, "feature"),
    "batch_output": ("batch", 30, "feature"),
    "batch_error": ("batch", 30, "feature"),
    "batch_work": ("batch", 30, "feature"),
    "fine_tuning_dataset": ("fine_tuning", None, "feature"),
    "fine_tuning_work": ("fine_tuning", None, "feature"),
    "model_weights": ("fine_tuning", None, "feature"),
}
REQUESTS = {
    "says nothing": RequestControls(),
    "keep nothing": RequestControls(keep_nothing=True),
    "zero upstream": RequestControls(keep_nothing=True, zero_upstream=True),
}
# what a level has set: (zero data retention, features off)
LEVELS = {
    "default": (False, ()),
    "zdr": (True, ()),
    "no logs": (False, ("inference_logging",)),
    "no batch": (False, ("batch",)),
    "no tuning": (False, ("fine_tuning",)),
    "all off": (False, ("inference_logging", "batch", "fine_tuning")),
    "zdr over no batch": (True, ("batch",)),
}


def controls(level: str) -> Controls:
    zdr, off = LEVELS[level]
    return Controls(zdr, frozenset(Feature(name) for name in off))


def expected(data_class: str, trigger: str, organization: str, project: str, request: str) -> str:
    """What a careful person would answer, reading PRODUCT 2 and 3 aloud."""
    feature, _, rightful = PROMISED[data_class]
    if trigger == "none":
        return "no_trigger"
    if trigger != rightful:
        return "wrong_trigger"
    if LEVELS[organization][0] or LEVELS[project][0]:
        return "zero_data_retention"
    if feature in LEVELS[organization][1] or feature in LEVELS[project][1]:
        return "opted_out" if feature == "inference_logging" else "feature_off"
    if request != "says nothing":
        return "request_forbids"
    return "retain"


def query(data_class: str = "reliability_log", trigger: str = "reliability_error") -> Query:
    return Query(
        organization_id="org_a",
        project_id="proj_a",
        data_class=DataClass(data_class),
        trigger=Trigger(trigger),
        reason=Reason.ENGINE_CRASH,
        effective=effective(Controls()),
        epoch=7,
        created_at_ms=NOW,
        request_id="req_a",
    )


@pytest.mark.parametrize("data_class", PROMISED)
def test_the_whole_product(data_class: str) -> None:
    _, days, _ = PROMISED[data_class]
    retained = 0
    for trigger, organization, project, request, held in product(Trigger, LEVELS, LEVELS, REQUESTS, (False, True)):
        asked = replace(
            query(data_class, trigger),
            effective=effective(controls(organization), controls(project)),
            request=REQUESTS[request],
            held=held,
        )
        decision, answer = decide(asked), expected(data_class, trigger, organization, project, request)
        case = (data_class, trigger, organization, project, request, held)
        if answer == "retain":
            retained += 1
            assert isinstance(decision, Retain), case
            assert decision.expires_at_ms == (None if days is None else NOW + days * DAY), case
            assert (decision.organization_id, decision.project_id) == ("org_a", "proj_a")
            assert (decision.epoch, decision.created_at_ms, decision.request_id) == (7, NOW, "req_a")
            assert (decision.data_class, decision.reason) == (DataClass(data_class), Reason.ENGINE_CRASH)
        else:
            assert isinstance(decision, Discard), case
            assert decision.reason.value == answer, case
    assert retained > 0  # the product is not all refusals


def test_every_class_and_trigger_is_in_the_product() -> None:
    assert {name.value for name in DataClass} == set(PROMISED)
    assert {rightful for _, _, rightful in PROMISED.values()} | {"none"} == {trigger.value for trigger in Trigger}
    assert {feature for feature, _, _ in PROMISED.values()} == {feature.value for feature in Feature}


@pytest.mark.parametrize("data_class", PROMISED)
@pytest.mark.parametrize("trigger", list(Trigger))
def test_an_unreadable_policy_keeps_nothing(data_class: str, trigger: Trigger) -> None:
    decision = decide(replace(query(data_class, trigger), effective=None))
    assert decision == Discard(DiscardReason.POLICY_UNREADABLE)


@pytest.mark.parametrize(
    ("organization", "project", "source"),
    [
        (Controls(True), Controls(), Source.ORGANIZATION),
        (Controls(), Controls(True), Source.PROJECT),
        (Controls(True), Controls(True), Source.ORGANIZATION),
        (Controls(off=frozenset({Feature.INFERENCE_LOGGING})), Controls(), Source.ORGANIZATION),
        (Controls(), Controls(off=frozenset({Feature.INFERENCE_LOGGING})), Source.PROJECT),
    ],
)
def test_a_refusal_names_the_level_that_decided(organization: Controls, project: Controls, source: Source) -> None:
    decision = decide(replace(query(), effective=effective(organization, project)))
    assert isinstance(decision, Discard) and decision.source is source


def test_a_request_that_refuses_is_named_as_the_source() -> None:
    decision = decide(replace(query(), request=RequestControls(keep_nothing=True)))
    assert decision == Discard(DiscardReason.REQUEST_FORBIDS, Source.REQUEST)


@pytest.mark.parametrize(
    ("days", "asked", "end"),
    [
        ({}, None, NOW + 30 * DAY),
        ({}, NOW + DAY, NOW + DAY),
        ({}, NOW + 90 * DAY, NOW + 30 * DAY),  # an end that is asked for never lengthens
        ({DataClass.RELIABILITY_LOG: 2}, None, NOW + 2 * DAY),
        ({DataClass.RELIABILITY_LOG: 2}, NOW + DAY, NOW + DAY),
        ({DataClass.ABUSE_LOG: 2}, None, NOW + 30 * DAY),
    ],
)
def test_the_end_is_the_earliest_of_all(days: dict[DataClass, int], asked: int | None, end: int) -> None:
    decision = decide(replace(query(), effective=effective(Controls(retention_days=days)), ends_at_ms=asked))
    assert isinstance(decision, Retain) and decision.expires_at_ms == end


def test_an_end_may_be_asked_for_what_has_none() -> None:
    decision = decide(replace(query("model_weights", "feature"), ends_at_ms=NOW + DAY))
    assert isinstance(decision, Retain) and decision.expires_at_ms == NOW + DAY


def test_nobody_else_can_mint_a_permit() -> None:
    decision = decide(query())
    assert isinstance(decision, Retain)
    with pytest.raises(TypeError):
        replace(decision, seal=object())
