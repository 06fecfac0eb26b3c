"""Audio that lines of batches name by the id of a file: read from the vault for its own project, or refused."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from keepless.accounts import tables as accounts
from keepless.accounts.principal import Limits, OrganizationState, Principal, ProjectState
from keepless.config import Endpoint
from keepless.content import Content, Purpose
from keepless.db import Database
from keepless.errors import Code
from keepless.files.service import Files
from keepless.gateway.audio_files import StoredAudio
from keepless.gateway.line import Collector
from keepless.ids import Id, Prefix, mint
from keepless.inference.router import Route
from keepless.outbound.fetch import BusyError
from keepless.policy.controls import Controls, effective
from tests.support.accounts import make_organization
from tests.support.files import Shelf, make_shelf
from tests.support.vault import make_rig
from tests.support.way import FakeBackend, Harness, answer
from tests.unit.gateway.test_audio import FAR, HEARD, SOUND, WHISPER

MOST = 1000


@pytest.fixture
def shelf(database: Database, tmp_path: Path) -> Shelf:
    return make_shelf(database, make_rig(database, tmp_path))


@pytest.fixture
def owner(database: Database) -> tuple[Id, Id]:
    return make_organization(database)


def principal_of(owner: tuple[Id, Id]) -> Principal:
    organization = OrganizationState(owner[0], 1, Controls(), Limits(), None)
    return Principal(
        mint(Prefix.API_KEY), organization, ProjectState(owner[1], Controls(), effective(Controls()), Limits())
    )


def lines(shelf: Shelf, use: Callable[[Harness, Callable[..., Awaitable[tuple[int, Any]]]], Awaitable[None]]) -> None:
    """`use` is given what runs one line for an owner."""

    async def main() -> None:
        backend = FakeBackend(answer(HEARD))
        with ThreadPoolExecutor(1) as executor:
            stored = StoredAudio(shelf.files, executor, most_bytes=MOST)
            harness = Harness(routes=[Route(WHISPER, backend), Route(FAR, backend)], stored=stored)
            harness.backend = backend

            async def line(
                owner: tuple[Id, Id], to: Endpoint = Endpoint.TRANSCRIPTIONS, **body: Any
            ) -> tuple[int, Any]:
                harness.lease.known = known = principal_of(owner)
                harness.lease.organization = lambda _: known.organization
                harness.lease.project = lambda _: known.project
                told: asyncio.Future[tuple[int, Content]] = asyncio.get_running_loop().create_future()
                collector = Collector(lambda status, content: told.set_result((status, content)))
                encoded = msgspec.json.encode({"model": "whisper", **body})
                harness.handlers[to].line(known, encoded, collector)
                status, content = await asyncio.wait_for(told, 90)
                return status, msgspec.json.decode(content.reveal(Purpose.PROVE))

            try:
                await use(harness, line)
            finally:
                harness.close()

    asyncio.run(main())


@pytest.mark.parametrize("to", [Endpoint.TRANSCRIPTIONS, Endpoint.TRANSLATIONS])
@pytest.mark.parametrize("model", ["whisper", "far"])
def test_an_engine_hears_the_file(shelf: Shelf, owner: tuple[Id, Id], to: Endpoint, model: str) -> None:
    one = shelf.keep(owner, SOUND, "zebra.wav")

    async def use(harness: Harness, line: Any) -> None:
        status, said = await line(owner, to, model=model, file_id=str(one.id))
        assert (status, said.get("text")) == (200, "so"), said
        (sent,) = harness.backend.bodies
        assert SOUND in sent if model == "far" else sent[1] == SOUND
        assert b"zebra" not in b"".join(sent if isinstance(sent, list) else [sent])
        assert harness.rows[0].audio_ms == 2500

    lines(shelf, use)


def test_what_is_not_there_for_this_project_is_not_there(
    shelf: Shelf, owner: tuple[Id, Id], database: Database
) -> None:
    theirs = shelf.keep(make_organization(database), SOUND)
    gone = shelf.keep(owner, SOUND)
    shelf.files.delete(gone.id, *owner)

    async def use(harness: Harness, line: Any) -> None:
        for file_id in (theirs.id, gone.id, mint(Prefix.FILE), "zebra", "batch_" + "a" * 24):
            status, said = await line(owner, file_id=str(file_id))
            assert (status, said["error"]["code"], said["error"]["param"]) == (404, Code.NOT_FOUND, "file_id")
            assert "zebra" not in str(said)
        assert not harness.backend.calls

    lines(shelf, use)


def test_a_feature_that_was_turned_off_gives_no_file(shelf: Shelf, owner: tuple[Id, Id], database: Database) -> None:
    one = shelf.keep(owner, SOUND)
    with database.write() as tx:
        tx.execute(sa.update(accounts.organization).values(epoch=accounts.organization.c.epoch + 1, batch_off=True))

    async def use(harness: Harness, line: Any) -> None:
        status, said = await line(owner, file_id=str(one.id))
        assert (status, said["error"]["code"]) == (403, Code.FEATURE_DISABLED)
        assert not harness.backend.calls

    lines(shelf, use)


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({"file_id": 1}, 400, Code.INVALID_TYPE, "file_id"),
        ({"url": "data:audio/wav;base64,QQ=="}, 400, Code.INVALID_VALUE, "url"),
    ],
)
def test_what_is_wrong_is_told(
    shelf: Shelf, owner: tuple[Id, Id], body: dict[str, Any], status: int, code: Code, param: str
) -> None:
    one = shelf.keep(owner, SOUND)

    async def use(_: Harness, line: Any) -> None:
        found, said = await line(owner, **{"file_id": str(one.id), **body})
        assert (found, said["error"]["code"], said["error"]["param"]) == (status, code, param)

    lines(shelf, use)


@pytest.mark.parametrize(("size", "status"), [(MOST, 200), (MOST + 1, 413)])
def test_a_file_has_the_size_that_any_audio_may_have(
    shelf: Shelf, owner: tuple[Id, Id], size: int, status: int
) -> None:
    one = shelf.keep(owner, bytes(size))

    async def use(_: Harness, line: Any) -> None:
        assert (await line(owner, file_id=str(one.id)))[0] == status

    lines(shelf, use)


def test_a_store_that_fails_is_a_reason_to_try_again(
    shelf: Shelf, owner: tuple[Id, Id], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError("zebra")

    monkeypatch.setattr(Files, "open", fails)

    async def use(_: Harness, line: Any) -> None:
        status, said = await line(owner, file_id=str(mint(Prefix.FILE)))
        assert (status, said["error"]["code"]) == (503, Code.STORE_FAILED)
        assert "zebra" not in str(said)

    lines(shelf, use)


def test_only_lines_of_batches_name_files(shelf: Shelf, owner: tuple[Id, Id]) -> None:
    one = shelf.keep(owner, SOUND)

    async def use(harness: Harness, _: Any) -> None:
        reply = harness.send({"model": "whisper", "file_id": str(one.id)}, to=Endpoint.TRANSCRIPTIONS)
        assert (reply.status, reply.error["param"]) == (400, "file_id")
        assert not harness.backend.calls

    lines(shelf, use)


def test_no_more_than_fit_are_read_and_who_leaves_is_told_nothing(owner: tuple[Id, Id]) -> None:
    go_on = Event()

    class Slow:
        def open(self, *_: object) -> None:
            go_on.wait(90)
            raise OSError

    async def main() -> None:
        told: list[object] = []
        with ThreadPoolExecutor(16) as executor:
            stored = StoredAudio(Slow(), executor, most_bytes=1)
            cancels = [stored.start(mint(Prefix.FILE), principal_of(owner), told.append) for _ in range(8)]
            with pytest.raises(BusyError):
                stored.start(mint(Prefix.FILE), principal_of(owner), told.append)
            for cancel in cancels:
                cancel()
            await asyncio.sleep(0)
            stored.start(mint(Prefix.FILE), principal_of(owner), told.append)()
            go_on.set()
        await asyncio.sleep(0)
        assert told == []

    asyncio.run(main())
