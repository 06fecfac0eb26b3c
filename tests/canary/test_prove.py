"""The canary prover on the real server: as promised; and on servers made to break a promise, each of which it catches.

A server is broken from the outside: Python runs `sitecustomize` before anything else, and finds ours on its path.
"""

import json
import textwrap
from pathlib import Path

import pytest

from keepless.cli.main import main
from keepless.prover.cases import SETTINGS, fault_cases
from keepless.prover.deployment import Deployment
from keepless.prover.existing import prove_existing
from keepless.prover.feature_cases import scenarios
from keepless.prover.report import Report
from keepless.prover.throwaway import prove
from keepless.prover.upstream import FaultUpstream, Temper
from keepless.prover.wire import ProverError, ask
from tests.conftest import SOURCE
from tests.support.postgres import Cluster

pytestmark = pytest.mark.xdist_group("prove")

BROKEN = ["upstream: well", "upstream: broken", "upstream: cut, streamed", "request says store: false", "wrong type"]


def faults(report: Report) -> set[str]:
    return {outcome.wrong for outcome in report.outcomes if outcome.wrong}


@pytest.mark.timeout(900)  # some of its four hundred requests wait for time-outs
def test_the_whole_thing_is_as_promised(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("all")  # a short name: the path of a socket has at most 107 bytes
    report = prove(folder)
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
    features = {one.name for one in scenarios()}
    assert features | {"batches: killed under way: its end"} <= asked["inference logging off"]
    assert features | {"batches: under way"} <= asked["default"]
    assert not features & asked["zero data retention"]
    kept = [
        (outcome.setting, outcome.case)
        for outcome in report.outcomes
        if outcome.kept and not outcome.case.startswith(("files", "uploads", "batches"))
    ]
    assert {setting for setting, _ in kept} == {"default"}
    assert len(kept) == 15 + 26 + 2 + 3  # chat, responses, speech, transcriptions and translations
    assert not any(marker.text in json.dumps(answer) for marker in report.markers.values())
    assert list(folder.iterdir()) == []


def test_on_postgresql(tmp_path: Path, postgres: Cluster) -> None:
    with postgres.database() as url:
        report = prove(tmp_path, embedded=False, database_url=url, cases=[*BROKEN, "batches: done"])
        assert report.clean, report.answer()
        assert "job store rows" in {control.place for control in report.controls}
        rows = [searched.items for _, searched in report.searched if searched.place == "database rows"]
        assert min(rows) > 20
        # It left the database as empty as it was, so that it may be proved again; what is not empty is not touched.
        assert prove(tmp_path, embedded=False, database_url=url, cases=["wrong key"]).clean
        with Deployment(
            tmp_path, {"database_url": url}, [{"id": "m", "engine": "openai", "base_url": "http://x"}]
        ) as d:
            d.start()
            with pytest.raises(ProverError):
                prove(tmp_path, embedded=False, database_url=url)
            assert ask(d.url, d.told["admin_key"], "GET", "/v1/organization/projects")["data"]


LEAKS = """
import base64, os, sqlite3, sys
from keepless.content import Purpose
from keepless.files.service import FileWriter
from keepless.gateway.chat_params import ChatRules
from keepless.jobs.shard import ShardRun
from keepless.pipeline import Passage
from keepless.vault.door import Vault

def add(name, data):
    with open(name, "ab") as file:
        file.write(data)

def leak_lines(self, number, data):
    with sqlite3.connect("data/jobs.sqlite") as jobs:
        jobs.execute("CREATE TABLE IF NOT EXISTS leak (note BLOB)")
        jobs.execute("INSERT INTO leak VALUES (?)", (data,))
    jobs.close()
    return read(self, number, data)

def leak_names(self, intended):
    add("data/names", intended.name.reveal(Purpose.SEAL))
    return commit(self, intended)

read, commit = ShardRun._read, FileWriter.commit
start, on_data, put, check = Passage.start, Passage.on_data, Vault.put, ChatRules.check

def leak_requests(self):
    body = self._ask.body.reveal(Purpose.INFERENCE)
    add("debug.log", body)
    os.write(os.memfd_create("cache"), body)
    start(self)

def leak_answers(self, data):
    add("tmp/spool", base64.b64encode(data))
    on_data(self, data)

def leak_captures(self, content, permit, **more):
    add("data/blobs/copy", content.reveal(Purpose.SEAL)[::-1])
    return put(self, content, permit, **more)

def leak_refusals(self, body):
    try:
        return check(self, body)
    except Exception:
        print(body, file=sys.stderr, flush=True)
        raise

ShardRun._read, FileWriter.commit = leak_lines, leak_names
Passage.start, Passage.on_data, Vault.put, ChatRules.check = leak_requests, leak_answers, leak_captures, leak_refusals
"""
FOUND = {
    ("data folder", "debug.log", "plain"),
    ("data folder", "tmp/spool", "base64"),
    ("data folder", "data/blobs/copy", "reversed"),
    ("log and standard output", "stderr", "plain"),
    ("data folder", "data/names", "plain"),
    ("processes", "server, open file", "plain"),
    ("job store rows", "leak", "plain"),
}
PAGES = {"data/jobs.sqlite", "data/jobs.sqlite-wal"}  # which of them, the moment decides

LIES = {
    "keeps what policy forbids": (
        "something was kept that may not be",
        """
        import dataclasses
        from keepless.incidents import afterwards, capture
        from keepless.policy.data_class import Feature
        decide = afterwards.decide
        def lenient(query):
            effective = dataclasses.replace(query.effective, zero_data_retention=False, on=frozenset(Feature))
            return decide(dataclasses.replace(query, effective=effective))
        afterwards.decide = capture.decide = lenient
        """,
    ),
    "keeps and does not say so": (
        "what the answer says is kept is not what is listed",
        """
        from keepless import pipeline
        pipeline.described = lambda kept: b"none"
        """,
    ),
}


def broken(folder: Path, code: str) -> dict[str, str]:
    """What makes Python run some code before the server's own: the tree's, as compiled classes cannot be broken."""
    (folder / "code").mkdir()
    (folder / "work").mkdir()
    (folder / "code" / "sitecustomize.py").write_text(textwrap.dedent(code))
    return {"PYTHONPATH": f"{folder / 'code'}:{SOURCE}"}


def test_a_leaking_server_is_caught(tmp_path: Path) -> None:
    environment = broken(tmp_path, LEAKS)
    cases = [*BROKEN, "batches: done"]
    report = prove(tmp_path / "work", embedded=False, cases=cases, environment=environment)
    assert not report.clean
    found = {(finding.place, finding.what, finding.form) for _, finding in report.findings}
    assert {one for one in found if one[1] in PAGES}
    assert {one for one in found if one[1] not in PAGES and "its process" not in one[1]} == FOUND
    named = {report.markers[finding.marker].part for _, finding in report.findings}
    assert {"user message", "upstream's answer", "tool name", "custom_id", "file name"} <= named
    assert faults(report) == set()
    assert not any(marker.text in json.dumps(report.answer()) for marker in report.markers.values())


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_server_is_caught(lie: str, tmp_path: Path) -> None:
    fault, code = LIES[lie]
    environment = broken(tmp_path, code)
    report = prove(tmp_path / "work", embedded=False, cases=BROKEN, environment=environment)
    assert not report.clean
    assert fault in faults(report)
    assert report.findings == []


def test_a_server_that_does_not_start_is_no_proof(tmp_path: Path) -> None:
    with pytest.raises(ProverError, match="does not start: it said nothing"):
        prove(tmp_path / "work", embedded=False, environment=broken(tmp_path, "raise SystemExit(3)"))
    assert list((tmp_path / "work").iterdir()) == []


def test_a_running_deployment(tmp_path: Path) -> None:
    with FaultUpstream() as upstream:
        model = {"id": Temper.WELL.value, "engine": "openai", "base_url": upstream.base_url, "retention": "logs_30d"}
        with Deployment(tmp_path, {}, [model]) as deployment:
            deployment.start()
            operator = deployment.told["operator_key"]
            report = prove_existing(f"{deployment.url}/v1", operator, data_dir=deployment.data_dir)
            assert report.clean, report.answer()
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


def test_findings_exit_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in broken(tmp_path, LEAKS).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("keepless.prover.throwaway.SETTINGS", SETTINGS[:1])
    one = fault_cases()[:1]
    monkeypatch.setattr("keepless.prover.cases.fault_cases", lambda: one)
    for table in ("response_cases.fault_cases", "media_cases.fault_media_cases", "spoken_cases.fault_spoken_cases"):
        monkeypatch.setattr(f"keepless.prover.{table}", list)
    monkeypatch.setattr("keepless.prover.feature_cases.scenarios", list)
    assert main(["prove", "--no-embedded", "--dir", str(tmp_path / "work")]) == 1
    out = capsys.readouterr().out
    assert "NOT as promised" in out
    assert "debug.log" in out
