"""The decision: may this be kept, and until when? The only minter of `Retain`. Pure and total.

Holds: `Query` (every value the decision depends on) and `decide`. Leaves out: clocks, stores, caps and locations; those
can only turn a `Retain` into nothing kept, never the reverse.

Order of the refusals: policy unreadable, no trigger, wrong trigger for the class, ZDR, feature off, request. A legal
hold is part of the query only to show in tests that it changes nothing here (a hold never starts collection).
"""

from dataclasses import dataclass

from keepless.policy.controls import NO_REQUEST, Effective, RequestControls, Source
from keepless.policy.data_class import DataClass, Feature
from keepless.policy.decision import _SEAL, Decision, Discard, DiscardReason, Reason, Retain, Trigger
from keepless.policy.period import DAY_MS
from keepless.policy.schedule import row_of

__all__ = ["Query", "decide"]


@dataclass(frozen=True, slots=True)
class Query:
    """Everything the decision depends on. `effective` is None when the policy cannot be read.

    `created_at_ms` is one reading of the clock, used for the object's birth and end alike (DECISIONS 15).
    `ends_at_ms` is an earlier end that the customer asked for (`expires_after`), never later than the schedule's.
    """

    organization_id: str
    project_id: str
    data_class: DataClass
    trigger: Trigger
    reason: Reason
    effective: Effective | None
    epoch: int
    created_at_ms: int
    request: RequestControls = NO_REQUEST
    request_id: str | None = None
    ends_at_ms: int | None = None
    held: bool = False


_TRIGGER_OF = {
    DataClass.RELIABILITY_LOG: Trigger.RELIABILITY_ERROR,
    DataClass.ABUSE_LOG: Trigger.ABUSE_CASE,
}


def decide(query: Query) -> Decision:
    """May one object be kept? Returns the permit, or the reason why not."""
    effective = query.effective
    if effective is None:
        return Discard(DiscardReason.POLICY_UNREADABLE)
    if query.trigger is Trigger.NONE:
        return Discard(DiscardReason.NO_TRIGGER)
    if query.trigger is not _TRIGGER_OF.get(query.data_class, Trigger.FEATURE):
        return Discard(DiscardReason.WRONG_TRIGGER)
    feature = row_of(query.data_class).feature
    if effective.zero_data_retention:
        return Discard(DiscardReason.ZERO_DATA_RETENTION, effective.zdr_source)
    if feature not in effective.on:
        reason = DiscardReason.OPTED_OUT if feature is Feature.INFERENCE_LOGGING else DiscardReason.FEATURE_OFF
        return Discard(reason, effective.feature_source[feature])
    if query.request.keep_nothing or query.request.zero_upstream:
        return Discard(DiscardReason.REQUEST_FORBIDS, Source.REQUEST)
    days = effective.days[query.data_class]
    ends = [end for end in (query.ends_at_ms,) if end is not None]
    if days is not None:
        ends.append(query.created_at_ms + days * DAY_MS)
    return Retain(
        seal=_SEAL,
        organization_id=query.organization_id,
        project_id=query.project_id,
        data_class=query.data_class,
        reason=query.reason,
        epoch=query.epoch,
        created_at_ms=query.created_at_ms,
        expires_at_ms=min(ends) if ends else None,
        request_id=query.request_id,
        source=effective.days_source[query.data_class],
    )
