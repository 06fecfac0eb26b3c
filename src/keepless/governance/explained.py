"""One request explained: why it was or was not kept (CONTRACT, `explain`), for the API and for the page.

Holds: `explained`. Leaves out: shapes of answers. Numbers, enums and ids only; a reason is known also when the object
is gone by now.
"""

import time
from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa

from keepless.db import Database
from keepless.ids import Id, requested_at
from keepless.policy.decision import DiscardReason, Reason, Trigger
from keepless.usage import totals
from keepless.usage.record import Outcome
from keepless.vault.tables import kept, tombstone

__all__ = ["explained"]

_FRESH_MS: Final = 1000  # within which the ledger may not have written a row yet
_LOOK_S: Final = 0.05
_WHY: Final = {
    Outcome.NONE: "Nothing was kept: policy did not allow anything of this request to be kept, whatever had happened.",
    Outcome.ON_ERROR: "Nothing was kept: policy allows a capture of a request that fails, and this one did not.",
    Outcome.STORED: "It was kept because the call asked for that. The object says what and until when.",
    Outcome.CAPTURED: "It was captured: policy allows that for its reason. The object says what and until when.",
}
_WHY_NOT: Final = {
    DiscardReason.NO_TRIGGER: "Nothing was kept: nothing happened that is a reason to keep.",
    DiscardReason.WRONG_TRIGGER: "Nothing was kept: what happened is no reason to keep this class.",
    DiscardReason.ZERO_DATA_RETENTION: "Nothing was kept: Zero Data Retention is on.",
    DiscardReason.OPTED_OUT: "Nothing was kept: inference logging is off.",
    DiscardReason.FEATURE_OFF: "Nothing was kept: the feature is off.",
    DiscardReason.REQUEST_FORBIDS: "Nothing was kept: the request itself forbade it.",
    DiscardReason.POLICY_UNREADABLE: "Nothing was kept: the policy could not be read, and then nothing is.",
    DiscardReason.CAPPED: "Nothing was kept: the cap on captures of this kind was reached.",
    DiscardReason.TOO_LARGE: "Nothing was kept: it was larger than a capture may be.",
    DiscardReason.STALE_EPOCH: "Nothing was kept: the policy kept changing while it was being written.",
    DiscardReason.LOCATION_RED: "Nothing was kept: the location does not keep its promises at the moment.",
    DiscardReason.STORE_FAILED: "Nothing was kept: the store failed.",
}


def explained(db: Database, request_id: Id, organization_id: Id) -> dict[str, Any] | None:
    """Everything known of one request of an organization, with `kept`, `why`, `trigger` and `reason`.

    Blocks for up to a second when the request was a moment ago: its row may still be on its way.
    """
    found = totals.explain(db, request_id, organization_id)
    while found is None and _fresh(request_id):
        time.sleep(_LOOK_S)
        found = totals.explain(db, request_id, organization_id)
    if found is None:
        return None
    reason = _reason(db, found["object_id"])
    return {
        **found,
        "kept": found["outcome"] in (Outcome.CAPTURED, Outcome.STORED),
        "why": _WHY_NOT.get(found["discard"]) or _WHY.get(found["outcome"], _WHY[Outcome.NONE]),
        "reason": reason,
        "trigger": _trigger(found, reason),
    }


def _fresh(request_id: Id) -> bool:
    at = requested_at(request_id)
    return at is not None and 0 <= time.time_ns() // 1_000_000 - at < _FRESH_MS


def _reason(db: Database, object_id: Id | None) -> Reason | None:
    """Why an object came to be kept, also when it is gone by now."""
    if object_id is None:
        return None
    with db.read() as tx:
        for source, key in ((kept, kept.c.id), (tombstone, tombstone.c.object_id)):
            found = tx.execute(sa.select(source.c.reason).where(key == object_id)).scalar()
            if found is not None:
                return Reason(found)
    return None


def _trigger(found: Mapping[str, Any], reason: Reason | None) -> Trigger:
    if reason is Reason.ABUSE_CASE:
        return Trigger.ABUSE_CASE
    asked = found["outcome"] in (Outcome.CAPTURED, Outcome.REFUSED)
    return Trigger.RELIABILITY_ERROR if asked else Trigger.NONE
