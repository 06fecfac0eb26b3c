"""`/files` over ASGI: what is taken, listed, handed out and deleted, and in which words the rest is refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from keepless.db import Database
from keepless.ids import Prefix, mint
from tests.support.file_routes import FORM, FileRoutes, file_routes, form

PURPOSE = ("purpose", None, b"batch")
LINE = b"0123456789\n"


@pytest.fixture
def world(database: Database, tmp_path: Path) -> Iterator[FileRoutes]:
    with file_routes(database, tmp_path) as made:
        yield made


def uploaded(world: FileRoutes, name: str = "MARKER.jsonl", data: bytes = LINE) -> Any:
    return world.json("POST", "/v1/files", form(("file", name, data), PURPOSE), content_type=FORM)


def test_a_file_is_taken_told_listed_and_deleted_below_both_bases(world: FileRoutes) -> None:
    made = uploaded(world)
    told = {name: made[name] for name in ("object", "bytes", "filename", "purpose", "status")}
    assert told == {
        "object": "file", "bytes": 11, "filename": "MARKER.jsonl", "purpose": "batch", "status": "processed",
    }  # fmt: skip
    assert world.json("GET", f"/openai/v1/files/{made['id']}") == made
    assert world.json("GET", "/openai/v1/files")["data"] == [made]
    deleted = world.json("DELETE", f"/v1/files/{made['id']}")
    assert deleted == {"id": made["id"], "object": "file", "deleted": True}
    assert world.refused("GET", f"/v1/files/{made['id']}")[0] == 404
    assert world.json("GET", "/v1/files")["data"] == []


def test_pages_follow_each_other_in_both_words(world: FileRoutes) -> None:
    ids = [uploaded(world, data=LINE * (at + 1))["id"] for at in range(3)]
    oldest = world.json("GET", "/v1/files?limit=2&order=asc")
    shown = [one["id"] for one in oldest["data"]]
    assert oldest["has_more"]
    assert oldest["paging"] == {"next_cursor": shown[-1]}
    for word in ("after", "cursor"):
        rest = world.json("GET", f"/v1/files?limit=2&order=asc&{word}={shown[-1]}")
        assert sorted([*shown, *(one["id"] for one in rest["data"])]) == sorted(ids)
        assert (rest["has_more"], rest["paging"]["next_cursor"]) == (False, None)
    assert world.json("GET", "/v1/files?purpose=fine-tune")["data"] == []


@pytest.mark.parametrize(
    ("asked", "status", "told", "place"),
    [
        (None, 200, LINE, None),
        ("bytes=2-4", 206, b"234", "bytes 2-4/11"),
        ("bytes=8-", 206, b"89\n", "bytes 8-10/11"),
        ("bytes=-3", 206, b"89\n", "bytes 8-10/11"),
        ("bytes=0-99", 206, LINE, "bytes 0-10/11"),
        ("bytes=4-2", 200, LINE, None),
        ("bytes=0-1,3-4", 200, LINE, None),
        ("lines=1-2", 200, LINE, None),
        ("bytes=-", 200, LINE, None),
        ("Bytes=2-4", 206, b"234", "bytes 2-4/11"),
        (f"bytes=2-{10**20}", 206, LINE[2:], "bytes 2-10/11"),
    ],
)
def test_content_is_whole_or_one_range(
    world: FileRoutes, asked: str | None, status: int, told: bytes, place: str | None
) -> None:
    made = uploaded(world)
    headers = {} if asked is None else {"range": asked}
    answer = world.ask("GET", f"/v1/files/{made['id']}/content", **headers)
    assert (answer.status, answer.body, answer.headers.get("content-range")) == (status, told, place)
    assert (
        answer.headers["content-disposition"] == "attachment; filename=\"MARKER.jsonl\"; filename*=UTF-8''MARKER.jsonl"
    )
    assert world.downloaded == ([made["id"]] if told.endswith(b"\n") else [])


@pytest.mark.parametrize(("name", "plain"), [("é.jsonl", False), ('a".jsonl', False), ("a b", False), ("a-1.b", True)])
def test_a_name_is_told_plainly_only_if_it_is_plain(world: FileRoutes, name: str, plain: bool) -> None:
    made = uploaded(world, name.replace('"', "%22"))
    told = world.ask("GET", f"/v1/files/{made['id']}/content").headers["content-disposition"]
    first = f' filename="{name}";' if plain else ""
    assert told == f"attachment;{first} filename*=UTF-8''{quote(name)}"


def test_no_answer_can_be_continued_by_a_validator(world: FileRoutes) -> None:
    path = f"/v1/files/{uploaded(world)['id']}/content"
    assert world.ask("GET", path, range="bytes=2-4", if_range='"seen"').status == 200


def test_the_head_of_a_file_is_told_without_a_download(world: FileRoutes) -> None:
    path = f"/v1/files/{uploaded(world)['id']}"
    for tail in ("/content", ""):
        whole, head = world.ask("GET", path + tail), world.ask("HEAD", path + tail)
        kept = [one.headers["content-length"] for one in (whole, head)]
        assert (head.status, head.body, kept[0]) == (200, b"", kept[1])
    assert len(world.downloaded) == 1
    assert world.ask("HEAD", f"/v1/files/{mint(Prefix.FILE)}").status == 404


def test_a_range_behind_the_end_is_refused_with_the_size(world: FileRoutes) -> None:
    answer = world.ask("GET", f"/v1/files/{uploaded(world)['id']}/content", range="bytes=11-")
    assert (answer.status, answer.headers["content-range"]) == (416, "bytes */11")
    assert world.downloaded == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=10001", "limit"),
        ("limit=MARKER", "limit"),
        ("limit=%D9%A3", "limit"),  # a digit, but not one of ours
        ("order=MARKER", "order"),
        ("purpose=MARKER", "purpose"),
    ],
)
def test_a_list_is_asked_for_in_known_words(world: FileRoutes, query: str, param: str) -> None:
    assert world.refused("GET", f"/v1/files?{query}") == (400, "invalid_value", param)


def test_whose_it_is_not_it_does_not_exist_for(world: FileRoutes) -> None:
    made, stranger = uploaded(world), world.another()
    nothing = world.refused("GET", f"/v1/files/{mint(Prefix.FILE)}")
    assert nothing[0] == 404
    for method, path in (
        ("GET", f"/v1/files/{made['id']}"),
        ("GET", f"/v1/files/{made['id']}/content"),
        ("DELETE", f"/v1/files/{made['id']}"),
    ):
        assert world.refused(method, path, key=stranger) == nothing
    assert world.json("GET", "/v1/files", key=stranger)["data"] == []
    assert world.refused("GET", "/v1/files/MARKER") == nothing
    assert world.refused("GET", "/v1/files?after=MARKER") == nothing
    assert world.json("GET", f"/v1/files/{made['id']}") == made


@pytest.mark.parametrize(
    ("parts", "headers", "status"),
    [
        ((("file", "MARKER", b""), PURPOSE), {}, 400),
        ((PURPOSE,), {}, 400),
        ((("file", "MARKER", LINE),), {}, 400),
        ((("file", "MARKER", LINE), ("purpose", None, b"MARKER")), {}, 400),
        ((("file", "MARKER", b"x" * 5_000_001), PURPOSE), {}, 413),
        ((("file", "MARKER", LINE), PURPOSE), {"content_encoding": "gzip"}, 415),
        ((("file", "MARKER", LINE), PURPOSE), {"content_type": "text/plain"}, 415),
        ((("file", "MARKER", LINE), PURPOSE), {"x_keepless_retention": "none"}, 400),
    ],
    ids=["empty", "no file", "no purpose", "wrong purpose", "too large", "compressed", "no form", "keep nothing"],
)
def test_what_is_refused_is_not_kept(world: FileRoutes, parts: Any, headers: dict[str, str], status: int) -> None:
    answer = world.ask("POST", "/v1/files", form(*parts), **{"content_type": FORM, **headers})
    assert answer.status == status, answer.body
    assert b"MARKER" not in answer.body
    assert json.loads(answer.body)["error"]["code"]
    assert world.json("GET", "/v1/files")["data"] == []
    assert list((world.shelf.rig.folder / "blobs").rglob("*.*")) == []
