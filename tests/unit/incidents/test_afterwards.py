"""After the answer: `could_keep` and `decide` never disagree; the header's value for what is kept."""

import itertools

import pytest

from keepless.accounts.principal import PolicyInForce
from keepless.ids import Prefix, mint
from keepless.incidents.afterwards import could_keep, described
from keepless.policy.controls import Controls, RequestControls, effective
from keepless.policy.data_class import DataClass, Feature
from keepless.policy.decide import Query, decide
from keepless.policy.decision import Reason, Retain, Trigger
from keepless.vault.rows import Kept

LEVELS = [
    Controls(zero_data_retention=zdr, off=frozenset(off))
    for zdr in (False, True)
    for n in range(len(Feature) + 1)
    for off in itertools.combinations(Feature, n)
]
REQUESTS = [RequestControls(a, b) for a in (False, True) for b in (False, True)]
CLASSES = {
    DataClass.RELIABILITY_LOG: (Trigger.RELIABILITY_ERROR, Reason.UPSTREAM_CUT),
    DataClass.ABUSE_LOG: (Trigger.ABUSE_CASE, Reason.ABUSE_CASE),
}


@pytest.mark.parametrize("data_class", CLASSES)
def test_what_could_be_kept_is_what_decide_permits(data_class: DataClass) -> None:
    trigger, reason = CLASSES[data_class]
    policies = [None, *(PolicyInForce(effective(one, two), 1) for one in LEVELS for two in (None, *LEVELS))]
    for policy, request in itertools.product(policies, REQUESTS):
        decision = decide(
            Query(
                organization_id="org_x",
                project_id="proj_x",
                data_class=data_class,
                trigger=trigger,
                reason=reason,
                effective=None if policy is None else policy.effective,
                epoch=1,
                created_at_ms=1,
                request=request,
            )
        )
        assert could_keep(policy, request) is isinstance(decision, Retain)


@pytest.mark.parametrize(("expires_at", "text"), [(1_800_000_000_999, "2027-01-15T08:00:00Z"), (None, "never")])
def test_described(expires_at: int | None, text: str) -> None:
    some, object_id = mint(Prefix.BLOB), mint(Prefix.OBJECT)
    kept = Kept(
        id=object_id, organization_id=some, project_id=some, data_class=DataClass.RELIABILITY_LOG,
        reason=Reason.UPSTREAM_CUT, request_id=None, epoch=4, created_at=1, expires_at=expires_at, size=1,
        location=some, blob=some, kek_id=some, wrapped_dek=b"",
    )  # fmt: skip
    assert described(kept).decode() == f"class=reliability_log; object={object_id}; epoch=4; expires={text}"
