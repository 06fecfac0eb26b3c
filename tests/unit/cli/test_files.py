"""`keepless files` against a stand-in that keeps one file."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from keepless.cli.outcome import FINDING, USAGE
from tests.support.http import running
from tests.unit.cli.conftest import Terminal

DATA = b"line\n" * 50_000
FILE = {
    "id": "file-a",
    "object": "file",
    "bytes": len(DATA),
    "created_at": 1,
    "expires_at": None,
    "filename": 'my "file".jsonl',
    "purpose": "batch",
    "status": "processed",
}


class Shelf:
    def __init__(self) -> None:
        self.asked: list[tuple[str, str, bytes]] = []

    async def answer(self, request: Request) -> Response:
        path = request.url.path
        self.asked.append((request.method, f"{path}?{request.url.query}", await request.body()))
        if "nothing" in path:
            return JSONResponse({"error": {"message": "No such File object."}}, 404)
        if path.endswith("/content"):
            return Response(DATA)
        if request.method == "DELETE":
            return JSONResponse({"id": "file-a", "object": "file", "deleted": True})
        if path.endswith("/files") and request.method == "GET":
            return JSONResponse({"object": "list", "data": [FILE], "has_more": False, "last_id": "file-a"})
        return JSONResponse(FILE)


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    kept = Shelf()
    app = Starlette(routes=[Route("/{rest:path}", kept.answer, methods=["GET", "POST", "DELETE"])])
    with running(app=app) as server:
        monkeypatch.setenv("KEEPLESS_BASE_URL", f"http://127.0.0.1:{server.port}")
        monkeypatch.setenv("KEEPLESS_API_KEY", "sk-x")
        yield kept


def test_upload(shelf: Shelf, terminal: Terminal, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(DATA)
    assert terminal.json("files", "upload", str(path), "--purpose", "fine-tune") == FILE
    ((method, target, body),) = shelf.asked
    assert (method, target) == ("POST", "/v1/files?")
    assert DATA in body
    assert b"fine-tune" in body
    assert terminal.run("files", "upload", str(tmp_path / "missing"))[0] == USAGE
    assert terminal.run("files", "upload", str(path), "--purpose", "vision")[0] == USAGE


def test_list_show_delete(shelf: Shelf, terminal: Terminal) -> None:
    assert terminal.json("files", "list", "--purpose", "batch") == {"data": [FILE]}
    assert "purpose=batch" in shelf.asked[0][1]
    assert terminal.json("files", "show", "file-a") == FILE
    assert terminal.json("files", "delete", "file-a")["deleted"]
    assert terminal.json("files", "show", "nothing", code=FINDING)["error"]


def test_a_download_is_whole_and_its_owners_alone(shelf: Shelf, terminal: Terminal, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    said = terminal.json("files", "download", "file-a", "--out", str(out))
    assert (said["bytes"], out.read_bytes()) == (len(DATA), DATA)
    assert out.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [out]
    assert terminal.json("files", "download", "nothing", "--out", str(tmp_path / "no"), code=FINDING)["error"]
    assert list(tmp_path.iterdir()) == [out]
    terminal.json("files", "download", "file-a", "--out", str(tmp_path / "no" / "such"), code=FINDING)
