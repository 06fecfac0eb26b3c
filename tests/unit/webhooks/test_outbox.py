"""The outbox: written with the change, claimed once, tried again, given up."""

import itertools

import pytest
import sqlalchemy as sa

from keepless.db import Database
from keepless.ids import Id, Prefix, mint
from keepless.webhooks.endpoints import Endpoints, Wanted
from keepless.webhooks.events import EventType
from keepless.webhooks.outbox import CLAIM_MS, GIVE_UP_MS, Outbox, announce, delay_ms
from keepless.webhooks.send import Sender
from keepless.webhooks.signature import Secrets
from keepless.webhooks.tables import webhook_delivery, webhook_endpoint
from tests.support.accounts import make_organization
from tests.support.clock import FakeClock
from tests.support.log import make_log

ACTOR = Id("akey_owner")
BATCH = mint(Prefix.BATCH)


class World:
    def __init__(self, database: Database) -> None:
        self.db = database
        self.clock = FakeClock()
        self.endpoints = Endpoints(
            database, self.clock, make_log(database, self.clock), Secrets(lambda: bytes(32)), Sender()
        )
        self.outbox = Outbox(database, self.clock)
        self.organization, self.project = make_organization(database)

    def endpoint(self, events: list[EventType] | None = None, project: Id | None = None, of: Id | None = None) -> Id:
        wanted = Wanted("x", "https://example.com/", events or [EventType.BATCH_COMPLETED])
        return self.endpoints.create(ACTOR, of or self.organization, wanted, project)[0].id

    def announce(
        self,
        kind: EventType = EventType.BATCH_COMPLETED,
        project: Id | None = None,
        fails: bool = False,
        later_ms: int = 0,
    ) -> int:
        with self.db.write() as tx:
            told = announce(
                tx,
                kind,
                BATCH,
                organization_id=self.organization,
                project_id=project or self.project,
                now_ms=self.clock.now_ms(),
                later_ms=later_ms,
            )
            if fails:
                raise RuntimeError
        return told

    def rows(self) -> int:
        with self.db.read() as tx:
            return tx.execute(sa.select(sa.func.count()).select_from(webhook_delivery)).scalar_one()


@pytest.fixture
def world(database: Database) -> World:
    return World(database)


def test_only_who_asked_for_the_event_of_that_project_is_told(world: World) -> None:
    everything = world.endpoint()
    own = world.endpoint(project=world.project)
    world.endpoint([EventType.BATCH_FAILED])
    world.endpoint(of=make_organization(world.db)[0])
    assert world.announce() == 2
    assert world.announce(project=mint(Prefix.PROJECT)) == 1
    claims = world.outbox.claim(10)
    assert sorted(claim.endpoint_id for claim in claims) == sorted([everything, everything, own])
    assert len({claim.event_id for claim in claims}) == 2
    assert {(claim.event_type, claim.subject_id, claim.attempts) for claim in claims} == {
        (EventType.BATCH_COMPLETED, BATCH, 1)
    }


def test_what_is_rolled_back_is_not_told(world: World) -> None:
    world.endpoint()
    with pytest.raises(RuntimeError):
        world.announce(fails=True)
    assert world.outbox.claim(10) == []


def test_what_is_to_be_told_later_is_not_claimed_sooner(world: World) -> None:
    world.endpoint()
    world.announce(later_ms=1500)
    world.clock.advance_ms(1499)
    assert world.outbox.claim(10) == []
    world.clock.advance_ms(1)
    (claim,) = world.outbox.claim(10)
    assert claim.created_at == world.clock.now_ms() - 1500


def test_a_claim_is_one_workers_until_its_minute_is_over(world: World) -> None:
    world.endpoint()
    world.announce()
    (first,) = world.outbox.claim(10)
    assert Outbox(world.db, world.clock).claim(10) == []
    world.clock.advance_ms(CLAIM_MS)  # the worker died
    (again,) = world.outbox.claim(10)
    assert (again.event_id, again.attempts) == (first.event_id, 2)
    world.outbox.delivered(again)
    assert world.rows() == 0


def test_a_failed_delivery_comes_again_later_and_later_and_is_given_up_after_three_days(world: World) -> None:
    world.endpoint()
    world.announce()
    begun, pauses, ids = world.clock.now_ms(), [], set()
    while world.rows():
        assert not pauses or world.outbox.claim(10) == []
        with world.db.read() as tx:
            due_at = tx.scalar(sa.select(webhook_delivery.c.due_at))
        world.clock.advance_ms(due_at - world.clock.now_ms())
        (claim,) = world.outbox.claim(10)
        ids.add(claim.event_id)
        pauses.append(world.clock.now_ms() - begun)
        world.outbox.failed(claim, 0.0)
    assert len(ids) == 1
    gaps = [b - a for a, b in itertools.pairwise(pauses)]
    assert gaps == sorted(gaps)
    assert (gaps[0], gaps[1], gaps[-1]) == (5_000, 10_000, 6 * 3_600_000)
    assert GIVE_UP_MS - 6 * 3_600_000 <= pauses[-1] <= GIVE_UP_MS


def test_the_pause_has_a_ceiling_and_a_spread() -> None:
    assert delay_ms(1, 0.0) == 5_000
    assert delay_ms(1, 1.0) == 2_500
    assert delay_ms(1_000, 0.0) == 6 * 3_600_000
    assert {delay_ms(5, chance / 10) for chance in range(10)} == {80_000 - 4_000 * n for n in range(10)}


def test_one_organization_does_not_hold_up_another(world: World) -> None:
    world.endpoint()
    for _ in range(30):
        world.announce()
    world.clock.advance_ms(1)
    stranger, project = make_organization(world.db)
    world.endpoint(of=stranger)
    with world.db.write() as tx:
        announce(
            tx,
            EventType.BATCH_COMPLETED,
            BATCH,
            organization_id=stranger,
            project_id=project,
            now_ms=world.clock.now_ms(),
        )
    claims = world.outbox.claim(16)
    assert [claim.organization_id for claim in claims] == [world.organization] * 4 + [stranger]


def test_with_an_endpoint_go_its_deliveries(world: World) -> None:
    endpoint = world.endpoint()
    world.announce()
    world.endpoints.delete(ACTOR, world.organization, endpoint)
    assert (world.rows(), world.outbox.claim(10)) == (0, [])


def test_what_was_announced_to_an_endpoint_that_went_meanwhile_is_dropped(world: World) -> None:
    world.endpoint()
    world.announce()
    with world.db.write() as tx:
        tx.execute(webhook_endpoint.delete())
    assert world.outbox.claim(10) == []
    assert world.rows() == 0
