"""Files with the official clients, unchanged, against a running server."""

import gzip
import hashlib
import http.client
import json
import os
import socket
import sqlite3
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import groq
import openai
import pytest

from keepless.ids import Prefix, mint
from tests.support.outside import keepless
from tests.support.serve import Served, serve

MARKER = b"marker-c3d1"
LINE = json.dumps({"custom_id": "one", "text": MARKER.decode()}).encode() + b"\n"
MODEL = {"id": "m", "engine": "openai", "base_url": "http://127.0.0.1:9/v1", "retention": "zero"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Served]:
    with serve(folder, [MODEL], settings={"sweep_seconds": 1}) as server:
        yield server


@pytest.fixture(scope="module")
def openai_client(served: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=served.api_key, base_url=f"{served.url}/openai/v1", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def groq_client(served: Served) -> Iterator[groq.Groq]:
    with groq.Groq(api_key=served.api_key, base_url=served.url, max_retries=0) as client:
        yield client


@pytest.fixture(params=["openai", "groq"])
def client(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_client")


def refused(act: Callable[[], Any]) -> Any:
    with pytest.raises((openai.APIStatusError, groq.APIStatusError)) as caught:
        act()
    return caught.value


def code(error: Any) -> str:
    return str(error.response.json()["error"]["code"])


def content(client: Any, file_id: str) -> bytes:
    return bytes(client.files.content(file_id).read())


def test_a_file_lives_and_dies_as_the_clients_expect(client: Any) -> None:
    made = client.files.create(file=('my file é".jsonl', LINE), purpose="batch")
    assert made.id.startswith("file-")
    assert (made.object, made.bytes, made.filename, made.purpose) == ("file", len(LINE), 'my file é".jsonl', "batch")
    assert made.status == "processed"
    assert 29 * 86_400 < made.expires_at - time.time() <= 30 * 86_400
    again = getattr(client.files, "info" if isinstance(client, groq.Groq) else "retrieve")(made.id)
    assert again.model_dump() == made.model_dump()
    assert made.id in [one.id for one in client.files.list().data]
    assert content(client, made.id) == LINE
    gone = client.files.delete(made.id)
    assert (gone.id, gone.deleted, gone.object) == (made.id, True, "file")
    for act in (lambda: content(client, made.id), lambda: client.files.delete(made.id)):
        assert refused(act).status_code == 404
    assert made.id not in [one.id for one in client.files.list().data]


def test_the_answer_says_what_is_kept(openai_client: openai.OpenAI, served: Served) -> None:
    raw = openai_client.files.with_raw_response.create(file=("a.jsonl", LINE), purpose="batch")
    said = dict(part.split("=") for part in raw.headers["x-keepless-retention"].split("; "))
    made = raw.parse()
    assert said["class"] == "batch_input"
    kept = served.ask("GET", f"/organization/retained_objects/{said['object']}")
    assert (kept["class"], kept["expires_at"]) == ("batch_input", made.expires_at)
    assert openai_client.files.with_raw_response.retrieve(made.id).headers["x-keepless-retention"] == "none"
    why = served.ask("GET", f"/organization/requests/{raw.headers['x-request-id']}") if _explains(served) else None
    assert why is None or why["kept"]


def _explains(served: Served) -> bool:
    with urllib.request.urlopen(f"{served.url}/openapi.json", timeout=10) as answer:
        return "/organization/requests/{id}" in json.load(answer)["paths"]


def test_pages_and_filters(openai_client: openai.OpenAI) -> None:
    tuned = [openai_client.files.create(file=(f"{n}.jsonl", LINE), purpose="fine-tune").id for n in range(5)]
    listed = [one.id for one in openai_client.files.list(purpose="fine-tune", limit=2)]
    assert listed == tuned[::-1]
    first = openai_client.files.list(purpose="fine-tune", limit=2, order="asc")
    assert [one.id for one in first.data] == tuned[:2]
    assert first.has_more
    assert [one.id for one in openai_client.files.list(purpose="fine-tune", order="asc", after=tuned[2])] == tuned[3:]
    assert openai_client.files.retrieve(tuned[0]).expires_at is None
    for query in ({"order": "up"}, {"limit": 0}, {"limit": 10_001}, {"purpose": "vision"}):
        error = refused(lambda query=query: openai_client.files.list(**query))
        assert (error.status_code, error.param) == (400, next(iter(query)))
    assert refused(lambda: openai_client.files.list(after=mint(Prefix.FILE))).status_code == 404
    for one in tuned:
        openai_client.files.delete(one)


def test_files_are_deleted_while_their_pages_are_walked(openai_client: openai.OpenAI, groq_client: groq.Groq) -> None:
    def five() -> list[str]:
        return [openai_client.files.create(file=(f"{n}.jsonl", LINE), purpose="fine-tune").id for n in range(5)]

    made, seen = five(), []
    for one in openai_client.files.list(purpose="fine-tune", limit=2):
        seen.append(one.id)
        openai_client.files.delete(one.id)
    assert seen == made[::-1]

    made, seen, query = five(), [], {"purpose": "fine-tune", "limit": "2"}
    while True:  # Groq's client walks no pages by itself
        page = groq_client.files.list(extra_query=query)
        for it in page.data or []:
            seen.append(str(it.id))
            groq_client.files.delete(str(it.id))
        following = (page.model_extra or {})["paging"]["next_cursor"]
        if following is None:
            break
        query = {**query, "cursor": following}
    assert seen == made[::-1]


def test_an_earlier_end_is_kept_and_a_later_one_is_not(openai_client: openai.OpenAI) -> None:
    for seconds, days in ((3600, 1 / 24), (2_592_000, 30)):
        made = openai_client.files.create(
            file=("a.jsonl", LINE), purpose="batch", expires_after={"anchor": "created_at", "seconds": seconds}
        )
        assert abs(made.expires_at - made.created_at - days * 86_400) <= 1
    bad: list[Any] = [{"anchor": "created_at", "seconds": 3599}, {"anchor": "last_used", "seconds": 3600}]
    for after in bad:
        error = refused(
            lambda after=after: openai_client.files.create(file=("a.jsonl", LINE), purpose="batch", expires_after=after)
        )
        assert (error.status_code, error.param.partition(".")[0]) == (400, "expires_after")


def test_parts_of_a_file(openai_client: openai.OpenAI, served: Served) -> None:
    data = os.urandom(3_000_000)
    made = openai_client.files.create(file=("a.bin", data), purpose="batch")
    for asked, start, stop in (
        ("bytes=0-0", 0, 1),
        ("bytes=1048000-1049000", 1_048_000, 1_049_001),
        ("bytes=2999990-", 2_999_990, 3_000_000),
        ("bytes=-7", 2_999_993, 3_000_000),
        ("bytes=5-9999999", 5, 3_000_000),
    ):
        answer = get(served, f"/files/{made.id}/content", {"range": asked})
        assert (answer.status, answer.data) == (206, data[start:stop])
        assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(data)}"
    answer = get(served, f"/files/{made.id}/content", {"range": "bytes=3000000-"})
    assert (answer.status, answer.headers["content-range"]) == (416, "bytes */3000000")
    for whole in ("bytes=0-1,5-6", "lines=1-2", "bytes=9-3", "bytes=-"):
        answer = get(served, f"/files/{made.id}/content", {"range": whole})
        assert (answer.status, answer.data) == (200, data)
    assert answer.headers["content-disposition"] == "attachment; filename=\"a.bin\"; filename*=UTF-8''a.bin"


class Got:
    def __init__(self, reply: http.client.HTTPResponse) -> None:
        self.status, self.data, self.headers = reply.status, reply.read(), {k.lower(): v for k, v in reply.getheaders()}

    @property
    def code(self) -> Any:
        return json.loads(self.data)["error"]["code"]


def get(served: Served, path: str, headers: dict[str, str]) -> Got:
    return send(served, "GET", path, headers, b"")


def send(served: Served, method: str, path: str, headers: dict[str, str], body: bytes) -> Got:
    at = urlsplit(served.url)
    connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=30)
    connection.request(method, f"/v1{path}", body, {"authorization": f"Bearer {served.api_key}", **headers})
    with connection.getresponse() as reply:
        got = Got(reply)
    connection.close()
    return got


