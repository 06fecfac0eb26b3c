"""The canary prover on servers made to break a promise, each of which it catches.

A server is broken from the outside: Python runs `sitecustomize` before anything else, and finds ours on its path.
"""

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest

from keepless.cli.main import main
from keepless.prover.cases import SETTINGS, fault_cases
from keepless.prover.report import Report
from keepless.prover.throwaway import prove
from keepless.prover.wire import ProverError
from tests.conftest import SOURCE
from tests.support.others import others


def faults(report: Report) -> set[str]:
    return {outcome.wrong for outcome in report.outcomes if outcome.wrong}


BROKEN = ["upstream: well", "upstream: broken", "upstream: cut, streamed", "request says store: false", "wrong type"]
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

LIES = """
import dataclasses
from keepless import pipeline
from keepless.incidents import afterwards, capture
from keepless.policy.data_class import Feature
decide = afterwards.decide
def lenient(query):
    effective = dataclasses.replace(query.effective, zero_data_retention=False, on=frozenset(Feature))
    return decide(dataclasses.replace(query, effective=effective))
afterwards.decide = capture.decide = lenient
pipeline.described = lambda kept: b"none"
"""
CAUGHT = {  # where policy forbids it, and where it is not said
    "something was kept that may not be": {"inference logging off", "zero data retention"},
    "what the answer says is kept is not what is listed": {"default"},
}


def broken(folder: Path, code: str) -> dict[str, str]:
    """What makes Python run some code before the server's own: the tree's, as compiled classes cannot be broken."""
    (folder / "code").mkdir()
    (folder / "work").mkdir()
    (folder / "code" / "sitecustomize.py").write_text(textwrap.dedent(code))
    return {"PYTHONPATH": f"{folder / 'code'}:{SOURCE}"}


def broken_prove(folder: Path, environment: dict[str, str], cases: Sequence[str]) -> Report:
    """The proof of such a server."""
    without = others(folder)
    return prove(folder / "work", embedded=False, cases=cases, environment=environment, without=without)


def test_a_leaking_server_is_caught(tmp_path: Path) -> None:
    environment = broken(tmp_path, LEAKS)
    cases = [*BROKEN, "batches: done"]
    report = broken_prove(tmp_path, environment, cases)
    assert not report.clean
    found = {(finding.place, finding.what, finding.form) for _, finding in report.findings}
    assert {one for one in found if one[1] in PAGES}
    assert {one for one in found if one[1] not in PAGES and "its process" not in one[1]} == FOUND
    named = {report.markers[finding.marker].part for _, finding in report.findings}
    assert {"user message", "upstream's answer", "tool name", "custom_id", "file name"} <= named
    assert faults(report) == set()
    assert not any(marker.text in json.dumps(report.answer()) for marker in report.markers.values())


def test_a_lying_server_is_caught(tmp_path: Path) -> None:
    """One that keeps what policy forbids, and does not say what it keeps."""
    report = broken_prove(tmp_path, broken(tmp_path, LIES), BROKEN)
    assert not report.clean
    found = {fault: {one.setting for one in report.outcomes if one.wrong == fault} for fault in faults(report)}
    assert {fault: CAUGHT[fault] & found.get(fault, set()) for fault in CAUGHT} == CAUGHT
    assert report.findings == []


def test_a_server_that_does_not_start_is_no_proof(tmp_path: Path) -> None:
    with pytest.raises(ProverError, match="does not start: it said nothing"):
        prove(tmp_path / "work", embedded=False, environment=broken(tmp_path, "raise SystemExit(3)"))
    assert list((tmp_path / "work").iterdir()) == []


def test_findings_exit_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in broken(tmp_path, LEAKS).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("keepless.prover.throwaway.SETTINGS", SETTINGS[:1])
    monkeypatch.setattr("keepless.prover.throwaway.temporary_folders", lambda: [tmp_path / "code"])  # not others' files
    one = fault_cases()[:1]
    monkeypatch.setattr("keepless.prover.cases.fault_cases", lambda: one)
    for table in ("response_cases.fault_cases", "media_cases.fault_media_cases", "spoken_cases.fault_spoken_cases"):
        monkeypatch.setattr(f"keepless.prover.{table}", list)
    monkeypatch.setattr("keepless.prover.feature_cases.scenarios", list)
    assert main(["prove", "--no-embedded", "--dir", str(tmp_path / "work")]) == 1
    out = capsys.readouterr().out
    assert "NOT as promised" in out
    assert "debug.log" in out
