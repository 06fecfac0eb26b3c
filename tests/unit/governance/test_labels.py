"""OpenAI's labels: the strictest that is true; setting one tightens only what it names."""

import pytest

from keepless.errors import Code, Problem
from keepless.governance.labels import label, set_label
from keepless.governance.patch import Patch
from keepless.policy.data_class import DataClass, Feature
from tests.support.governed import Deployment
from tests.support.rows import kept_rows

LOGS, BATCH, TUNING = Feature.INFERENCE_LOGGING, Feature.BATCH, Feature.FINE_TUNING


@pytest.mark.parametrize(
    ("patch", "name"),
    [
        (Patch(), "none"),
        (Patch(off={BATCH: True}), "none"),
        (Patch(off={LOGS: True}), "modified_abuse_monitoring"),
        (Patch(off={LOGS: True, BATCH: True}), "modified_abuse_monitoring"),
        (Patch(off={LOGS: True, BATCH: True, TUNING: True}), "zero_data_retention"),
        (Patch(zero_data_retention=True), "zero_data_retention"),
    ],
)
def test_the_label_of_an_organization(here: Deployment, patch: Patch, name: str) -> None:
    here.controls.change(here.organization_id, patch, here.owner)
    found = label(here.controls, here.organization_id)
    assert (found["object"], found["type"]) == ("organization.data_retention", name)


def test_labels_tighten_only(here: Deployment) -> None:
    here.controls.change(here.organization_id, Patch(off={BATCH: True}), here.owner)
    found = set_label(here.controls, here.organization_id, "modified_abuse_monitoring", here.careful_owner)
    assert found["features"] == {"inference_logging": "off", "batch": "disabled", "fine_tuning": "enabled"}
    found = set_label(here.controls, here.organization_id, "zero_data_retention", here.careful_owner)
    assert found["type"] == "zero_data_retention" and found["source"]["batch"] == "organization_zdr"
    found = set_label(here.controls, here.organization_id, "modified_abuse_monitoring", here.owner)
    assert found["type"] == "zero_data_retention"  # naming less never re-enables


def test_a_label_cannot_say_purge_so_application_state_stays(here: Deployment) -> None:
    with here.database.write() as tx:
        for name in (DataClass.BATCH_INPUT, DataClass.RELIABILITY_LOG):
            kept_rows(tx, 1, here.organization_id, here.project_id, data_class=name)
    set_label(here.controls, here.organization_id, "zero_data_retention", here.careful_owner)
    assert len(here.purges) == 1  # the log, never the file
    assert here.controls.state(here.organization_id)["residual"]["objects"] == 2


def test_labels_of_a_project(here: Deployment) -> None:
    own, below = here.organization_id, here.project_id
    assert label(here.controls, own, below)["type"] == "organization_default"
    found = set_label(here.controls, own, "zero_data_retention", here.careful_owner, below)
    assert (found["object"], found["type"]) == ("project.data_retention", "zero_data_retention")
    assert label(here.controls, own)["type"] == "none"
    with pytest.raises(Problem) as caught:
        set_label(here.controls, own, "organization_default", here.careful_owner, below)
    assert caught.value.code is Code.RECENT_SIGN_IN_REQUIRED
    set_label(here.controls, own, "zero_data_retention", here.owner)
    found = set_label(here.controls, own, "none", here.owner, below)  # "no override", also below a tight organization
    assert found["type"] == "organization_default" and found["features"]["batch"] == "disabled"


def test_no_override_keeps_what_no_label_has_set(here: Deployment) -> None:
    here.controls.change(here.organization_id, Patch(off={BATCH: True}), here.owner, project_id=here.project_id)
    found = set_label(here.controls, here.organization_id, "organization_default", here.owner, here.project_id)
    assert found["features"]["batch"] == "disabled"


@pytest.mark.parametrize(
    ("name", "of_project"),
    [
        ("none", False),
        ("organization_default", False),
        ("enhanced_zero_data_retention", False),
        ("enhanced_modified_abuse_monitoring", True),
        ("anything", True),
    ],
)
def test_what_is_not_defined_is_refused(here: Deployment, name: str, of_project: bool) -> None:
    with pytest.raises(Problem) as caught:
        set_label(here.controls, here.organization_id, name, here.owner, here.project_id if of_project else None)
    assert (caught.value.status, caught.value.param) == (400, "retention_type")
    assert name != "anything" or name not in caught.value.message
