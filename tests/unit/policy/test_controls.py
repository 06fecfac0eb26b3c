"""What is in force: tighter wins at every level, ZDR masks and restores, every value knows its source."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keepless.policy.controls import Controls, Source, allowed_days, effective
from keepless.policy.data_class import DataClass, Feature
from keepless.policy.schedule import max_days

LOGS, BATCH, TUNING = Feature.INFERENCE_LOGGING, Feature.BATCH, Feature.FINE_TUNING


def some_controls() -> st.SearchStrategy[Controls]:
    days = st.dictionaries(st.sampled_from(DataClass), st.integers(1, 4000), max_size=4)
    return st.builds(Controls, st.booleans(), st.frozensets(st.sampled_from(Feature)), days)


def test_by_default_the_schedule_decides() -> None:
    force = effective(Controls())
    assert force.on == {LOGS, BATCH, TUNING} and not force.zero_data_retention
    assert all(force.days[name] == max_days(name) for name in DataClass)
    assert set(force.feature_source.values()) | set(force.days_source.values()) == {Source.SCHEDULE}
    assert not force.zero_upstream_only


@pytest.mark.parametrize(
    ("organization", "project", "on", "source_of_batch"),
    [
        (Controls(), Controls(), {LOGS, BATCH, TUNING}, Source.SCHEDULE),
        (Controls(True), Controls(), set(), Source.ORGANIZATION_ZDR),
        (Controls(), Controls(True), set(), Source.PROJECT_ZDR),
        (Controls(off=frozenset({BATCH})), Controls(True), set(), Source.ORGANIZATION),
        (Controls(off=frozenset({BATCH})), Controls(), {LOGS, TUNING}, Source.ORGANIZATION),
        (Controls(), Controls(off=frozenset({BATCH})), {LOGS, TUNING}, Source.PROJECT),
        (Controls(off=frozenset({LOGS})), Controls(off=frozenset({BATCH})), {TUNING}, Source.PROJECT),
        (Controls(True, frozenset({BATCH})), Controls(), set(), Source.ORGANIZATION_ZDR),
    ],
)
def test_levels(organization: Controls, project: Controls, on: set[Feature], source_of_batch: Source) -> None:
    force = effective(organization, project)
    assert force.on == on and force.feature_source[BATCH] is source_of_batch
    assert force.allows(DataClass.BATCH_INPUT) is (BATCH in on)
    assert force.zero_upstream_only is (LOGS not in on)


def test_zdr_is_a_mask_that_restores_what_it_hid() -> None:
    for off in (frozenset[Feature](), frozenset({BATCH}), frozenset({LOGS, TUNING})):
        assert effective(Controls(True, off)).on == frozenset()
        assert effective(Controls(False, off)).on == set(Feature) - off


def test_days_are_the_least_of_all_levels() -> None:
    for above, below in product((None, 1, 7, 30, 3000), repeat=2):
        for name in DataClass:
            organization = Controls(retention_days={} if above is None else {name: above})
            project = Controls(retention_days={} if below is None else {name: below})
            known = [days for days in (max_days(name), above, below) if days is not None]
            assert effective(organization, project).days[name] == (min(known) if known else None)


@given(some_controls(), some_controls())
def test_a_project_never_loosens(organization: Controls, project: Controls) -> None:
    alone, both = effective(organization), effective(organization, project)
    assert both.on <= alone.on
    assert both.zero_data_retention >= alone.zero_data_retention
    for name in DataClass:
        over, under = alone.days[name], both.days[name]
        assert over is None or (under is not None and under <= over)


@given(some_controls())
def test_a_project_that_sets_nothing_changes_nothing(organization: Controls) -> None:
    assert effective(organization, Controls()) == effective(organization)


def test_the_days_an_owner_may_set() -> None:
    assert allowed_days(DataClass.RELIABILITY_LOG) == range(1, 31)
    assert allowed_days(DataClass.UPLOAD_PART) == range(1, 2)
    assert allowed_days(DataClass.MODEL_WEIGHTS) == range(1, 3651)
