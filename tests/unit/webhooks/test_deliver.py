"""The loop that empties the outbox, with a real receiver."""

import asyncio
import io
import json
import time
from collections.abc import Iterator

import openai
import pytest
import sqlalchemy as sa

from keepless import log
from keepless.clock import SystemClock
from keepless.db import Database
from keepless.ids import Id, Prefix, mint
from keepless.webhooks.deliver import Deliverer
from keepless.webhooks.endpoints import Endpoints, Wanted
from keepless.webhooks.events import EventType
from keepless.webhooks.outbox import announce
from keepless.webhooks.send import Sender
from keepless.webhooks.signature import Secrets
from keepless.webhooks.tables import webhook_delivery
from tests.support.accounts import make_organization
from tests.support.governed import eventually
from tests.support.log import make_log
from tests.support.receiver import Receiver, receiving

ACTOR = Id("akey_owner")


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiver]:
    with receiving(tmp_path_factory.mktemp("receiver")) as found:
        yield found


class World:
    def __init__(self, database: Database, receiver: Receiver, key: bytes = bytes(32)) -> None:
        receiver.told.clear()
        receiver.statuses.clear()
        self.db, self.receiver = database, receiver
        clock, secrets = SystemClock(), Secrets(lambda: key)
        sender = Sender(allow_private=True, context=receiver.context)
        self.endpoints = Endpoints(database, clock, make_log(database, clock), secrets, sender)
        self.deliverer = Deliverer(database, clock, secrets, sender, chance=lambda: 0.0)
        self.organization, self.project = make_organization(database)

    def endpoint(self, url: str | None = None) -> tuple[Id, str]:
        wanted = Wanted("x", url or self.receiver.url, list(EventType))
        record, secret = self.endpoints.create(ACTOR, self.organization, wanted)
        return record.id, secret

    def announce(self) -> Id:
        batch = mint(Prefix.BATCH)
        with self.db.write() as tx:
            owner = {"organization_id": self.organization, "project_id": self.project}
            announce(tx, EventType.BATCH_EXPIRED, batch, **owner, now_ms=time.time_ns() // 1_000_000)
        return batch

    def waiting(self) -> list[int]:
        """Attempts of what is still to be told."""
        with self.db.read() as tx:
            return list(tx.scalars(sa.select(webhook_delivery.c.attempts)))

    def make_due(self) -> None:
        with self.db.write() as tx:
            tx.execute(webhook_delivery.update().values(due_at=0))

    def deliver(self) -> int:
        return asyncio.run(self.deliverer.deliver_due())


@pytest.fixture
def world(database: Database, receiver: Receiver) -> World:
    return World(database, receiver)


def test_what_is_delivered_is_verified_by_the_sdk_and_forgotten(world: World) -> None:
    _, secret = world.endpoint()
    batch = world.announce()
    assert world.deliver() == 1
    (told,) = world.receiver.told
    event = openai.OpenAI(api_key="x", webhook_secret=secret).webhooks.unwrap(told.body, told.headers)
    assert (event.type, event.data.id) == ("batch.expired", batch)
    assert set(json.loads(told.body)) == {"id", "object", "type", "created_at", "data"}
    assert world.waiting() == []
    assert world.deliver() == 0


@pytest.mark.parametrize("status", [301, 404, 410, 500])
def test_what_is_refused_comes_again_under_the_same_id(world: World, status: int) -> None:
    _, secret = world.endpoint()
    world.announce()
    world.receiver.statuses.append(status)
    world.deliver()
    assert world.waiting() == [1]
    world.make_due()
    world.deliver()
    first, second = world.receiver.told
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    openai.OpenAI(api_key="x", webhook_secret=secret).webhooks.unwrap(second.body, second.headers)
    assert world.waiting() == []


def test_a_receiver_that_is_not_there_holds_up_nobody(world: World) -> None:
    world.endpoint("https://127.0.0.1:1/")
    world.endpoint()
    world.announce()
    assert world.deliver() == 2
    assert (len(world.receiver.told), world.waiting()) == (1, [1])


def test_a_rotated_secret_and_for_a_day_the_old_one_too(world: World) -> None:
    endpoint, old = world.endpoint()
    _, new = world.endpoints.rotate(ACTOR, world.organization, endpoint, keep_old=True)
    world.announce()
    world.deliver()
    _, newest = world.endpoints.rotate(ACTOR, world.organization, endpoint, keep_old=False)
    world.announce()
    world.deliver()
    during, after = world.receiver.told
    accepted = []
    for told in (during, after):
        for secret in (old, new, newest):
            client = openai.OpenAI(api_key="x", webhook_secret=secret)
            try:
                client.webhooks.verify_signature(told.body, told.headers)
                accepted.append(True)
            except openai.InvalidWebhookSignatureError:
                accepted.append(False)
    assert accepted == [True, True, False, False, False, True]


def test_nothing_is_sent_that_nobody_could_verify(world: World) -> None:
    world.endpoint()
    world.announce()
    other = World(world.db, world.receiver, key=b"x" * 32)
    log.redirect(said := io.StringIO())
    assert other.deliver() == 1
    log.redirect(io.StringIO())
    assert (world.receiver.told, world.waiting()) == ([], [1])
    assert "WrongKeyringError" in said.getvalue()
    assert "localhost" not in said.getvalue()


def test_the_loop_delivers_and_ends_when_told(world: World) -> None:
    world.endpoint()
    world.announce()

    async def scene() -> None:
        stop = asyncio.Event()
        running = asyncio.create_task(world.deliverer.run(stop))
        await asyncio.to_thread(eventually, lambda: not world.waiting())
        stop.set()
        await asyncio.wait_for(running, 10)

    asyncio.run(scene())
    assert len(world.receiver.told) == 1
