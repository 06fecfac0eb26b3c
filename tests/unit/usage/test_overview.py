"""Usage as people look at it: what only sums remain of counts by day and by model."""

import random

import pytest
import sqlalchemy as sa

from keepless.clock import DAY_MS
from keepless.db import Database
from keepless.ids import Id, Prefix, mint
from keepless.usage import daily
from keepless.usage.daily import add_rows
from keepless.usage.ledger import Ledger
from keepless.usage.overview import By, Overview, overview
from keepless.usage.record import Record
from keepless.usage.tables import usage, usage_day, usage_gap, usage_latency
from keepless.usage.totals import delete_before
from tests.support.clock import FakeClock

KEYS = [mint(Prefix.API_KEY) for _ in range(3)]


def test_gaps_count_by_day_and_model(database: Database) -> None:
    own = mint(Prefix.ORGANIZATION)
    row = {"organization_id": own, "status": 500, "requests": 4, "prompt_tokens": 1, "completion_tokens": 0}
    with database.write() as tx:
        tx.execute(sa.insert(usage_gap).values(at=86_400_000, model="m", cached_tokens=0, **row))
    by_model = overview(database, own, 0, 2**50, By.MODEL)
    assert (by_model.groups["m"].requests, by_model.groups["m"].errors) == (4, 4)
    assert by_model.days[1].requests == 4
    by_key = overview(database, own, 0, 2**50, By.KEY)
    assert by_key.groups[""].requests == 4
    assert overview(database, mint(Prefix.ORGANIZATION), 0, 2**50, By.ENDPOINT).total.requests == 0


def used(own: Id, chance: random.Random, at_ms: int) -> Record:
    whose = {"organization_id": own, "project_id": Id("proj_a"), "key_id": chance.choice(KEYS)}
    numbers = {"prompt_tokens": chance.randrange(9), "audio_ms": chance.randrange(3)}
    numbers["latency_us"] = int(10 ** chance.uniform(0, 7))
    status = chance.choice((200, 200, 500))
    return Record(request_id=mint(Prefix.REQUEST), at_ms=at_ms, status=status, model=Id("m"), **whose, **numbers)


def write(database: Database, records: list[Record]) -> None:
    ledger = Ledger(database)
    for record in records:
        ledger.add(record)
    assert ledger.flush()


def added_up(database: Database) -> None:
    """As housekeeping does it, without waiting for what may still be on its way."""
    with database.read() as tx:
        last = tx.execute(sa.select(sa.func.max(usage.c.id))).scalar() or 0
    while add_rows(database, last):
        pass


def test_sums_of_days_tell_what_single_rows_do(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daily, "_ROWS", 40)
    monkeypatch.setattr(daily, "_STEP", 15)
    chance, own, other = random.Random(5), mint(Prefix.ORGANIZATION), mint(Prefix.ORGANIZATION)
    spans = [(2 * DAY_MS, 9 * DAY_MS), (2 * DAY_MS + 5, 9 * DAY_MS - 7), (DAY_MS // 2, 3 * DAY_MS), (5, 6)]

    def told() -> list[Overview]:
        return [overview(database, own, *span, by) for span in spans for by in By]

    for _ in range(3):
        write(database, [used(own, chance, chance.randrange(10 * DAY_MS)) for _ in range(100)])
        write(database, [used(other, chance, 3 * DAY_MS)])
        before = told()
        assert before[0].total.requests > 0
        added_up(database)
        assert told() == before
    added_up(database)
    assert told() == before
    delete_before(database, 4 * DAY_MS)
    with database.read() as tx:
        assert tx.execute(sa.select(sa.func.min(usage_day.c.day))).scalar_one() == 4
        assert tx.execute(sa.select(sa.func.min(usage_latency.c.day))).scalar_one() == 4
    kept = overview(database, own, 4 * DAY_MS, 9 * DAY_MS, By.MODEL).total.requests
    assert 0 < kept < before[0].total.requests


def test_a_row_whose_number_came_again_is_added_too(database: Database) -> None:
    chance, own = random.Random(6), mint(Prefix.ORGANIZATION)
    write(database, [used(own, chance, 1) for _ in range(5)])
    added_up(database)
    delete_before(database, DAY_MS)
    write(database, [used(own, chance, 7 * DAY_MS) for _ in range(3)])
    assert overview(database, own, 7 * DAY_MS, 8 * DAY_MS, By.MODEL).total.requests == 3
    added_up(database)
    assert overview(database, own, 0, 8 * DAY_MS, By.MODEL).total.requests == 3


def test_housekeeping_adds_up_only_what_has_settled(database: Database) -> None:
    chance, own, clock = random.Random(8), mint(Prefix.ORGANIZATION), FakeClock()
    write(database, [used(own, chance, 1) for _ in range(5)])
    sums = daily.Daily(database, clock)
    sums.roll()
    with database.read() as tx:
        assert daily.rolled_to(tx) == (5 if database.sqlite else 0)
    clock.advance_ms(601_000)
    write(database, [used(own, chance, 1)])
    sums.roll()
    with database.read() as tx:
        assert daily.rolled_to(tx) == (6 if database.sqlite else 5)
    assert overview(database, own, 0, DAY_MS, By.KEY).total.requests == 6
