"""`/uploads` over ASGI: a file in parts, in the order that is asked for; what is refused of it."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keepless.db import Database
from keepless.ids import Prefix, mint
from tests.support.file_routes import FORM, FileRoutes, file_routes, form

NEW: dict[str, Any] = {"bytes": 11, "filename": "MARKER.jsonl", "mime_type": "text/jsonl", "purpose": "batch"}


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Iterator[FileRoutes]:
    with file_routes(database, tmp_path) as made:
        yield made


def part(world: FileRoutes, upload_id: str, data: bytes) -> str:
    made = world.json("POST", f"/v1/uploads/{upload_id}/parts", form(("data", "blob", data)), content_type=FORM)
    assert (made["object"], made["upload_id"]) == ("upload.part", upload_id)
    return str(made["id"])


def test_parts_become_a_file_in_the_order_that_is_asked_for(world: FileRoutes) -> None:
    made = world.json("POST", "/v1/uploads", NEW)
    assert (made["object"], made["status"], made["file"]) == ("upload", "pending", None)
    last, first = part(world, made["id"], b"6789\n"), part(world, made["id"], b"012345")
    asked = {"part_ids": [first, last], "md5": hashlib.md5(b"0123456789\n").hexdigest().upper()}
    done = world.json("POST", f"/openai/v1/uploads/{made['id']}/complete", asked)
    assert (done["status"], done["file"]["filename"], done["file"]["bytes"]) == ("completed", "MARKER.jsonl", 11)
    assert world.ask("GET", f"/v1/files/{done['file']['id']}/content").body == b"0123456789\n"


def test_a_cancelled_upload_takes_no_more(world: FileRoutes) -> None:
    made = world.json("POST", "/v1/uploads", NEW)
    part(world, made["id"], b"x")
    assert world.json("POST", f"/v1/uploads/{made['id']}/cancel")["status"] == "cancelled"
    again = form(("data", "blob", b"y"))
    for path, body in (("parts", again), ("complete", {"part_ids": []}), ("cancel", None)):
        headers = {"content_type": FORM} if path == "parts" else {}
        assert 400 <= world.ask("POST", f"/v1/uploads/{made['id']}/{path}", body, **headers).status < 409


def test_a_part_that_has_no_room_in_the_upload_is_named(world: FileRoutes) -> None:
    made = world.json("POST", "/v1/uploads", NEW)
    for _ in range(2):
        part(world, made["id"], b"0123456789\n")
    sent = form(("data", "blob", b"x"))
    told = world.refused("POST", f"/v1/uploads/{made['id']}/parts", sent, content_type=FORM)
    assert told == (400, "invalid_value", "data")


@pytest.mark.parametrize("name", ["n" * 255, "n" * 900, "é" * 450])
def test_a_name_is_as_long_as_that_of_a_file(world: FileRoutes, name: str) -> None:
    assert world.json("POST", "/v1/uploads", NEW | {"filename": name})["filename"] == name


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"bytes": 0}, "bytes"),
        ({"bytes": True}, "bytes"),
        ({"bytes": "MARKER"}, "bytes"),
        ({"filename": ""}, "filename"),
        ({"filename": "n" * 901}, "filename"),
        ({"filename": "é" * 451}, "filename"),
        ({"mime_type": None}, "mime_type"),
        ({"mime_type": "m" * 201}, "mime_type"),
        ({"purpose": "MARKER"}, "purpose"),
        ({"expires_after": "MARKER"}, "expires_after"),
        ({"MARKER": 1}, None),
    ],
)
def test_an_upload_is_announced_in_known_words(world: FileRoutes, change: dict[str, Any], param: str | None) -> None:
    status, _, told = world.refused("POST", "/v1/uploads", NEW | change)
    assert (status, told) == (400, param)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "part_ids"),
        ({"part_ids": "MARKER"}, "part_ids"),
        ({"part_ids": [1]}, "part_ids"),
        ({"part_ids": [], "md5": 1}, "md5"),
        ({"part_ids": [], "md5": "f" * 65}, "md5"),
        ({"part_ids": [], "MARKER": 1}, None),
    ],
)
def test_an_upload_is_completed_in_known_words(world: FileRoutes, body: dict[str, Any], param: str | None) -> None:
    made = world.json("POST", "/v1/uploads", NEW)
    status, _, told = world.refused("POST", f"/v1/uploads/{made['id']}/complete", body)
    assert (status, told) == (400, param)


@pytest.mark.parametrize("wrong", ["size", "md5", "part"])
def test_what_does_not_fit_together_is_no_file(world: FileRoutes, wrong: str) -> None:
    made = world.json("POST", "/v1/uploads", NEW)
    asked: dict[str, Any] = {"part_ids": [part(world, made["id"], b"0123456789\n")]}
    if wrong == "size":
        asked["part_ids"].append(part(world, made["id"], b"x"))
    elif wrong == "md5":
        asked["md5"] = "0" * 32
    else:
        asked["part_ids"] = ["MARKER"]
    assert world.refused("POST", f"/v1/uploads/{made['id']}/complete", asked)[0] in (400, 404)
    assert world.json("GET", "/v1/files")["data"] == []


def test_whose_it_is_not_it_does_not_exist_for(world: FileRoutes) -> None:
    made, stranger = world.json("POST", "/v1/uploads", NEW), world.another()
    nothing = (404, "not_found", "upload_id")
    assert world.refused("POST", "/v1/uploads/MARKER/cancel") == nothing
    for upload_id, key in ((made["id"], stranger), (mint(Prefix.UPLOAD), None)):
        assert world.refused("POST", f"/v1/uploads/{upload_id}/cancel", key=key)[0] == 404
        assert world.refused("POST", f"/v1/uploads/{upload_id}/complete", {"part_ids": []}, key=key)[0] == 404
        sent = form(("data", "blob", b"y"))
        assert world.refused("POST", f"/v1/uploads/{upload_id}/parts", sent, key=key, content_type=FORM)[0] == 404


def test_a_body_that_is_too_large_is_refused_unread(world: FileRoutes) -> None:
    assert world.refused("POST", "/v1/uploads", b"x" * 1_100_000)[0] == 413
    made = world.json("POST", "/v1/uploads", NEW)
    sent = form(("data", "blob", b"y"))
    answer = world.ask("POST", f"/v1/uploads/{made['id']}/parts", sent, content_type=FORM, content_encoding="gzip")
    assert answer.status == 415
