"""`keepless batches` against a stand-in that plays a batch's life."""

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

from keepless.batches.values import Batch, BatchState, Counts, LineCode, LineError
from keepless.cli import watching as module
from keepless.cli.outcome import FINDING, USAGE
from keepless.gateway.batch_shape import listing_of, shape_of
from keepless.ids import Prefix, mint
from tests.support.http import running
from tests.unit.cli.conftest import Terminal
from tests.unit.gateway.test_batch_shape import BATCH, NOW

S = BatchState


class Life:
    """Each look at the batch answers its next state; `asked` is what was asked for."""

    def __init__(self) -> None:
        self.states: list[Batch] = [BATCH]
        self.errors: list[LineError] = []
        self.asked: list[tuple[str, str, bytes, dict[str, str]]] = []

    def shape(self) -> dict[str, Any]:
        batch = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        shape = shape_of(batch, self.errors, None, NOW)
        return {**shape, "metadata": {"who": "me"}}

    async def answer(self, request: Request) -> JSONResponse:
        path = request.url.path
        self.asked.append((request.method, path, await request.body(), dict(request.headers)))
        if path == "/v1/files":
            return JSONResponse({"id": str(BATCH.input_file_id)})
        if path.endswith("batches") and request.method == "GET":
            return JSONResponse(listing_of([self.shape(), self.shape()], more=False))
        if "nothing" in path:
            return JSONResponse({"error": {"message": "There is no batch with this id."}}, 404)
        return JSONResponse(self.shape())


@pytest.fixture
def life(monkeypatch: pytest.MonkeyPatch) -> Iterator[Life]:
    played = Life()
    app = Starlette(routes=[Route("/{rest:path}", played.answer, methods=["GET", "POST"])])
    with running(app=app) as server:
        monkeypatch.setenv("KEEPLESS_BASE_URL", f"http://127.0.0.1:{server.port}")
        monkeypatch.setenv("KEEPLESS_API_KEY", "sk-x")
        yield played


def test_a_file_is_uploaded_and_a_batch_begun(life: Life, terminal: Terminal, tmp_path: Path) -> None:
    path = tmp_path / 'a "b".jsonl'
    path.write_bytes(b"{}\n" * 50_000)
    arguments = ("--metadata", "who=me", "--metadata", "why=a=b", "--idempotency-key", "k1", "--window", "7d")
    answer = terminal.json("batches", "create", str(path), *arguments)
    assert answer["id"] == BATCH.id
    upload, create = life.asked
    assert b"{}\n" * 50_000 in upload[2]
    assert b'name="purpose"\r\n\r\nbatch\r\n' in upload[2]
    assert b'filename="a \\"b\\".jsonl"' in upload[2]
    assert json.loads(create[2]) == {
        "input_file_id": BATCH.input_file_id,
        "endpoint": "/v1/chat/completions",
        "completion_window": "7d",
        "metadata": {"who": "me", "why": "a=b"},
    }
    assert create[3]["idempotency-key"] == "k1"
    assert create[3]["authorization"] == "Bearer sk-x"


def test_a_file_that_was_uploaded_is_named_by_its_id(life: Life, terminal: Terminal) -> None:
    file_id = str(mint(Prefix.FILE))
    terminal.json("batches", "create", file_id)
    ((_, path, body, _),) = life.asked
    assert path == "/v1/batches"
    assert json.loads(body)["input_file_id"] == file_id


def test_looking(life: Life, terminal: Terminal) -> None:
    assert terminal.json("batches", "show", BATCH.id)["id"] == BATCH.id
    assert len(terminal.json("batches", "list")["data"]) == 2
    assert terminal.json("batches", "cancel", BATCH.id)["id"] == BATCH.id
    assert life.asked[-1][:2] == ("POST", f"/v1/batches/{BATCH.id}/cancel")
    code, out, _ = terminal.run("batches", "list")
    assert (code, out.count(BATCH.id)) == (0, 2)
    code, _, err = terminal.run("batches", "show", "nothing")
    assert (code, "There is no batch with this id." in err) == (FINDING, True)


def test_what_was_wrong_is_shown_with_its_line(life: Life, terminal: Terminal) -> None:
    life.states = [replace(BATCH, state=S.FAILED, line_errors=1)]
    life.errors = [LineError(3, LineCode.DUPLICATE_ID)]
    _, out, _ = terminal.run("batches", "show", BATCH.id)
    assert "line 3" in out
    assert "duplicate_custom_id" in out


def test_watching_to_the_end_a_line_a_change(life: Life, terminal: Terminal) -> None:
    begun = replace(BATCH, state=S.IN_PROGRESS, in_progress_at=NOW - 10_000)
    life.states = [
        BATCH,
        replace(begun, counts=Counts(4, 1, 0)),
        replace(begun, counts=Counts(4, 1, 0)),
        replace(begun, counts=Counts(4, 2, 1)),
        replace(begun, state=S.COMPLETED, counts=Counts(4, 3, 1)),
    ]
    code, out, err = terminal.run("batches", "watch", BATCH.id, "--every", "0.05")
    assert code == 0
    assert err.splitlines() == [
        "validating 0.0 % 0 done, 0 failed of 0",
        "in_progress 25.0 % 1 done, 0 failed of 4, 0:00:30 left",
        "in_progress 75.0 % 2 done, 1 failed of 4, 0:00:03 left",
        "completed 100.0 % 3 done, 1 failed of 4",
    ]
    assert "100.0 %" in out


@pytest.mark.parametrize("state", [S.FAILED, S.EXPIRED, S.CANCELLED])
def test_a_batch_that_did_not_complete_is_a_finding(life: Life, terminal: Terminal, state: BatchState) -> None:
    life.states = [replace(BATCH, state=state)]
    assert terminal.json("batches", "watch", BATCH.id, code=FINDING)["status"] == state.value


def test_a_persons_terminal_shows_a_bar(life: Life, terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    life.states = [replace(BATCH, state=S.COMPLETED, counts=Counts(4, 3, 1))]
    code, _, err = terminal.run("batches", "watch", BATCH.id)
    assert code == 0
    assert "3 done, 1 failed of 4" in err
    assert "100%" in err


def test_a_server_that_is_started_again_does_not_end_the_watching(
    life: Life, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    life.states = [replace(BATCH, state=S.COMPLETED)]
    away = [module.UnreachableError("x")] * 2
    look = module.Client.get

    def get(client: module.Client, path: str, **query: object) -> Any:
        if away:
            raise away.pop()
        return look(client, path, **query)

    monkeypatch.setattr(module.Client, "get", get)
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    assert terminal.json("batches", "watch", BATCH.id)["status"] == "completed"
    away[:] = [module.UnreachableError("x")]
    monkeypatch.setattr(module, "_AWAY_S", -1.0)
    terminal.json("batches", "watch", BATCH.id, code=FINDING)


def test_wrong_usage(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KEEPLESS_API_KEY", raising=False)
    for arguments in (
        ("batches", "list"),
        ("batches", "create", "file-x", "--metadata", "no"),
        ("batches", "create", __file__),
    ):
        assert terminal.run(*arguments)[0] == USAGE
