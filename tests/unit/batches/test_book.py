"""Batches as their owners' calls see them: one transaction, one policy, one answer for what is not theirs."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from keepless.accounts.principal import Limits, OrganizationState, Principal, ProjectState
from keepless.accounts.tables import organization
from keepless.batches import transitions
from keepless.batches.book import Book, InputFile, Order
from keepless.batches.tables import batch
from keepless.batches.values import Batch, BatchEndpoint, BatchState, CancelReason, LineCode, LineError
from keepless.clock import DAY_MS
from keepless.content import Content, Purpose
from keepless.db import Database
from keepless.errors import Code, Problem
from keepless.ids import Id, Prefix, mint
from keepless.policy.controls import Controls, effective
from keepless.vault.tables import intent, kept
from tests.support.accounts import make_organization
from tests.support.vault import Rig, make_rig

REQUEST = mint(Prefix.REQUEST)
TOLD = b'{"customer":"MARKER"}'


class World:
    def __init__(self, database: Database, folder: Path) -> None:
        self.rig: Rig = make_rig(database, folder)
        self.db = database
        self.files: dict[tuple[Id, Id], InputFile] = {}
        self.created: list[Id] = []
        self.during: Callable[[], None] = lambda: None
        self.book = Book(database, self.rig.clock, self.rig.vault, self._input, self.created.append)
        self.owner = self.principal()

    def _input(self, tx: object, file_id: Id, project_id: Id) -> InputFile | None:
        self.during()
        return self.files.get((file_id, project_id))

    def principal(self, **controls: bool) -> Principal:
        organization_id, project_id = make_organization(self.db, **controls)
        none = Controls()
        return Principal(
            mint(Prefix.API_KEY),
            OrganizationState(organization_id, 1, none, Limits(), None),
            ProjectState(project_id, none, effective(none, none), Limits()),
        )

    def file(self, whose: Principal | None = None, for_batches: bool = True, days: float | None = 30) -> Id:
        file_id = mint(Prefix.FILE)
        end_ms = None if days is None else self.rig.clock.now_ms() + int(days * DAY_MS)
        self.files[file_id, (whose or self.owner).project.id] = InputFile(for_batches, end_ms)
        return file_id

    def create(
        self,
        file_id: Id | None,
        metadata: bytes | None = None,
        *,
        whose: Principal | None = None,
        window_ms: int = DAY_MS,
        key: bytes | None = None,
    ) -> Batch:
        told = None if metadata is None else Content(metadata)
        order = Order(BatchEndpoint.CHAT, file_id, window_ms, told, None, key)
        return self.book.create(whose or self.owner, order, REQUEST)[0]

    def refused(self, *args: object, **named: object) -> Problem:
        before = self.everything()
        with pytest.raises(Problem) as problem:
            self.create(*args, **named)
        assert self.everything() == before
        return problem.value

    def everything(self) -> list[int]:
        with self.db.read() as tx:
            return [tx.execute(sa.select(sa.func.count()).select_from(one)).scalar_one() for one in (batch, kept)]


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path)


@pytest.mark.parametrize("metadata", [None, TOLD])
def test_a_new_batch(world: World, metadata: bytes | None) -> None:
    made = world.create(world.file(), metadata)
    assert (made.state, made.endpoint, made.key_id) == (BatchState.VALIDATING, BatchEndpoint.CHAT, world.owner.key_id)
    assert world.created == [made.id]
    assert world.book.get(world.owner.project.id, made.id) == (made, [])
    told = world.book.metadata(made)
    assert (None if told is None else told.reveal(Purpose.CUSTOMER)) == metadata
    with world.db.read() as tx:
        objects = tx.execute(sa.select(kept)).all()
        assert tx.execute(sa.select(intent)).all() == []
    assert [one.id for one in objects] == ([] if metadata is None else [made.metadata_object_id])


def test_metadata_are_in_no_column_and_end_with_their_time(world: World) -> None:
    made = world.create(world.file(), TOLD)
    with world.db.read() as tx:
        row = tx.execute(sa.select(batch)).one()
    assert not [value for value in row if "MARKER" in str(value)]
    world.rig.clock.advance_ms(31 * DAY_MS)
    assert world.book.metadata(made) is None


def test_the_input_must_be_there_ours_for_batches_and_stay_for_the_window(world: World) -> None:
    stranger = world.principal()
    for metadata in (None, TOLD):
        for file_id in (None, mint(Prefix.FILE), world.file(stranger)):
            problem = world.refused(file_id, metadata)
            assert (problem.status, problem.code, problem.param) == (404, Code.NOT_FOUND, "input_file_id")
        for file_id in (world.file(for_batches=False), world.file(days=0.9)):
            problem = world.refused(file_id, metadata)
            assert (problem.status, problem.code, problem.param) == (400, Code.INVALID_VALUE, "input_file_id")
        assert world.refused(world.file(days=6), metadata, window_ms=7 * DAY_MS).status == 400
    assert world.created == []
    assert world.create(world.file(days=1)).expires_at == world.rig.clock.now_ms() + DAY_MS
    assert world.create(world.file(days=None), window_ms=7 * DAY_MS)


@pytest.mark.parametrize("controls", [{"batch_off": True}, {"zero_data_retention": True}])
def test_what_is_in_force_decides_whatever_the_caller_believes(world: World, controls: dict[str, bool]) -> None:
    whose = world.principal(**controls)  # its snapshot says that everything is on
    for metadata in (None, TOLD):
        problem = world.refused(world.file(whose), metadata, whose=whose)
        assert (problem.status, problem.code, problem.retry) == (403, Code.FEATURE_DISABLED, False)


@pytest.mark.parametrize("metadata", [None, TOLD])
def test_a_policy_that_changes_meanwhile_decides_again(world: World, metadata: bytes | None) -> None:
    """The change comes after the decision and before the transaction."""
    file_id, decided = world.file(), world.book._permit

    def permit(principal: Principal, request_id: Id) -> object:
        found = decided(principal, request_id)
        world.book._permit = decided
        with world.db.write() as tx:
            tx.execute(
                organization.update()
                .where(organization.c.id == principal.organization.id)
                .values(epoch=organization.c.epoch + 1, batch_off=True)
            )
        return found

    world.book._permit = permit
    assert world.refused(file_id, metadata).code is Code.FEATURE_DISABLED


def test_the_same_call_again_finds_the_first_ones_batch_and_keeps_nothing_more(world: World) -> None:
    file_id = world.file()
    first = world.create(file_id, TOLD, key=b"again")
    before = world.everything()
    for metadata in (TOLD, None):
        assert world.create(file_id, metadata, key=b"again") == first
    assert world.everything() == before
    assert world.created == [first.id]
    problem = world.refused(world.file(), None, key=b"again")
    assert (problem.status, problem.param) == (400, "idempotency-key")
    assert world.create(file_id, None, key=b"other").id != first.id


def test_of_calls_at_once_with_one_key_one_makes_the_batch(world: World) -> None:
    file_id, found, problems = world.file(), [], []

    def create() -> None:
        try:
            found.append(world.create(file_id, TOLD, key=b"again").id)
        except Problem as problem:
            problems.append(problem)

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(found), len(set(found)), problems) == (4, 1, [])
    assert world.everything() == [1, 1]


def test_a_location_that_is_not_what_was_promised_keeps_nothing(world: World) -> None:
    world.rig.clock.advance_ms(3 * 3_600_000)  # the verdict is too old
    file_id = world.file()
    problem = world.refused(file_id, TOLD)
    assert (problem.status, problem.retry) == (503, False)


def test_a_database_that_fails_is_not_quoted(world: World) -> None:
    def fail() -> None:
        raise sa.exc.OperationalError("SELECT 'MARKER'", None, Exception("MARKER"))

    file_id = world.file()
    world.during = fail
    for metadata in (None, TOLD):
        problem = world.refused(file_id, metadata)
        assert (problem.status, "MARKER" in problem.message) == (503, False)


def test_cancelling(world: World) -> None:
    own, made = world.owner.project.id, world.create(world.file())
    cancelled, _ = world.book.cancel(own, made.id)
    assert (cancelled.state, cancelled.cancel_reason) == (BatchState.CANCELLING, CancelReason.CUSTOMER)
    assert world.book.cancel(own, made.id)[0] == cancelled
    failed = world.create(world.file())
    with world.db.write() as tx:
        transitions.fail(tx, failed.id, [LineError(2, LineCode.INVALID_JSON)], 1, 5)
    with pytest.raises(Problem) as problem:
        world.book.cancel(own, failed.id)
    assert problem.value.status == 400
    assert world.book.get(own, failed.id)[1] == [LineError(2, LineCode.INVALID_JSON)]


def test_strangers_find_nothing(world: World) -> None:
    made, stranger = world.create(world.file()), world.principal().project.id
    for act in (world.book.get, world.book.cancel):
        for project_id, batch_id in (
            (stranger, made.id),
            (world.owner.project.id, mint(Prefix.BATCH)),
            (stranger, None),
        ):
            with pytest.raises(Problem) as problem:
                act(project_id, batch_id)
            assert (problem.value.status, problem.value.code) == (404, Code.NOT_FOUND)
    assert world.book.listing(stranger, limit=10) == []
    assert [one.id for one, _ in world.book.listing(world.owner.project.id, limit=10)] == [made.id]
