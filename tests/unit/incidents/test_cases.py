"""Cases on both databases: suspected is metadata only; capture needs a confirmed case that names the key."""

import time

import pytest
import sqlalchemy as sa

from keepless.db import Database
from keepless.governance.cases import CaseDecisions
from keepless.ids import Id, Prefix, mint
from keepless.incidents import cases
from keepless.incidents.abuse import Suspicion
from keepless.incidents.capture import Incident
from keepless.incidents.cases import LONGEST_MS, CaseBook
from keepless.incidents.states import CaseState, Signal
from keepless.incidents.tables import abuse_case
from keepless.policy.data_class import DataClass
from keepless.policy.decision import Discard, DiscardReason, Reason
from keepless.receipts.statement import EntryKind
from keepless.vault.rows import Kept
from tests.support.log import FixedClock, make_log
from tests.unit.incidents.test_reliability import OPEN, ORG, ZDR, StubVault, full_disk, incident

KEY, OTHER_KEY = mint(Prefix.API_KEY), mint(Prefix.API_KEY)
OPERATOR = mint(Prefix.OPERATOR_KEY)
SUSPICION = Suspicion(ORG, Signal.MANY_KEYS, frozenset({KEY}), 12)
NO_TRIGGER = Discard(DiscardReason.NO_TRIGGER)
DAY = 86_400_000


class World:
    """A case book with what it stands on."""

    def __init__(self, database: Database, *, auto: bool = False) -> None:
        self.clock = FixedClock()
        self.vault = StubVault()
        self.log = make_log(database, self.clock)
        self.database = database
        self.book = CaseBook(
            database, self.clock, self.log, self.vault, lambda _o, _p: OPEN, max_bytes=1000, auto_capture=auto
        )
        self.decisions = CaseDecisions(database, self.clock, self.log)

    def suspect(self, suspicion: Suspicion = SUSPICION) -> Id:
        case_id = self.book.suspect(suspicion)
        assert case_id is not None
        return case_id

    def confirm(self) -> Id:
        case_id = self.suspect()
        self.decisions.confirm(ORG, case_id, OPERATOR)
        self.book.refresh()
        return case_id

    def consider(self, key: Id = KEY, what: Incident | None = None) -> Kept | Discard:
        base = what or incident(at_ms=self.clock.ms)
        values = {name: getattr(base, name) for name in base.__dataclass_fields__}
        return self.book.consider(Incident(**{**values, "key_id": key}))

    def kinds(self) -> list[EntryKind]:
        with self.database.read() as tx:
            return [entry.kind for entry in self.log.entries(tx, organization_id=ORG)][::-1]


def test_a_suspected_case_captures_nothing(database: Database) -> None:
    world = World(database)
    world.suspect()
    world.book.refresh()
    assert not world.book.watches(KEY)
    assert world.consider() == NO_TRIGGER
    assert world.vault.kept == []
    assert world.kinds() == [EntryKind.CASE_OPENED]


def test_one_open_case_an_organization_takes_further_keys(database: Database) -> None:
    world = World(database)
    first = world.suspect()
    again = world.suspect(Suspicion(ORG, Signal.KEY_ROTATION, frozenset({KEY, OTHER_KEY}), 20))
    elsewhere = world.suspect(Suspicion(mint(Prefix.ORGANIZATION), Signal.MANY_KEYS, frozenset({KEY}), 12))
    assert first == again != elsewhere
    record = world.decisions.get(ORG, first)
    assert (record.state, record.signal, record.refusals) == (CaseState.SUSPECTED, Signal.MANY_KEYS, 20)
    assert set(record.key_ids) == {KEY, OTHER_KEY}
    world.decisions.close(ORG, first, OPERATOR)
    assert world.suspect() != first


BOTH = Suspicion(ORG, Signal.MANY_ORGANIZATIONS, frozenset({KEY, OTHER_KEY}), 20)


def test_what_a_person_confirmed_takes_no_further_key(database: Database) -> None:
    world = World(database)
    first = world.confirm()
    assert world.suspect() == first, "of what it names already it only counts"
    beside = world.suspect(BOTH)
    assert beside != first and world.suspect(BOTH) == beside
    world.book.refresh()
    assert (world.book.watches(KEY), world.book.watches(OTHER_KEY)) == (True, False)
    assert world.consider(OTHER_KEY) == NO_TRIGGER, "no person has seen this key"
    assert world.decisions.get(ORG, beside).state is CaseState.SUSPECTED
    assert world.kinds().count(EntryKind.CASE_OPENED) == 2
    assert world.suspect() == first


