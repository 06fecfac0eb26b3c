"""`keepless controls`."""

import threading

import pytest

from tests.support.platform import Platform
from tests.unit.cli.conftest import Terminal


def test_show(served: Platform, terminal: Terminal) -> None:
    code, out, _ = terminal.run("controls", "show")
    assert code == 0
    assert "reliability_log" in out
    assert terminal.json("controls", "show")["object"] == "organization.data_controls"
    project = terminal.json("controls", "show", "--project", served.project_id)
    assert project["object"] == "project.data_controls"


def test_set_every_switch(served: Platform, terminal: Terminal) -> None:
    changed = terminal.json(
        *("controls", "set", "--inference-logging", "off", "--batch", "disabled", "--fine-tuning", "disabled"),
        *("--retention-days", "model_weights=90", "--expected-epoch", "1"),
    )
    assert changed["features"] == {"inference_logging": "off", "batch": "disabled", "fine_tuning": "disabled"}
    assert changed["retention_days"]["model_weights"] == 90
    assert terminal.json("controls", "set", "--zdr", "on")["zero_data_retention"] is True
    assert terminal.json("controls", "set", "--zero-data-retention", "off")["zero_data_retention"] is False
    assert (
        terminal.json("controls", "set", "--retention-days", "model_weights=default")["retention_days"]["model_weights"]
        is None
    )


def test_preview_and_set_with_waiting_for_the_purge(served: Platform, terminal: Terminal) -> None:
    served.put()
    assert terminal.json("controls", "preview", "--zdr", "on")["objects"] == 1
    sweep = threading.Timer(0.2, lambda: served.services.sweeper.sweep_once(confirm=True))
    sweep.start()
    changed = terminal.json("controls", "set", "--zdr", "on", "--wait")
    sweep.join()
    assert changed["purge"]["state"] == "done"
    assert changed["purge"]["destroyed"] == 1


def test_waiting_ends_at_a_legal_hold_with_code_1(served: Platform, terminal: Terminal) -> None:
    served.put()
    order = {
        "organization_id": served.organization_id,
        "reason": "litigation",
        "authority": "counsel",
        "reference": "docket",
        "review_at": served.rig.clock.now_ms() // 1000 + 3600,
    }
    served.json("POST", "/organization/legal_holds", order, key="operator")
    sweep = threading.Timer(0.2, lambda: served.services.sweeper.sweep_once(confirm=True))
    sweep.start()
    answer = terminal.json("controls", "set", "--zdr", "on", "--wait", code=1)
    sweep.join()
    assert answer["purge"]["held"] == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("controls", "set"),
        ("controls", "set", "--purge"),
        ("controls", "set", "--zdr", "maybe"),
        ("controls", "set", "--retention-days", "reliability_log"),
        ("controls", "set", "--retention-days", "reliability_log=x"),
        ("controls", "nonsense"),
    ],
)
def test_wrong_usage_is_2(served: Platform, terminal: Terminal, arguments: tuple[str, ...]) -> None:
    code, out, err = terminal.run(*arguments)
    assert (code, out) == (2, "")
    assert "keepless:" in err
    terminal.json(*arguments, code=2)


def test_a_refusal_is_1_and_says_the_servers_words(served: Platform, terminal: Terminal) -> None:
    terminal.json("controls", "set", "--batch", "disabled")
    code, _, err = terminal.run("controls", "set", "--batch", "enabled", "--expected-epoch", "1")
    assert code == 1
    assert "changed by somebody else" in err
    refused = terminal.json("controls", "set", "--batch", "enabled", "--expected-epoch", "1", code=1)
    assert (refused["status"], refused["error"]["code"]) == (412, "epoch_mismatch")
