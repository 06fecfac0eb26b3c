"""How a client is told that a feature is off: the control, the level that decided, and who can change it.

Holds: `feature_disabled`, `feature_refused`. Leaves out: the decision itself (decide, controls).
"""

from typing import Final

from keepless.errors import Code, Problem
from keepless.policy.controls import Source
from keepless.policy.data_class import Feature
from keepless.policy.decision import Discard, DiscardReason

__all__ = ["feature_disabled", "feature_refused"]

_BY: Final = {
    Source.ORGANIZATION: "your organization",
    Source.ORGANIZATION_ZDR: "Zero Data Retention of your organization",
    Source.PROJECT: "your project",
    Source.PROJECT_ZDR: "Zero Data Retention of your project",
}


_ZDR_OF: Final = {Source.ORGANIZATION: Source.ORGANIZATION_ZDR, Source.PROJECT: Source.PROJECT_ZDR}


def feature_refused(feature: Feature, discard: Discard) -> Problem:
    """The same for who may not keep what the feature needs kept: whose switch it was, or whose Zero Data Retention."""
    zero = discard.reason is DiscardReason.ZERO_DATA_RETENTION
    return feature_disabled(feature, _ZDR_OF.get(discard.source, discard.source) if zero else discard.source)


def feature_disabled(feature: Feature, source: Source = Source.SCHEDULE) -> Problem:
    """403; both SDKs are told not to try again."""
    by = _BY.get(source, "the data controls")
    return Problem(
        403,
        Code.FEATURE_DISABLED,
        f"The feature {feature.value} is turned off by {by}. An owner can change the data controls.",
        retry=False,
    )
