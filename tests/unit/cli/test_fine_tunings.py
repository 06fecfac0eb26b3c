"""`keepless fine-tunings` against a stand-in that plays a job's life."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from keepless.cli.outcome import FINDING, USAGE
from keepless.gateway.tuning_shape import curve_of, event_shape, job_shape, page_shape, tuning_shape
from keepless.ids import Prefix, mint
from keepless.tuning.faults import Fault, FaultCode, FaultFile
from keepless.tuning.values import (
    AUTO,
    Event,
    EventCode,
    FailCode,
    Job,
    Metrics,
    TuningKind,
    TuningState,
)
from tests.support.http import running
from tests.unit.cli.conftest import Terminal

NOW = 1_800_000_000_000
S = TuningState
JOB = Job(
    id=mint(Prefix.TUNING_JOB), organization_id=mint(Prefix.ORGANIZATION), project_id=mint(Prefix.PROJECT),
    key_id=mint(Prefix.API_KEY), kind=TuningKind.TRAIN, state=S.VALIDATING, base_model="tiny",
    hexadecimal="0123456789ab", training_file_id=mint(Prefix.FILE), validation_file_id=None,
    order_object_id=mint(Prefix.OBJECT), has_metadata=False, hyperparameters=AUTO, seed=7, examples=0, total=0, step=0,
    tokens=0, attempt=0, created_at=NOW, queued_at=None, running_at=None, paused_at=None, finished_at=None,
    begun_at=None, begun_step=0, cancel_reason=None, fail_code=None, faults=0, deleting_at=None,
)  # fmt: skip
CURVE = curve_of([(step, Metrics(4.0 / step, 0.5)) for step in range(1, 5)])


class Life:
    """Each look at the job answers its next state; `asked` is what was asked for."""

    def __init__(self) -> None:
        self.states: list[Job] = [JOB]
        self.faults: list[Fault] = []
        self.asked: list[tuple[str, str, bytes]] = []

    def shape(self) -> dict[str, Any]:
        job = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        curve = CURVE[: job.step]
        return job_shape(job, "mine", metadata=None, faults=self.faults, now_ms=NOW, curve=curve)

    async def answer(self, request: Request) -> JSONResponse:
        path = request.url.path
        self.asked.append((request.method, path, await request.body()))
        if path == "/v1/files":
            return JSONResponse({"id": str(JOB.training_file_id)})
        if path.startswith("/v1/fine_tunings"):
            if request.method == "DELETE":
                return JSONResponse({"id": path.rpartition("/")[2], "object": "fine_tuning", "deleted": True})
            return JSONResponse({"data": tuning_shape(JOB, "mine", [], NOW)})
        if path.endswith("/events"):
            told = Event(mint(Prefix.TUNING_EVENT), JOB.id, 2, NOW, EventCode.METRICS, 1, 4, Metrics(0.25))
            return JSONResponse(page_shape([event_shape(told)], more=False))
        if path.endswith("jobs") and request.method == "GET":
            return JSONResponse(page_shape([self.shape(), self.shape()], more=False))
        if "nothing" in path:
            return JSONResponse({"error": {"message": "There is no fine-tuning with this id."}}, 404)
        return JSONResponse(self.shape())


@pytest.fixture
def life(monkeypatch: pytest.MonkeyPatch) -> Iterator[Life]:
    played = Life()
    app = Starlette(routes=[Route("/{rest:path}", played.answer, methods=["GET", "POST", "DELETE"])])
    with running(app=app) as server:
        monkeypatch.setenv("KEEPLESS_BASE_URL", f"http://127.0.0.1:{server.port}")
        monkeypatch.setenv("KEEPLESS_API_KEY", "sk-x")
        yield played


def test_a_file_is_uploaded_and_trained_on(life: Life, terminal: Terminal, tmp_path: Path) -> None:
    data = tmp_path / "examples.jsonl"
    data.write_text("{}\n")
    answer = terminal.json(
        *("fine-tunings", "create", str(data), "--model", "tiny", "--name", "mine", "--epochs", "3", "--rank", "8")
    )
    assert answer["id"] == JOB.id
    assert [path for _, path, _ in life.asked] == ["/v1/files", "/v1/fine_tuning/jobs"]
    assert b"fine-tune" in life.asked[0][2]
    assert json.loads(life.asked[1][2]) == {
        "model": "tiny",
        "training_file": JOB.training_file_id,
        "suffix": "mine",
        "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3, "r": 8}}},
    }


def test_an_adapter_is_imported(life: Life, terminal: Terminal) -> None:
    code, out, _ = terminal.run("fine-tunings", "import", JOB.training_file_id, "--model", "tiny", "--name", "mine")
    assert code == 0
    assert JOB.id in out
    assert json.loads(life.asked[0][2]) == {
        "base_model": "tiny", "name": "mine", "type": "lora", "input_file_id": JOB.training_file_id
    }  # fmt: skip


def test_watching_to_the_end_a_line_a_change(life: Life, terminal: Terminal) -> None:
    begun = replace(JOB, state=S.RUNNING, total=4, begun_at=NOW - 10_000)
    life.states = [JOB, replace(begun, step=1), replace(begun, step=1), replace(begun, state=S.SUCCEEDED, step=4)]
    code, out, err = terminal.run("fine-tunings", "watch", JOB.id, "--every", "0.05")
    assert code == 0
    assert err.splitlines() == [
        "validating_files 0.0 % not begun",
        "running 25.0 % step 1 of 4, loss 4.000, 0:00:30 left",
        "succeeded 100.0 % step 4 of 4, loss 1.000",
    ]
    assert (
        f"ft:tiny:{JOB.organization_id}/mine-0123456789ab" in out.replace("\n", "").replace(" ", "") or "mine-" in out
    )
    assert "█" in out


def test_a_job_that_did_not_succeed_is_a_finding(life: Life, terminal: Terminal) -> None:
    life.states = [replace(JOB, state=S.FAILED, fail_code=FailCode.TRAINING_FILE, faults=1)]
    life.faults = [Fault(FaultFile.TRAINING, 3, FaultCode.INVALID_ROLE)]
    assert terminal.json("fine-tunings", "watch", JOB.id, code=FINDING)["status"] == "failed"
    _, out, _ = terminal.run("fine-tunings", "show", JOB.id)
    assert "training_file line 3" in out
    assert "invalid_role" in out


@pytest.mark.parametrize("verb", ["pause", "resume", "cancel"])
def test_changes(life: Life, terminal: Terminal, verb: str) -> None:
    assert terminal.json("fine-tunings", verb, JOB.id)["id"] == JOB.id
    assert life.asked == [("POST", f"/v1/fine_tuning/jobs/{JOB.id}/{verb}", b"{}")]


def test_lists_events_and_the_end(life: Life, terminal: Terminal) -> None:
    assert len(terminal.json("fine-tunings", "list")["data"]) == 2
    _, out, _ = terminal.run("fine-tunings", "events", JOB.id)
    assert "training loss=0.2500" in out
    assert terminal.json("fine-tunings", "delete", JOB.id)["deleted"] is True
    terminal.json("fine-tunings", "show", "nothing", code=FINDING)


def test_wrong_usage(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEEPLESS_API_KEY", "sk-x")
    assert terminal.run("fine-tunings", "create", "x", "--model", "m", "--rank", "7")[0] == USAGE
    assert terminal.run("fine-tunings", "create", "x")[0] == USAGE
