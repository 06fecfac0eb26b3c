"""A change of controls as a value: what it makes, whether it loosens, what is refused."""

import pytest

from keepless.errors import Code, Problem
from keepless.governance.patch import Patch, applied, check, loosens
from keepless.policy.controls import Controls, effective
from keepless.policy.data_class import DataClass, Feature

LOGS, BATCH, TUNING = Feature.INFERENCE_LOGGING, Feature.BATCH, Feature.FINE_TUNING
ABUSE, WEIGHTS = DataClass.ABUSE_LOG, DataClass.MODEL_WEIGHTS


def test_what_is_not_named_stays() -> None:
    before = Controls(True, frozenset({BATCH}), {ABUSE: 3})
    assert applied(before, Patch()) == before
    assert applied(before, Patch(zero_data_retention=False)) == Controls(False, frozenset({BATCH}), {ABUSE: 3})
    assert applied(before, Patch(off={TUNING: True})) == Controls(True, frozenset({BATCH, TUNING}), {ABUSE: 3})
    assert applied(before, Patch(off={BATCH: False})) == Controls(True, frozenset(), {ABUSE: 3})
    assert applied(before, Patch(retention_days={WEIGHTS: 9})).retention_days == {ABUSE: 3, WEIGHTS: 9}
    assert applied(before, Patch(retention_days={ABUSE: None})).retention_days == {}


@pytest.mark.parametrize(
    ("before", "after", "looser"),
    [
        (Controls(), Controls(), False),
        (Controls(), Controls(True), False),
        (Controls(True), Controls(), True),
        (Controls(off=frozenset({BATCH})), Controls(), True),
        (Controls(off=frozenset({BATCH})), Controls(off=frozenset({BATCH, LOGS})), False),
        (Controls(off=frozenset({BATCH})), Controls(off=frozenset({LOGS})), True),  # tighter here, looser there
        (Controls(True, frozenset({BATCH})), Controls(True), True),  # masked, but it would come back looser
        (Controls(), Controls(retention_days={ABUSE: 3}), False),
        (Controls(retention_days={ABUSE: 3}), Controls(retention_days={ABUSE: 4}), True),
        (Controls(retention_days={ABUSE: 3}), Controls(), True),
        (Controls(retention_days={ABUSE: 30}), Controls(), False),  # as long as the schedule's own
        (Controls(), Controls(retention_days={WEIGHTS: 9}), False),
        (Controls(retention_days={WEIGHTS: 9}), Controls(), True),  # back to "until deleted"
        (Controls(retention_days={WEIGHTS: 9}), Controls(retention_days={WEIGHTS: 8}), False),
    ],
)
def test_loosening(before: Controls, after: Controls, looser: bool) -> None:
    assert loosens(before, after) is looser


@pytest.mark.parametrize(
    ("name", "days", "allowed"),
    [
        (ABUSE, 1, True),
        (ABUSE, 30, True),
        (ABUSE, None, True),
        (ABUSE, 31, False),
        (ABUSE, 0, False),
        (ABUSE, -1, False),
        (WEIGHTS, 3650, True),
        (WEIGHTS, 3651, False),
        (WEIGHTS, 0, False),
        (DataClass.UPLOAD_PART, 2, False),
    ],
)
def test_periods(name: DataClass, days: int | None, allowed: bool) -> None:
    if allowed:
        check(Patch(retention_days={name: days}), None)
        return
    with pytest.raises(Problem) as caught:
        check(Patch(retention_days={name: days}), None)
    assert (caught.value.status, caught.value.param) == (400, "retention_days")


@pytest.mark.parametrize(("name", "switch"), [(ABUSE, "inference_logging: off"), (WEIGHTS, "fine_tuning: disabled")])
def test_zero_days_points_to_the_switch(name: DataClass, switch: str) -> None:
    with pytest.raises(Problem) as caught:
        check(Patch(retention_days={name: 0}), None)
    assert switch in caught.value.message


@pytest.mark.parametrize(
    ("patch", "above", "refused"),
    [
        (Patch(off={BATCH: False}), Controls(), None),
        (Patch(off={BATCH: False}), Controls(off=frozenset({BATCH})), "batch"),
        (Patch(off={BATCH: False}), Controls(True), "batch"),
        (Patch(off={BATCH: True}), Controls(True), None),
        (Patch(zero_data_retention=False), Controls(), None),
        (Patch(zero_data_retention=False), Controls(True), "zero_data_retention"),
        (Patch(retention_days={ABUSE: 7}), Controls(retention_days={ABUSE: 7}), None),
        (Patch(retention_days={ABUSE: 8}), Controls(retention_days={ABUSE: 7}), "retention_days"),
        (Patch(retention_days={WEIGHTS: 8}), Controls(), None),
        (Patch(zero_data_retention=False, off={LOGS: False}, no_override=True), Controls(True), None),
    ],
)
def test_a_project_is_never_looser(patch: Patch, above: Controls, refused: str | None) -> None:
    if refused is None:
        check(patch, effective(above))
        return
    with pytest.raises(Problem) as caught:
        check(patch, effective(above))
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, Code.LOOSENING_REFUSED, refused)