def form(*parts: tuple[str, str | None, bytes]) -> tuple[dict[str, str], bytes]:
    out = b""
    for name, file_name, data in parts:
        extra = "" if file_name is None else f'; filename="{file_name}"'
        out += f'--b0\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode() + data + b"\r\n"
    return {"content-type": "multipart/form-data; boundary=b0"}, out + b"--b0--\r\n"


FILE = ("file", "a.jsonl", LINE)
PURPOSE = ("purpose", None, b"batch")


def test_the_file_stands_before_or_after_its_purpose(served: Served) -> None:
    for parts in ([FILE, PURPOSE], [PURPOSE, FILE], [("purpose", None, b"fine_tuning"), FILE]):
        assert send(served, "POST", "/files", *form(*parts)).status == 200


BAD: dict[str, tuple[list[Any], int, str]] = {
    "empty": ([PURPOSE, ("file", "a", b"")], 400, "invalid_value"),
    "no file": ([PURPOSE], 400, "missing_required_parameter"),
    "no purpose": ([FILE], 400, "missing_required_parameter"),
    "wrong purpose": ([("purpose", None, b"assistants"), FILE], 400, "invalid_value"),
    "wrong purpose, later": ([FILE, ("purpose", None, b"vision")], 400, "invalid_value"),
    "two files": ([FILE, FILE, PURPOSE], 400, "invalid_value"),
    "two purposes": ([PURPOSE, PURPOSE, FILE], 400, "invalid_value"),
    "an unknown field": ([PURPOSE, FILE, ("what", None, b"x")], 400, "unknown_parameter"),
    "a long name": ([PURPOSE, ("file", "n" * 901, LINE)], 400, "invalid_value"),
    "store false": ([PURPOSE, FILE, ("store", None, b"false")], 400, "retention_conflict"),
    "store true": ([PURPOSE, FILE, ("store", None, b"true")], 400, "loosening_refused"),
    "a purpose as a file": ([("purpose", "a", b"batch"), FILE], 400, "invalid_value"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_forms_keep_nothing_and_say_why(served: Served, case: str) -> None:
    parts, status, expected = BAD[case]
    before = kept(served)
    answer = send(served, "POST", "/files", *form(*parts))
    assert (answer.status, answer.code) == (status, expected)
    assert b"marker" not in answer.data
    assert answer.headers["x-keepless-retention"] == "none"
    assert kept(served) == before


def kept(served: Served) -> int:
    return len(served.ask("GET", "/organization/retained_objects?limit=100")["data"])


def test_bad_bodies_keep_nothing_and_say_why(served: Served) -> None:
    headers, body = form(PURPOSE, FILE)
    cases: list[tuple[dict[str, str], bytes, int, str]] = [
        ({**headers, "content-encoding": "gzip"}, gzip.compress(body), 415, "unsupported_value"),
        ({"content-type": "application/json"}, b"{}", 415, "unsupported_value"),
        ({"content-type": "multipart/form-data"}, body, 415, "unsupported_value"),
        (headers, body[:-10], 400, "invalid_value"),
        (headers, b"preamble" + body, 400, "invalid_value"),
        ({**headers, "x-keepless-retention": "zero"}, body, 400, "retention_conflict"),
        ({**headers, "x-keepless-retention": "forever"}, body, 400, "invalid_value"),
        ({**headers, "authorization": "Bearer nobody"}, body, 401, "invalid_api_key"),
    ]
    before = kept(served)
    for more, data, status, expected in cases:
        answer = send(served, "POST", "/files", more, data)
        assert (answer.status, answer.code) == (status, expected)
    assert kept(served) == before


def test_a_file_that_is_too_large_is_refused_with_the_limit(served: Served, folder: Path) -> None:
    at = urlsplit(served.url)
    headers, body = form(PURPOSE, FILE)
    for length, told in ((300 << 20, b"bytes"), (201 << 20, b"limits.file_bytes")):
        with socket.create_connection((at.hostname, at.port), timeout=60) as raw:
            head = f"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {served.api_key}\r\n"
            head += f"content-type: {headers['content-type']}\r\ncontent-length: {length}\r\n\r\n"
            raw.sendall(head.encode() + body[: -len(b"\r\n--b0--\r\n")])
            piece, sent = b"x" * (1 << 20), 0
            raw.settimeout(30)
            try:
                while sent < length - (1 << 20):
                    raw.sendall(piece)
                    sent += len(piece)
            except OSError:
                pass
            answer = raw.recv(65536)
            assert answer.startswith(b"HTTP/1.1 413")
            assert told in answer
    assert not list((folder / "data" / "blobs").rglob("*#*"))


def test_an_upload_that_is_cut_leaves_nothing(served: Served, folder: Path) -> None:
    at = urlsplit(served.url)
    headers, body = form(PURPOSE, ("file", "a", MARKER * 300_000))
    before = kept(served)
    with socket.create_connection((at.hostname, at.port), timeout=30) as raw:
        head = f"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {served.api_key}\r\n"
        head += f"content-type: {headers['content-type']}\r\ncontent-length: {len(body)}\r\n\r\n"
        raw.sendall(head.encode() + body[: len(body) // 2])
        blobs = folder / "data" / "blobs"
        wait_for(lambda: bool(list(blobs.rglob("*#*"))))
        assert not [path for path in blobs.rglob("*#*") if MARKER in path.read_bytes()]
    wait_for(lambda: not list(blobs.rglob("*#*")))
    assert kept(served) == before


def wait_for(true: Callable[[], bool]) -> None:
    for _ in range(200):
        if true():
            return
        time.sleep(0.05)
    raise AssertionError


def test_another_project_sees_nothing(served: Served, openai_client: openai.OpenAI) -> None:
    made = openai_client.files.create(file=("a.jsonl", LINE), purpose="batch")
    project = served.ask("POST", "/organization/projects", {"name": "other"})
    key = served.ask("POST", f"/organization/projects/{project['id']}/api_keys", {"name": "k"})["value"]
    with openai.OpenAI(api_key=key, base_url=f"{served.url}/v1", max_retries=0) as other:
        assert other.files.list().data == []
        acts: list[Callable[[], Any]] = [
            lambda: other.files.retrieve(made.id),
            lambda: content(other, made.id),
            lambda: other.files.delete(made.id),
            lambda: other.files.retrieve("file-1"),
        ]
        for act in acts:
            assert refused(act).status_code == 404
    # An owner's admin key reads the files of every project, and makes none.
    with openai.OpenAI(api_key=served.told["admin_key"], base_url=f"{served.url}/v1", max_retries=0) as owner:
        assert content(owner, made.id) == LINE
        assert made.id in [one.id for one in owner.files.list()]
        assert refused(lambda: owner.files.create(file=("a", LINE), purpose="batch")).status_code == 401


def test_every_call_leaves_its_row_of_usage(served: Served, folder: Path, openai_client: openai.OpenAI) -> None:
    ids = []
    made = openai_client.files.with_raw_response.create(file=("a.jsonl", LINE), purpose="batch")
    ids.append((made.headers["x-request-id"], 200, "stored"))
    error = refused(lambda: openai_client.files.create(file=("a.jsonl", LINE), purpose="evals"))
    ids.append((error.response.headers["x-request-id"], 400, "none"))
    listed = openai_client.files.with_raw_response.list(limit=1)
    ids.append((listed.headers["x-request-id"], 200, "none"))
    for request_id, status, outcome in ids:
        wait_for(lambda request_id=request_id: row_of(folder, request_id) is not None)
        endpoint, found, became, bytes_in, bytes_out = row_of(folder, request_id) or ()
        assert (endpoint, found, became) == ("files", status, outcome)
        assert bytes_out > 100
        assert (bytes_in > len(LINE)) == (request_id != ids[2][0])


def row_of(folder: Path, request_id: str) -> Any:
    with sqlite3.connect(folder / "data" / "keepless.sqlite") as db:
        return db.execute(
            "SELECT k.endpoint, k.status, k.outcome, u.bytes_in, u.bytes_out FROM usage u JOIN usage_kind k "
            "ON k.id = u.kind_id WHERE u.request_id = ?",
            (request_id,),
        ).fetchone()


def test_a_feature_that_is_off_takes_and_gives_nothing_but_to_owners(
    served: Served, openai_client: openai.OpenAI
) -> None:
    made = openai_client.files.create(file=("a.jsonl", LINE), purpose="batch")
    tuned = openai_client.files.create(file=("t.jsonl", LINE), purpose="fine-tune")
    served.ask("POST", "/organization/data_controls", {"batch": "disabled", "purge": False})
    try:
        acts: list[Callable[[], Any]] = [
            lambda: openai_client.files.create(file=("a", LINE), purpose="batch"),
            lambda: openai_client.files.retrieve(made.id),
            lambda: content(openai_client, made.id),
            lambda: openai_client.files.delete(made.id),
            lambda: openai_client.files.list(purpose="batch"),
        ]
        for act in acts:
            error = refused(act)
            assert (error.status_code, code(error)) == (403, "feature_disabled_by_data_controls")
            assert error.response.headers["x-should-retry"] == "false"
        listed = list(openai_client.files.list())
        assert tuned.id in [one.id for one in listed]
        assert {one.purpose for one in listed} == {"fine-tune"}
        with openai.OpenAI(api_key=served.told["admin_key"], base_url=f"{served.url}/v1", max_retries=0) as owner:
            assert content(owner, made.id) == LINE
            assert owner.files.delete(made.id).deleted
    finally:
        served.ask("POST", "/organization/data_controls", {"batch": "enabled"})
        openai_client.files.delete(tuned.id)


def test_no_name_or_content_is_on_disk_or_in_the_log(
    served: Served, folder: Path, openai_client: openai.OpenAI
) -> None:
    name = "marker-name-77"
    made = openai_client.files.create(file=(name, LINE), purpose="batch")
    content(openai_client, made.id)
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert MARKER not in data
            assert name.encode() not in data
    assert not [line for line in served.log if MARKER.decode() in line or name in line]


# -- uploads -------------------------------------------------------------------------------------------------------


def begin(client: openai.OpenAI, size: int, name: str = "whole.jsonl", **more: Any) -> Any:
    return client.uploads.create(bytes=size, filename=name, mime_type="application/jsonl", purpose="batch", **more)


def test_a_file_comes_in_parts(openai_client: openai.OpenAI, served: Served) -> None:
    pieces = [os.urandom(1_500_000), b"", os.urandom(700_000)]
    data = pieces[2] + pieces[0]
    one = begin(openai_client, len(data))
    assert (one.object, one.status, one.filename, one.bytes) == ("upload", "pending", "whole.jsonl", len(data))
    assert one.expires_at - one.created_at == 3600
    first = openai_client.uploads.parts.create(one.id, data=pieces[0])
    unused = openai_client.uploads.parts.create(one.id, data=b"unused")
    last = openai_client.uploads.parts.create(one.id, data=pieces[2])
    assert (first.object, first.upload_id) == ("upload.part", one.id)
    for ids in ([], [first.id], [first.id, first.id], [first.id, "part_x"], [unused.id, first.id, last.id]):
        error = refused(lambda ids=ids: openai_client.uploads.complete(one.id, part_ids=ids))
        assert (error.status_code, error.param) == (400, "part_ids")
    order = [last.id, first.id]
    error = refused(lambda: openai_client.uploads.complete(one.id, part_ids=order, md5="0" * 32))
    assert (error.status_code, error.param) == (400, "md5")
    done = openai_client.uploads.complete(one.id, part_ids=order, md5=hashlib.md5(data).hexdigest())
    assert (done.status, done.file.filename, done.file.bytes) == ("completed", "whole.jsonl", len(data))
    assert content(openai_client, done.file.id) == data
    listed = served.ask("GET", "/organization/retained_objects?limit=100&class=upload_part")["data"]
    assert [row for row in listed if row["class"] == "upload_part"] == []
    for act in (
        lambda: openai_client.uploads.complete(one.id, part_ids=order),
        lambda: openai_client.uploads.cancel(one.id),
        lambda: openai_client.uploads.parts.create(one.id, data=b"late"),
    ):
        assert refused(act).status_code == 400


def test_the_helper_of_the_client_uploads_in_chunks(openai_client: openai.OpenAI) -> None:
    data = os.urandom(900_000)
    done = openai_client.uploads.upload_file_chunked(
        file=data, filename="c.jsonl", bytes=len(data), mime_type="text/plain", purpose="batch", part_size=400_000
    )
    assert done.file is not None
    assert content(openai_client, done.file.id) == data


def test_a_cancelled_upload_leaves_nothing(openai_client: openai.OpenAI, served: Served) -> None:
    before = kept(served)
    one = begin(openai_client, 5)
    openai_client.uploads.parts.create(one.id, data=b"12345")
    assert kept(served) == before + 2
    gone = openai_client.uploads.cancel(one.id)
    assert (gone.status, gone.filename) == ("cancelled", "whole.jsonl")
    assert kept(served) == before
    assert refused(lambda: openai_client.uploads.cancel(one.id)).status_code == 400


def test_bad_uploads(openai_client: openai.OpenAI, served: Served) -> None:
    other_id = mint(Prefix.UPLOAD)
    one = begin(openai_client, 5)
    assert refused(lambda: openai_client.uploads.parts.create(one.id, data=b"123456")).status_code == 413
    assert refused(lambda: openai_client.uploads.parts.create(one.id, data=b"")).status_code == 400
    for act in (
        lambda: openai_client.uploads.cancel(other_id),
        lambda: openai_client.uploads.cancel("upload_1"),
        lambda: openai_client.uploads.parts.create(other_id, data=b"1"),
        lambda: openai_client.uploads.complete(other_id, part_ids=["part_1"]),
    ):
        assert refused(act).status_code == 404
    good = {"bytes": 5, "filename": "a", "mime_type": "text/plain", "purpose": "batch"}
    bad: list[tuple[dict[str, Any], int, str]] = [
        ({"bytes": 0}, 400, "bytes"),
        ({"bytes": True}, 400, "bytes"),
        ({"bytes": 10**10}, 413, "file"),
        ({"filename": ""}, 400, "filename"),
        ({"filename": "n" * 901}, 400, "filename"),
        ({"mime_type": 5}, 400, "mime_type"),
        ({"purpose": "vision"}, 400, "purpose"),
        ({"expires_after": []}, 400, "expires_after"),
        ({"expires_after": {"anchor": "created_at", "seconds": 1}}, 400, "expires_after.seconds"),
    ]
    for change, status, param in bad:
        answer = send(served, "POST", "/uploads", {}, json.dumps(good | change).encode())
        error = json.loads(answer.data)["error"]
        assert (answer.status, error["param"]) == (status, param)
    for change, expected in (({"store": False}, "retention_conflict"), ({"what": 1}, "unknown_parameter")):
        answer = send(served, "POST", "/uploads", {}, json.dumps(good | change).encode())
        assert (answer.status, answer.code) == (400, expected)
    openai_client.uploads.cancel(one.id)


def test_the_command_line_uploads_downloads_and_deletes(served: Served, tmp_path: Path) -> None:
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    path.write_bytes(LINE * 1000)
    environment = {"KEEPLESS_BASE_URL": served.url, "KEEPLESS_API_KEY": served.api_key}
    code, made = keepless("files", "upload", str(path), **environment)
    assert (code, made["bytes"], made["filename"]) == (0, len(LINE) * 1000, "in.jsonl")
    assert made["id"] in [one["id"] for one in keepless("files", "list", **environment)[1]["data"]]
    assert keepless("files", "download", made["id"], "--out", str(out), **environment)[0] == 0
    assert out.read_bytes() == path.read_bytes()
    assert keepless("files", "delete", made["id"], **environment)[1]["deleted"]
    assert keepless("files", "show", made["id"], **environment)[0] == 1
