"""The refusal of a feature that is off."""

import pytest

from keepless.policy.controls import Source
from keepless.policy.data_class import Feature
from keepless.policy.refusal import feature_disabled


@pytest.mark.parametrize("source", Source)
@pytest.mark.parametrize("feature", Feature)
def test_it_names_the_control_and_who_can_change_it_and_is_not_retried(feature: Feature, source: Source) -> None:
    problem = feature_disabled(feature, source)
    assert (problem.status, problem.code.value, problem.retry) == (403, "feature_disabled_by_data_controls", False)
    assert feature.value in problem.message
    assert "owner" in problem.message
