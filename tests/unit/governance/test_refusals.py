"""Refusals in the audit log: the first at once, the rest counted, never more than the bound, never in the way."""

import threading
from pathlib import Path

import msgspec
import sqlalchemy as sa

from keepless.accounts.roles import Permission
from keepless.db import Database
from keepless.errors import Code
from keepless.governance.refusals import MOST_AN_HOUR, Refusals
from keepless.ids import Prefix, mint
from keepless.receipts.events import event_of
from keepless.receipts.log import Logged
from keepless.receipts.statement import EntryKind
from tests.support.clock import FakeClock
from tests.support.log import make_log

ORGANIZATION = mint(Prefix.ORGANIZATION)
ACTOR = mint(Prefix.ADMIN_KEY)
HOUR = 3_600_000


def make(database: Database) -> tuple[Refusals, FakeClock]:
    clock = FakeClock()
    return Refusals(database, clock, make_log(database)), clock


def entries(database: Database) -> list[Logged]:
    log = make_log(database)
    with database.read() as tx:
        return log.entries(tx, organization_id=ORGANIZATION, kinds=[EntryKind.ACCESS_REFUSED], limit=1000)


def times(database: Database) -> list[int]:
    return [msgspec.json.decode(one.body or b"")["times"] for one in entries(database)]


def test_the_first_is_told_and_its_like_are_counted(database: Database) -> None:
    refusals, clock = make(database)
    for _ in range(5):
        refusals.note(ACTOR, ORGANIZATION, Permission.CONTROLS_CHANGE, Code.INSUFFICIENT_PERMISSIONS)
        clock.advance_ms(1_000)
    refusals.note(ACTOR, ORGANIZATION, Permission.KEYS_MANAGE, Code.INSUFFICIENT_PERMISSIONS)
    assert times(database) == [1, 1]
    clock.advance_ms(HOUR)
    refusals.note(ACTOR, ORGANIZATION, Permission.CONTROLS_CHANGE, Code.INSUFFICIENT_PERMISSIONS)
    assert times(database) == [5, 1, 1]


def test_no_flood_over_keys_threads_and_processes(database: Database) -> None:
    several = [make(database)[0] for _ in range(3)]  # each as a process of its own

    def knock(refusals: Refusals) -> None:
        for _ in range(MOST_AN_HOUR):
            key = mint(Prefix.API_KEY)
            refusals.note(key, ORGANIZATION, Permission.CONTROLS_READ, Code.INSUFFICIENT_PERMISSIONS)

    threads = [threading.Thread(target=knock, args=(one,)) for one in several]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert MOST_AN_HOUR <= len(entries(database)) <= MOST_AN_HOUR + len(several)  # who counted before others wrote
    refusals, clock = make(database)
    refusals.note(ACTOR, None, Permission.METRICS_READ, Code.INSUFFICIENT_PERMISSIONS)
    with database.read() as tx:
        assert make_log(database).size(tx) == len(entries(database)) + 1  # another's bound is its own
    clock.advance_ms(2 * HOUR)
    before = len(entries(database))
    refusals.note(ACTOR, ORGANIZATION, Permission.CONTROLS_READ, Code.INSUFFICIENT_PERMISSIONS)
    assert len(entries(database)) == before + 1


def test_what_cannot_be_written_is_no_other_answer(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path}/empty.sqlite")  # without tables
    refusals = Refusals(db, FakeClock(), make_log(db))
    refusals.note(ACTOR, ORGANIZATION, Permission.CONTROLS_READ, Code.INSUFFICIENT_PERMISSIONS)
    with db.read() as tx:
        assert sa.inspect(tx).get_table_names() == []
    db.close()


def test_an_entry_says_who_what_and_how_often(database: Database) -> None:
    refusals, _ = make(database)
    refusals.note(ACTOR, ORGANIZATION, Permission.HOLDS_PLACE, Code.HELD)
    (entry,) = entries(database)
    event = event_of(entry.index, msgspec.json.decode(entry.body or b""))
    assert event is not None
    assert event["type"] == "access.refused"
    assert event["actor"]["api_key"]["id"] == ACTOR
    assert event["access.refused"]["data"] == {"permission": "policy:holds:place", "code": "object_held", "times": 1}
