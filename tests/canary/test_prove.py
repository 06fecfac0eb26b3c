"""The canary prover on the real server: all is as promised."""

import json
from pathlib import Path

import pytest

from keepless.cli.main import main
from keepless.prover.cases import SETTINGS
from keepless.prover.deployment import Deployment
from keepless.prover.existing import prove_existing
from keepless.prover.feature_cases import scenarios
from keepless.prover.throwaway import prove
from keepless.prover.tuned_cases import tuned_scenarios
from keepless.prover.upstream import FaultUpstream, Temper
from keepless.prover.wire import ProverError, ask
from tests.support.others import others


@pytest.mark.timeout(900)  # some of its four hundred requests wait for time-outs
def test_the_whole_thing_is_as_promised(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("all")  # a short name: the path of a socket has at most 107 bytes
    report = prove(folder, without=others(folder))
    answer = report.answer()
    assert report.clean, (
        [one for one in report.outcomes if one.wrong],
        answer["findings"],
        answer["wrong"],
        answer["controls"],
    )
    assert {control.place for control in report.controls} == {
        "spoken words",
        "data folder",
        "database rows",
        "job store rows",
        "processes",
        "log and standard output",
        "temporary folders",
    }
    looks = {"requests under way", "after SIGKILL", "after SIGTERM", "32 days later"}
    assert {(when, searched.place) for when, searched in report.searched} == {
        (when, control.place) for when in looks for control in report.controls if control.place != "spoken words"
    }
    asked = {setting.name: {o.case for o in report.outcomes if o.setting == setting.name} for setting in SETTINGS}
    features = {one.name for one in scenarios()} | {*tuned_scenarios()}
    assert features | {"batches: killed under way: its end"} <= asked["inference logging off"]
    learnt = "fine-tuning: there when the server is killed"
    assert features | {"batches: under way", learnt, f"{learnt}: again"} <= asked["default"]
    trained, imported = "fine-tuning: trained, killed half way", "fine-tuning: imported, killed half way"
    assert {trained, f"{trained}: its trainer", f"{trained}: again", f"{imported}: its end"} <= asked["default"]
    assert not features & asked["zero data retention"]
    kept = [
        (outcome.setting, outcome.case)
        for outcome in report.outcomes
        if outcome.kept and not outcome.case.startswith(("files", "uploads", "batches", "fine-tuning"))
    ]
    assert {setting for setting, _ in kept} == {"default"}
    assert len(kept) == 17 + 26 + 2 + 3  # chat, responses, speech, transcriptions and translations
    assert not any(marker.text in json.dumps(answer) for marker in report.markers.values())
    assert list(folder.iterdir()) == []


def test_a_running_deployment(tmp_path: Path) -> None:
    with FaultUpstream() as upstream:
        model = {"id": Temper.WELL.value, "engine": "openai", "base_url": upstream.base_url, "retention": "logs_30d"}
        with Deployment(tmp_path, {}, [model]) as deployment:
            deployment.start()
            operator = deployment.told["operator_key"]
            report = prove_existing(f"{deployment.url}/v1", operator, data_dir=deployment.data_dir)
            assert report.clean, report.answer()
            assert any("fine-tuning was not asked for" in limit for limit in report.limits)
            assert {outcome.status for outcome in report.outcomes} >= {200, 403, 400, 404, 401, 0}
            left = ask(deployment.url, operator, "GET", "/v1/organizations")["data"]
            assert [one["id"] for one in left] == [deployment.told["organization_id"]]
            assert deployment.stop() == 0
    with pytest.raises(ProverError):
        prove_existing("http://127.0.0.1:1", "ok-keepless-none")


@pytest.mark.parametrize(
    "arguments",
    [["--data-dir", "."], ["--model", "m"], ["--base-url", "http://127.0.0.1:1"], ["--dir", "/no/such/folder"]],
)
def test_wrong_use_exits_with_two(arguments: list[str]) -> None:
    assert main(["prove", *arguments]) == 2


def test_a_deployment_that_does_not_answer_exits_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove", "--json", "--base-url", "http://127.0.0.1:1", "--admin-key", "ok-keepless-none"]) == 2
    assert "cannot be run" in json.loads(capsys.readouterr().out)["error"]["message"]
