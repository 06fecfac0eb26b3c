"""The ZIP on the page of a change: offered before a purge, streamed as it is made, over when its client leaves."""

import asyncio
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest

from keepless.accounts.roles import Role
from keepless.console.streams import Streamed
from keepless.policy.data_class import DataClass
from keepless.receipts.stated import verify_entry
from tests.support.console import Console, text_of

OFFER = "Take it along first"


def test_it_is_offered_before_what_exists_ends(here: Console) -> None:
    assert OFFER not in here.page("/controls/review?batch=disabled")
    here.platform.put(data=b"captured")
    assert OFFER not in here.page("/controls/review?inference_logging=off")
    here.platform.put(data=b"input", data_class=DataClass.BATCH_INPUT)
    for query in ("batch=disabled", "zero_data_retention=on"):
        page = here.page(f"/controls/review?{query}")
        assert OFFER in page
        assert 'name="of.batch"' in page and 'name="of.inference_logging"' not in page
    assert OFFER not in here.page("/controls/review?fine_tuning=disabled")
    here.platform.rig.pass_days(3)
    assert OFFER in here.page("/controls/review?days.batch_input=2")
    assert "Take it along" in here.page("/kept")
    here.sign_in(Role.DEVELOPER)
    assert "Take it along" not in here.page("/kept")


def test_the_archive_its_receipt_and_its_lines_in_the_log(here: Console) -> None:
    here.platform.put(data=b"captured")
    object_id = here.platform.put(data=b"input", data_class=DataClass.BATCH_INPUT).id
    answer = here.post("/exports", {"of.batch": "yes"})
    assert answer.status == 200
    assert answer.headers["content-disposition"].startswith('attachment; filename="keepless-export_')
    assert answer.headers["cache-control"] == "no-store" and "content-length" not in answer.headers
    archive = zipfile.ZipFile(io.BytesIO(answer.body))
    assert archive.testzip() is None
    assert archive.read(f"batch_input/{object_id}/content") == b"input"
    assert b"captured" not in answer.body
    page = here.page("/receipts")
    assert "export" in text_of(page)
    receipt_id = page.split('href="/receipts/')[1].split('"')[0]
    page = text_of(here.page(f"/receipts/{receipt_id}"))
    assert "Receipt of an export" in page and "Objects handed over 1" in page and "asked for yes" in page
    file = here.get(f"/receipts/{receipt_id}/file")
    stated = verify_entry(file.body, here.platform.services.log.key)
    assert stated is not None and stated.statement["kind"] == "exported"
    lines = here.get("/audit/export").body.splitlines()
    told = [json.loads(line)["event"]["type"] for line in lines[:2]]
    assert told == ["content.exported", "export.started"]
    assert here.post("/exports").status == 400
    here.sign_in(Role.DEVELOPER)
    assert here.post("/exports", {"of.batch": "yes"}).status == 403


class Parts:
    """Parts without an end; how many were asked for."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.made = 0
        self.fails_at = fails_at
        self.closed = threading.Event()

    def __call__(self) -> Iterator[bytes]:
        try:
            while True:
                self.made += 1
                if self.made == self.fails_at:
                    raise ValueError("cannot be made")
                yield b"part"
        finally:
            self.closed.set()


def streamed(parts: Parts, leave_after: int, ended: list[bool]) -> list[Any]:
    """Send an endless answer to a client that leaves after so many parts."""
    sent: list[Any] = []

    async def run() -> None:
        gone = asyncio.Event()

        async def receive() -> dict[str, str]:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)
            if len(sent) > leave_after:
                gone.set()
                await asyncio.sleep(0)

        await Streamed(parts(), ended.append, "application/zip", {})({"method": "GET"}, receive, send)

    asyncio.run(run())
    return sent


def test_a_client_that_leaves_ends_what_is_made_for_it() -> None:
    parts, ended = Parts(), list[bool]()
    streamed(parts, 3, ended)
    assert ended == [False]
    assert parts.made < 10
    assert parts.closed.is_set()


def test_a_part_that_cannot_be_made_cuts_the_answer() -> None:
    parts, ended = Parts(fails_at=3), list[bool]()
    with pytest.raises(ValueError, match="cannot be made"):
        streamed(parts, 100, ended)
    assert ended == [False]
