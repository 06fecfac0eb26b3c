"""How a client is told that a feature is off: the control, the level that decided, and who can change it.

Holds: `feature_disabled`. Leaves out: the decision itself (decide, controls).
"""

from typing import Final

from keepless.errors import Code, Problem
from keepless.policy.controls import Source
from keepless.policy.data_class import Feature

__all__ = ["feature_disabled"]

_BY: Final = {
    Source.ORGANIZATION: "your organization",
    Source.ORGANIZATION_ZDR: "Zero Data Retention of your organization",
    Source.PROJECT: "your project",
    Source.PROJECT_ZDR: "Zero Data Retention of your project",
}


def feature_disabled(feature: Feature, source: Source = Source.SCHEDULE) -> Problem:
    """403; both SDKs are told not to try again."""
    by = _BY.get(source, "the data controls")
    return Problem(
        403,
        Code.FEATURE_DISABLED,
        f"The feature {feature.value} is turned off by {by}. An owner can change the data controls.",
        retry=False,
    )
