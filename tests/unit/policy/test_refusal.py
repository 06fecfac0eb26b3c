"""The refusal of a feature that is off."""

import pytest

from keepless.policy.controls import Source
from keepless.policy.data_class import Feature
from keepless.policy.decision import Discard, DiscardReason
from keepless.policy.refusal import feature_disabled, feature_refused


@pytest.mark.parametrize("source", Source)
@pytest.mark.parametrize("feature", Feature)
def test_it_names_the_control_and_who_can_change_it_and_is_not_retried(feature: Feature, source: Source) -> None:
    problem = feature_disabled(feature, source)
    assert (problem.status, problem.code.value, problem.retry) == (403, "feature_disabled_by_data_controls", False)
    assert feature.value in problem.message
    assert "owner" in problem.message


@pytest.mark.parametrize(
    ("discard", "by"),
    [
        (Discard(DiscardReason.ZERO_DATA_RETENTION, Source.ORGANIZATION), "Zero Data Retention of your organization"),
        (Discard(DiscardReason.ZERO_DATA_RETENTION, Source.PROJECT), "Zero Data Retention of your project"),
        (Discard(DiscardReason.FEATURE_OFF, Source.PROJECT), "turned off by your project"),
        (Discard(DiscardReason.FEATURE_OFF, Source.ORGANIZATION_ZDR), "Zero Data Retention of your organization"),
    ],
)
def test_whoever_may_not_keep_is_told_by_which_control(discard: Discard, by: str) -> None:
    assert by in feature_refused(Feature.BATCH, discard).message
