"""What people read and take along in the console is nowhere else: captures that are opened, files, whole exports.

Marked are a captured question and its answer, a file and its name. Each is shown or handed over, and cut short: by a
client that leaves in the middle or never reads, by an approval that is over, by a store that fails while it is read.
Then the data folder, the temporary folders, the log of the server and its database are searched in every form.
"""

import os
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from keepless.prover import places
from keepless.prover.markers import Markers
from keepless.prover.search import Search
from tests.support.outside import Answer, Organization, call, comes_true
from tests.support.serve import Served, serve, upstream_models
from tests.support.upstream import Behaviour, MockUpstream

FORM = {"content-type": "application/x-www-form-urlencoded"}


class World:
    """One server, its owner and its operator, and what is marked."""

    def __init__(self, served: Served, folder: Path, answer: str, markers: Markers) -> None:
        self.served, self.folder = served, folder
        self.customer = Organization.of(served.url, served.told)
        self.question, self.content, self.name = (markers.mint(part).text for part in ("question", "file", "name"))
        self.search = Search.of_texts([self.question, answer, self.content, self.name])
        self.answer = answer

    def post(self, path: str, key: str, **form: str) -> Answer:
        return call(self.served.url, "POST", path, key, urlencode(form).encode(), **FORM)

    @property
    def operator(self) -> str:
        return self.served.told["operator_key"]

    def captured(self) -> str:
        before = set(self.customer.retained())
        assert self.customer.chat(Behaviour.CUT_STREAM.value, self.question, stream=True).status == 200
        comes_true(lambda: set(self.customer.retained()) - before)
        (object_id,) = set(self.customer.retained()) - before
        return object_id

    def asked(self, object_id: str) -> str:
        """An opening that waits for its second person."""
        form = {"organization": self.customer.id, "reason": "reliability", "reference": "t-1", "minutes": "5"}
        assert self.post(f"/captures/{object_id}/openings", self.operator, **form).status == 303
        page = call(self.served.url, "GET", f"/captures/{object_id}", self.customer.admin_key).body.decode()
        found = re.search(r"/openings/(open_[a-z2-7]{24})/approve", page)
        assert found is not None
        return found[1]

    def opening(self, object_id: str) -> str:
        """One that is approved."""
        opening_id = self.asked(object_id)
        assert self.post(f"/openings/{opening_id}/approve", self.customer.admin_key).status == 303
        return opening_id

    def show(self, opening_id: str) -> Answer:
        return self.post(f"/openings/{opening_id}/show", self.operator, organization=self.customer.id)

    def leave(self, path: str, key: str, form: dict[str, str], *, read: int) -> None:
        """Send a form, read so much of the answer, and be gone."""
        host, port = self.served.url.removeprefix("http://").split(":")
        body = urlencode(form).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
        head += f"content-type: {FORM['content-type']}\r\n"
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            while read > 0 and (some := connection.recv(read)):
                read -= len(some)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def upload(self) -> None:
        data = (self.content + "\n").encode() * 200_000
        headers = {"x-file-name": self.name + ".jsonl", "x-file-purpose": "batch"}
        sent = {**headers, "x-file-project": self.customer.project_id}
        answer = call(self.served.url, "POST", "/files/upload", self.customer.admin_key, data, **sent)
        assert answer.status == 200, answer.body

    def said(self, kind: str) -> list[dict[str, object]]:
        page = self.customer.admin("GET", f"/audit_logs?event_types[]={kind}&limit=100").json
        return [event[kind]["data"] for event in page["data"]]

    def nothing_survives(self) -> None:
        found = [
            *places.folder(self.search, self.folder, "data").findings,
            *places.output(self.search, {"log": "".join(self.served.log).encode()}).findings,
        ]
        assert found == []


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("canary")
    markers = Markers()
    answer = markers.mint("answer").text
    temporary = folder / "temporary"
    temporary.mkdir()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TMPDIR", str(temporary))
        with (
            MockUpstream(text=f"The answer is {answer} and more .") as upstream,
            serve(folder, upstream_models(upstream.base_url)) as served,
        ):
            yield World(served, folder, answer, markers)


def test_what_was_captured_is_on_the_page_of_who_may_see_it_alone(world: World) -> None:
    object_id = world.captured()
    waiting = world.asked(object_id)
    refused = world.show(waiting)
    assert refused.status == 403
    assert world.post(f"/openings/{waiting}/end", world.operator, organization=world.customer.id).status == 303
    opening_id = world.opening(object_id)
    shown = world.show(opening_id)
    assert shown.status == 200
    assert world.question.encode() in shown.body
    assert shown.headers["cache-control"] == "no-store"
    others = world.post(f"/openings/{opening_id}/show", world.customer.admin_key)
    assert others.status == 403, "it was not asked for by the owner"
    for read in (0, 1, 700):
        form = {"organization": world.customer.id}
        world.leave(f"/openings/{opening_id}/show", world.operator, form, read=read)
    assert world.post(f"/openings/{opening_id}/end", world.operator, organization=world.customer.id).status == 303
    over = world.show(opening_id)
    assert over.status == 403
    for answer in (refused, others, over):
        assert world.question.encode() not in answer.body
    world.nothing_survives()


def test_a_store_that_fails_while_it_is_read_says_nothing_of_it(world: World) -> None:
    object_id = world.captured()
    opening_id = world.opening(object_id)
    blobs = [path for path in (world.folder / "data" / "blobs").rglob("*") if path.is_file()]
    kept = {path: path.read_bytes() for path in blobs}
    try:
        for path, data in kept.items():
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))  # what comes back is not what was sealed
        torn = world.show(opening_id)
        for path in blobs:
            path.unlink()
        gone = world.show(opening_id)
    finally:
        for path, data in kept.items():
            path.write_bytes(data)
    assert torn.status >= 400 and gone.status >= 400
    for answer in (torn, gone):
        assert world.question.encode() not in answer.body
    assert world.show(opening_id).status == 200
    assert len(world.said("content.accessed")) >= 3, "every try is in the log"
    world.nothing_survives()


def test_an_export_is_nowhere_but_with_its_client_and_ends_when_that_leaves(world: World) -> None:
    world.upload()
    export = {"of.batch": "yes"}
    whole = world.post("/exports", world.customer.admin_key, **export)
    assert whole.status == 200
    assert whole.body.count(world.content.encode()) == 200_000
    assert world.name.encode() in whole.body
    assert world.question.encode() not in whole.body, "what was captured is read under an opening alone"
    for read in (0, 500, 3_000_000):
        world.leave("/exports", world.customer.admin_key, export, read=read)
    comes_true(lambda: len(world.said("content.exported")) == 4)
    assert not all(one["complete"] for one in world.said("content.exported"))
    assert len(world.said("export.started")) == 4
    assert world.post("/exports", world.operator, **export).status == 403
    world.nothing_survives()


def test_the_search_finds_what_is_planted(world: World) -> None:
    planted = world.folder / "planted"
    planted.write_text(f"x{world.question}x")
    found = places.folder(world.search, world.folder, "data").findings
    planted.unlink()
    assert found and os.fspath(world.folder)
