"""Counts by days: they follow what is kept, and tell what the coming days end."""

from pathlib import Path

import sqlalchemy as sa

from keepless.clock import DAY_MS
from keepless.db import Database
from keepless.ids import Id, Prefix, mint
from keepless.policy.data_class import DataClass
from keepless.vault.days import UNTIL_DELETED, ending
from keepless.vault.tables import kept_day
from tests.support.platform import platform


def counts(database: Database) -> list[tuple[int, int, int]]:
    with database.read() as tx:
        query = sa.select(kept_day.c.created_day, kept_day.c.end_day, kept_day.c.objects)
        return sorted(tuple(row) for row in tx.execute(query))


def test_counts_follow_what_is_kept(database: Database, tmp_path: Path) -> None:
    with platform(database, tmp_path) as here:
        today = here.rig.clock.now_ms() // DAY_MS
        first = here.put()
        here.put()
        here.put(data_class=DataClass.FINE_TUNING_DATASET)
        assert counts(database) == [(today, UNTIL_DELETED, 1), (today, today + 30, 2)]
        here.services.sweeper.delete_object(here.organization_id, first.id)
        assert counts(database) == [(today, UNTIL_DELETED, 1), (today, today + 30, 1)]
        here.rig.clock.jump_ms(5 * DAY_MS)
        here.rig.guard.check()
        second = here.put()
        here.rig.clock.jump_ms(26 * DAY_MS)
        here.services.sweeper.sweep_once(confirm=True)
        assert counts(database) == [(today, UNTIL_DELETED, 1), (today + 5, today + 35, 1)]
        assert second.created_at // DAY_MS == today + 5


def test_what_the_coming_days_end(database: Database, tmp_path: Path) -> None:
    with platform(database, tmp_path) as here:
        today = here.rig.clock.now_ms() // DAY_MS
        here.put()
        here.put(data_class=DataClass.FINE_TUNING_DATASET)
        for days, day in ((30, None), (7, 7), (31, None)):
            with database.read() as tx:
                found = ending(tx, here.organization_id, lambda _p, _c, days=days: days, today, 30)
            assert {sum(line) for line in found.values()} == ({1} if day else set()), days
            assert all(line[day or 0] == 1 for line in found.values())
        with database.read() as tx:
            assert ending(tx, mint(Prefix.ORGANIZATION), lambda _p, _c: 1, today, 30) == {}
            assert ending(tx, Id(here.organization_id), lambda _p, _c: None, today, 31).keys() == {
                DataClass.RELIABILITY_LOG
            }
