"""Refusals in the audit log: the first at once, the rest counted, never more than the bound, never in the way."""

import threading
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from keepless.accounts.roles import Permission
from keepless.db import Database
from keepless.errors import Code
from keepless.governance.refusals import MOST_AN_HOUR, Refusals
from keepless.ids import Id, Prefix, mint
from keepless.receipts.events import event_of
from keepless.receipts.log import Logged
from keepless.receipts.statement import EntryKind
from keepless.usage.ledger import Ledger
from keepless.usage.record import Endpoint, Record
from tests.support.clock import FakeClock
from tests.support.log import make_log

ORGANIZATION = mint(Prefix.ORGANIZATION)
PROJECT = mint(Prefix.PROJECT)
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


def refused(key_id: Id, code: Code = Code.FEATURE_DISABLED, endpoint: Endpoint = Endpoint.BATCHES) -> Record:
    whose = {"organization_id": ORGANIZATION, "project_id": PROJECT, "key_id": key_id}
    return Record(request_id=mint(Prefix.REQUEST), at_ms=1, status=403, endpoint=endpoint, code=code, **whose)


def test_requests_that_a_control_refused_are_told_by_the_ledgers_writer(database: Database) -> None:
    refusals, clock = make(database)
    ledger, key, other = Ledger(database, refused=refusals.note_requests), mint(Prefix.API_KEY), mint(Prefix.API_KEY)

    def ask(*records: Record) -> list[dict[str, Any]]:
        for record in records:
            ledger.add(record)
        assert ledger.flush()
        log = make_log(database)
        with database.read() as tx:
            found = log.entries(tx, organization_id=ORGANIZATION, kinds=[EntryKind.REQUEST_REFUSED])
        assert {one.subject_id for one in found} <= {key, other}
        assert {one.project_id for one in found} <= {PROJECT}
        return [msgspec.json.decode(one.body or b"") for one in found[::-1]]

    assert ask(refused(key, Code.RATE_LIMIT), refused(key, Code.INVALID_VALUE)) == []
    (one,) = ask(refused(key), refused(key), refused(key))
    assert (one["actor"], one["endpoint"], one["code"], one["times"]) == (
        key,
        "batches",
        "feature_disabled_by_data_controls",
        3,
    )
    assert len(ask(refused(key), refused(key))) == 1
    told = ask(refused(key, Code.HELD, Endpoint.FILES), refused(other), refused(key, Code.LOOSENING_REFUSED))
    assert [(one["key_id"], one["code"]) for one in told[1:]] == [
        (key, "object_held"),
        (other, "feature_disabled_by_data_controls"),
        (key, "loosening_refused"),
    ]
    clock.advance_ms(HOUR)
    assert ask(refused(key))[-1]["times"] == 3
    assert ledger.counters.written == 11


def test_no_flood_of_requests_and_each_bound_is_its_own(database: Database) -> None:
    refusals, _ = make(database)
    refusals.note_requests([refused(mint(Prefix.API_KEY)) for _ in range(2 * MOST_AN_HOUR)])
    log = make_log(database)
    with database.read() as tx:
        assert log.size(tx) == MOST_AN_HOUR
    refusals.note(ACTOR, ORGANIZATION, Permission.CONTROLS_READ, Code.INSUFFICIENT_PERMISSIONS)
    assert len(entries(database)) == 1
