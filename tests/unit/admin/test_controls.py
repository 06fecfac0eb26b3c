"""Data controls over HTTP."""

import json

import pytest

from tests.support.platform import Platform

CONTROLS = "/organization/data_controls"
RETENTION = "/organization/data_retention"


def test_the_state_has_the_shape_of_the_contract(anywhere: Platform) -> None:
    state = anywhere.json("GET", CONTROLS)
    assert state["object"] == "organization.data_controls"
    assert state["epoch"] == 1
    assert state["zero_data_retention"] is False
    assert state["features"] == {"inference_logging": "allowed", "batch": "enabled", "fine_tuning": "enabled"}
    assert state["retention_days"]["reliability_log"] == 30
    assert state["retention_days"]["model_weights"] is None
    assert state["residual"] == {"objects": 0, "bytes": 0, "until": None}
    assert {row["product"] for row in state["schedule"]} == {"Inference", "Batch", "Fine-tuning"}
    assert state["source"]["zero_data_retention"] == "schedule"
    assert "purge_id" not in state


def test_zero_data_retention_on_purges_what_lost_its_reason(anywhere: Platform) -> None:
    kept = anywhere.put()
    preview = anywhere.json("POST", f"{CONTROLS}/preview", {"zero_data_retention": True})
    assert (preview["objects"], preview["classes"], preview["loosens"]) == (1, ["reliability_log"], False)
    state = anywhere.json("POST", CONTROLS, {"zero_data_retention": True, "expected_epoch": 1})
    assert state["epoch"] == 2
    assert state["zero_data_retention"] is True
    assert set(state["features"].values()) == {"off", "disabled"}
    assert state["residual"]["objects"] == 1
    purge = anywhere.json("GET", f"/organization/purges/{state['purge_id']}")
    assert (purge["state"], purge["objects"], purge["destroyed"]) == ("running", 1, 0)
    anywhere.services.sweeper.sweep_once(confirm=True)
    purge = anywhere.json("GET", f"/organization/purges/{state['purge_id']}")
    assert (purge["state"], purge["destroyed"], purge["holds"]) == ("done", 1, [])
    assert anywhere.error("GET", f"/organization/retained_objects/{kept.id}") == (404, "not_found")
    assert anywhere.json("GET", CONTROLS)["residual"]["objects"] == 0


def test_a_second_owner_who_read_the_old_epoch_is_refused(here: Platform) -> None:
    here.json("POST", CONTROLS, {"batch": "disabled"})
    answer = here.ask("POST", CONTROLS, {"batch": "enabled", "expected_epoch": 1})
    assert answer.status == 412
    assert json.loads(answer.body)["error"]["code"] == "epoch_mismatch"


def test_application_state_asks_for_a_choice_with_the_counts(here: Platform) -> None:
    from keepless.policy.data_class import DataClass

    here.put(data_class=DataClass.BATCH_INPUT)
    answer = here.ask("POST", CONTROLS, {"batch": "disabled"})
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["code"], error["param"]) == (400, "purge_choice_required", "purge")
    assert error["objects"] == 1
    assert error["bytes"] > 0
    kept_on = here.json("POST", CONTROLS, {"batch": "disabled", "purge": False})
    assert kept_on["purge_id"] is None
    assert kept_on["residual"]["objects"] == 1


def test_loosening_needs_the_scope(here: Platform) -> None:
    here.json("POST", CONTROLS, {"zero_data_retention": True})
    careful = here.json("POST", "/organization/admin_api_keys", {"name": "careful"})["value"]
    refused = here.ask("POST", CONTROLS, {"zero_data_retention": False}, key=careful)
    assert refused.status == 403
    assert json.loads(refused.body)["error"]["code"] == "recent_sign_in_required"
    assert refused.headers["x-should-retry"] == "false"
    assert here.json("POST", CONTROLS, {"zero_data_retention": False})["zero_data_retention"] is False


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"zero_data_retention": "yes"}, "invalid_value", "zero_data_retention"),
        ({"zero_data_retention": 1}, "invalid_value", "zero_data_retention"),
        ({"batch": "MARKER"}, "invalid_value", "batch"),
        ({"MARKER": True}, "unknown_parameter", None),
        ({"retention_days": {"MARKER": 3}}, "invalid_value", "retention_days"),
        ({"retention_days": {"reliability_log": 0}}, "invalid_value", "retention_days"),
        ({"retention_days": {"reliability_log": 31}}, "invalid_value", "retention_days"),
        ({"retention_days": {"reliability_log": 1.5}}, "invalid_value", "retention_days"),
        ({"retention_days": {"reliability_log": 10**30}}, "invalid_value", "retention_days"),
        ({"expected_epoch": -1}, "invalid_value", "expected_epoch"),
    ],
)
def test_bad_bodies_are_refused_by_name_without_echo(
    here: Platform, body: object, code: str, param: str | None
) -> None:
    for path in (CONTROLS, f"{CONTROLS}/preview"):
        answer = here.ask("POST", path, body)
        error = json.loads(answer.body)["error"]
        assert (answer.status, error["code"], error["param"]) == (400, code, param)
        assert b"MARKER" not in answer.body
    assert here.json("GET", CONTROLS)["epoch"] == 1


def test_a_project_is_tighter_never_looser(anywhere: Platform) -> None:
    project = f"/organization/projects/{anywhere.project_id}/data_controls"
    state = anywhere.json("POST", project, {"inference_logging": "off"})
    assert state["object"] == "project.data_controls"
    assert state["source"]["inference_logging"] == "project"
    assert anywhere.json("GET", CONTROLS)["features"]["inference_logging"] == "allowed"
    anywhere.json("POST", CONTROLS, {"batch": "disabled"})
    assert anywhere.error("POST", project, {"batch": "enabled"}) == (400, "loosening_refused")
    assert anywhere.json("POST", f"{project}/preview", {"fine_tuning": "disabled"})["objects"] == 0


def test_openai_labels_map_to_controls(anywhere: Platform) -> None:
    assert anywhere.json("GET", RETENTION)["type"] == "none"
    changed = anywhere.json("POST", RETENTION, {"retention_type": "modified_abuse_monitoring"})
    assert (changed["object"], changed["type"]) == ("organization.data_retention", "modified_abuse_monitoring")
    assert changed["features"] == {"inference_logging": "off", "batch": "enabled", "fine_tuning": "enabled"}
    changed = anywhere.json("POST", RETENTION, {"retention_type": "zero_data_retention"})
    assert changed["type"] == "zero_data_retention"
    assert anywhere.error("POST", RETENTION, {"retention_type": "enhanced_zero_data_retention"}) == (
        400,
        "unsupported_value",
    )
    project = f"/organization/projects/{anywhere.project_id}/data_retention"
    assert anywhere.json("GET", project)["type"] == "organization_default"
    assert anywhere.json("POST", project, {"retention_type": "zero_data_retention"})["type"] == "zero_data_retention"
    assert anywhere.json("POST", project, {"retention_type": "none"})["type"] == "organization_default"
