"""Endpoints: registered, changed, tried, removed; each in the log without what was typed."""

import pytest

from keepless.db import Database
from keepless.errors import Code, Problem
from keepless.ids import Id, Prefix, mint
from keepless.receipts.statement import EntryKind
from keepless.webhooks import endpoints as module
from keepless.webhooks.endpoints import MOST_ENDPOINTS, Endpoints, Wanted
from keepless.webhooks.events import EventType
from keepless.webhooks.send import Sender
from keepless.webhooks.signature import Secrets
from tests.support.accounts import make_organization
from tests.support.clock import FakeClock
from tests.support.log import make_log

ACTOR = Id("akey_owner")
WANTED = Wanted("Mine", "https://example.com/hook", [EventType.BATCH_COMPLETED])


class World:
    def __init__(self, database: Database) -> None:
        self.db, self.clock = database, FakeClock()
        self.log = make_log(database, self.clock)
        self.endpoints = Endpoints(database, self.clock, self.log, Secrets(lambda: bytes(32)), Sender())
        self.own, self.project = make_organization(database)

    def entries(self) -> list[EntryKind]:
        with self.db.read() as tx:
            return [entry.kind for entry in self.log.entries(tx, limit=100)]


@pytest.fixture
def world(database: Database) -> World:
    return World(database)


def refused(act: object, *args: object, **named: object) -> tuple[int, Code]:
    with pytest.raises(Problem) as problem:
        act(*args, **named)
    return problem.value.status, problem.value.code


def test_a_life(world: World) -> None:
    record, secret = world.endpoints.create(ACTOR, world.own, WANTED, world.project)
    assert secret.startswith("whsec_")
    assert secret.endswith(record.hint)
    assert (record.name, record.url, record.project_id) == ("Mine", "https://example.com/hook", world.project)
    assert world.endpoints.get(world.own, record.id) == record
    world.clock.advance_ms(10)
    assert world.endpoints.update(ACTOR, world.own, record.id, Wanted(name="Mine")) == record
    changed = world.endpoints.update(ACTOR, world.own, record.id, Wanted(name="New", events=list(EventType)))
    assert (changed.name, changed.url, changed.events) == ("New", record.url, list(EventType))
    assert changed.updated_at == record.created_at + 10
    rotated, other = world.endpoints.rotate(ACTOR, world.own, record.id, keep_old=False)
    assert other != secret
    assert other.endswith(rotated.hint)
    world.endpoints.delete(ACTOR, world.own, record.id)
    assert refused(world.endpoints.get, world.own, record.id) == (404, Code.NOT_FOUND)
    assert world.entries() == [
        EntryKind.WEBHOOK_DELETED,
        EntryKind.WEBHOOK_CHANGED,
        EntryKind.WEBHOOK_CHANGED,
        EntryKind.WEBHOOK_CREATED,
    ]


def test_strangers_find_nothing(world: World) -> None:
    record, _ = world.endpoints.create(ACTOR, world.own, WANTED)
    stranger, their_project = make_organization(world.db)
    calls = (
        (world.endpoints.get, stranger, record.id),
        (world.endpoints.update, ACTOR, stranger, record.id, Wanted(name="x")),
        (world.endpoints.delete, ACTOR, stranger, record.id),
        (world.endpoints.test, stranger, record.id, EventType.BATCH_FAILED),
        (world.endpoints.create, ACTOR, world.own, WANTED, their_project),
        (world.endpoints.create, ACTOR, mint(Prefix.ORGANIZATION), WANTED),
    )
    for call in calls:
        assert refused(*call) == (404, Code.NOT_FOUND)
    assert refused(world.endpoints.rotate, ACTOR, stranger, record.id, keep_old=True) == (404, Code.NOT_FOUND)
    assert world.endpoints.list(stranger) == []
    assert world.endpoints.list(world.own) == [record]


def test_pages_newest_first(world: World) -> None:
    made = [world.endpoints.create(ACTOR, world.own, WANTED)[0].id for _ in range(3)]
    first = world.endpoints.list(world.own, limit=2)
    rest = world.endpoints.list(world.own, after=first[-1].id, limit=2)
    assert sorted(one.id for one in first + rest) == sorted(made)
    assert len(rest) == 1
    assert refused(world.endpoints.list, world.own, after=mint(Prefix.WEBHOOK)) == (404, Code.NOT_FOUND)
    world.endpoints.delete(ACTOR, world.own, first[-1].id)
    assert world.endpoints.list(world.own, after=first[-1].id, limit=2) == rest  # deleted between two pages


def test_a_bad_url_is_refused_at_both_doors_and_not_echoed(world: World) -> None:
    record, _ = world.endpoints.create(ACTOR, world.own, WANTED)
    bad = Wanted("x", "https://127.0.0.1/secret", [EventType.BATCH_FAILED])
    for call in (
        (world.endpoints.create, ACTOR, world.own, bad),
        (world.endpoints.update, ACTOR, world.own, record.id, bad),
    ):
        with pytest.raises(Problem) as problem:
            call[0](*call[1:])
        assert (problem.value.status, problem.value.param) == (400, "url")
        assert "secret" not in problem.value.message
    assert world.endpoints.get(world.own, record.id) == record


def test_there_is_a_most(world: World) -> None:
    for _ in range(MOST_ENDPOINTS):
        world.endpoints.create(ACTOR, world.own, WANTED)
    assert refused(world.endpoints.create, ACTOR, world.own, WANTED) == (400, Code.INVALID_VALUE)


def test_a_test_that_nobody_answers_says_why_without_the_url(world: World) -> None:
    async def inside(host: str, port: int) -> list[str]:
        return ["10.0.0.1"]

    clock = world.clock
    endpoints = Endpoints(world.db, clock, world.log, Secrets(lambda: bytes(32)), Sender(resolve=inside))
    record, _ = endpoints.create(ACTOR, world.own, WANTED)
    with pytest.raises(Problem) as problem:
        endpoints.test(world.own, record.id, EventType.BATCH_COMPLETED)
    assert (problem.value.status, problem.value.code) == (400, Code.WEBHOOK_UNREACHABLE)
    assert problem.value.message == "The endpoint gave no answer: address_refused."


def test_with_an_organization_go_its_endpoints(world: World) -> None:
    world.endpoints.create(ACTOR, world.own, WANTED)
    other = make_organization(world.db)[0]
    kept, _ = world.endpoints.create(ACTOR, other, WANTED)
    with world.db.write() as tx:
        module.forget(tx, world.own)
    assert world.endpoints.list(world.own) == []
    assert world.endpoints.list(other) == [kept]