def test_a_case_whose_time_is_over_takes_no_suspicion(database: Database) -> None:
    world = World(database)
    first = world.confirm()
    world.clock.ms += LONGEST_MS + 1
    assert world.suspect() != first


def test_a_confirmed_case_captures_its_keys_only(database: Database) -> None:
    world = World(database)
    case_id = world.confirm()
    assert world.book.watches(KEY)
    assert not world.book.watches(OTHER_KEY)
    kept = world.consider()
    assert isinstance(kept, Kept)
    assert (kept.data_class, kept.reason) == (DataClass.ABUSE_LOG, Reason.ABUSE_CASE)
    assert world.consider(OTHER_KEY) == NO_TRIGGER
    assert len(world.vault.kept) == 1
    assert world.decisions.get(ORG, case_id).captured == 1


def test_policy_wins_over_a_case(database: Database) -> None:
    world = World(database)
    case_id = world.confirm()
    refused = world.consider(what=incident(ZDR, at_ms=world.clock.ms))
    assert isinstance(refused, Discard)
    assert refused.reason is DiscardReason.ZERO_DATA_RETENTION
    assert world.vault.kept == []
    assert world.decisions.get(ORG, case_id).captured == 0


def test_capture_ends_with_its_time(database: Database) -> None:
    world = World(database)
    world.confirm()
    world.clock.ms += LONGEST_MS - 1
    assert world.book.watches(KEY)
    assert isinstance(world.consider(), Kept)
    world.clock.ms += 1
    assert not world.book.watches(KEY)
    assert world.consider() == NO_TRIGGER


def test_a_closed_case_captures_nothing_whatever_a_process_still_believes(database: Database) -> None:
    world = World(database)
    case_id = world.confirm()
    world.decisions.close(ORG, case_id, OPERATOR)
    assert world.book.watches(KEY)
    assert world.consider() == NO_TRIGGER
    world.book.refresh()
    assert not world.book.watches(KEY)


def test_a_hundred_a_day(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "CAPTURES_A_DAY", 3)
    world = World(database)
    case_id = world.confirm()
    world.clock.ms += DAY - world.clock.ms % DAY
    assert [type(world.consider()) for _ in range(5)] == [Kept, Kept, Kept, Discard, Discard]
    assert world.consider() == Discard(DiscardReason.CAPPED)
    world.clock.ms += DAY
    assert isinstance(world.consider(), Kept)
    assert world.decisions.get(ORG, case_id).captured == 4
    assert len(world.vault.kept) == 4


def test_what_the_store_refused_is_not_counted(database: Database) -> None:
    world = World(database)
    case_id = world.confirm()
    world.vault.faults.append(full_disk)
    assert world.consider() == Discard(DiscardReason.STORE_FAILED)
    assert world.decisions.get(ORG, case_id).captured == 0


def test_auto_capture_confirms_at_once_and_says_so(database: Database) -> None:
    world = World(database, auto=True)
    case_id = world.suspect()
    world.book.refresh()
    assert world.book.watches(KEY)
    assert isinstance(world.consider(), Kept)
    record = world.decisions.get(ORG, case_id)
    assert (record.state, record.confirmed_by) == (CaseState.CONFIRMED, None)
    assert record.ends_at == world.clock.ms + LONGEST_MS
    assert world.kinds() == [EntryKind.CASE_OPENED, EntryKind.CASE_CONFIRMED]


def test_the_book_reads_by_itself(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "REFRESH_S", 0.01)
    world = World(database)
    case_id = world.suspect()
    world.book.start()
    world.decisions.confirm(ORG, case_id, OPERATOR)
    deadline = time.monotonic() + 30
    while not world.book.watches(KEY) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert world.book.watches(KEY)
    world.book.close()


def test_a_database_that_fails_opens_and_keeps_nothing(database: Database) -> None:
    world = World(database)
    world.confirm()
    with database.write() as tx:
        tx.exec_driver_sql("ALTER TABLE abuse_case RENAME TO away")
    assert world.consider() == Discard(DiscardReason.STORE_FAILED)
    assert world.book.suspect(SUSPICION) is None
    world.book.start()
    world.book.close()
    assert world.vault.kept == []


def test_no_table_of_cases_could_hold_an_origin() -> None:
    texts = [c.name for c in abuse_case.columns if isinstance(c.type, sa.String)]
    assert texts == ["reference"]
