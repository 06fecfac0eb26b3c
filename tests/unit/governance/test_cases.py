"""Decisions about cases on both databases: states, bounds, log entries, nobody else's."""

import pytest

from keepless.db import Database
from keepless.errors import Problem
from keepless.governance.cases import MOST_HOURS
from keepless.ids import Prefix, mint
from keepless.incidents.cases import LONGEST_MS
from keepless.incidents.states import CaseState, CloseReason
from keepless.receipts.statement import EntryKind
from tests.unit.incidents.test_cases import KEY, OPERATOR, ORG, World

HOUR = 3_600_000


def test_confirm_extend_close_are_log_entries(database: Database) -> None:
    world = World(database)
    case_id = world.suspect()
    confirmed = world.decisions.confirm(ORG, case_id, OPERATOR)
    assert (confirmed.state, confirmed.confirmed_by, confirmed.key_ids) == (CaseState.CONFIRMED, OPERATOR, (KEY,))
    assert confirmed.ends_at == world.clock.ms + LONGEST_MS
    world.clock.ms += HOUR
    extended = world.decisions.extend(ORG, case_id, OPERATOR, hours=MOST_HOURS, reference="ticket 12")
    assert (extended.ends_at, extended.reference) == (world.clock.ms + LONGEST_MS, "ticket 12")
    closed = world.decisions.close(ORG, case_id, OPERATOR, CloseReason.FALSE_ALARM)
    assert (closed.state, closed.closed_for, closed.closed_by) == (CaseState.CLOSED, CloseReason.FALSE_ALARM, OPERATOR)
    assert world.kinds() == [
        EntryKind.CASE_OPENED,
        EntryKind.CASE_CONFIRMED,
        EntryKind.CASE_EXTENDED,
        EntryKind.CASE_CLOSED,
    ]
    with database.read() as tx:
        assert not any(b"ticket" in (entry.body or b"") for entry in world.log.entries(tx))


def test_only_the_next_step_of_a_case_can_be_taken(database: Database) -> None:
    world = World(database)
    case_id = world.suspect()
    with pytest.raises(Problem, match="invalid_value"):
        world.decisions.extend(ORG, case_id, OPERATOR, hours=1, reference="x")
    world.decisions.confirm(ORG, case_id, OPERATOR)
    with pytest.raises(Problem, match="invalid_value"):
        world.decisions.confirm(ORG, case_id, OPERATOR)
    world.decisions.close(ORG, case_id, OPERATOR)
    for step in (world.decisions.confirm, world.decisions.close):
        with pytest.raises(Problem, match="invalid_value"):
            step(ORG, case_id, OPERATOR)
    assert len(world.kinds()) == 3


@pytest.mark.parametrize(
    ("hours", "reference", "param"),
    [(0, "x", "hours"), (73, "x", "hours"), (1, "", "reference"), (1, "x" * 81, "reference"), (1, "a\nb", "reference")],
)
def test_an_extension_has_bounds_and_a_reason(database: Database, hours: int, reference: str, param: str) -> None:
    world = World(database)
    case_id = world.confirm()
    with pytest.raises(Problem) as caught:
        world.decisions.extend(ORG, case_id, OPERATOR, hours=hours, reference=reference)
    assert caught.value.param == param


def test_nobody_elses_case(database: Database) -> None:
    world = World(database)
    case_id, other = world.suspect(), mint(Prefix.ORGANIZATION)
    for ask in (
        lambda: world.decisions.get(other, case_id),
        lambda: world.decisions.confirm(other, case_id, OPERATOR),
        lambda: world.decisions.close(ORG, mint(Prefix.CASE), OPERATOR),
    ):
        with pytest.raises(Problem) as caught:
            ask()
        assert caught.value.status == 404
    assert world.decisions.list(other) == []


def test_lists_by_key(database: Database) -> None:
    world = World(database)
    first = world.suspect()
    world.decisions.close(ORG, first, OPERATOR)
    second = world.suspect()
    assert [each.id for each in world.decisions.list(ORG)] == sorted([first, second])
    assert [each.id for each in world.decisions.list(closed=False)] == [second]
    assert [each.id for each in world.decisions.list(ORG, after=min(first, second), limit=1)] == [max(first, second)]


def test_cases_whose_time_is_over_are_closed(database: Database) -> None:
    world = World(database)
    case_id = world.confirm()
    assert world.decisions.close_lapsed() == 0
    world.clock.ms += LONGEST_MS
    assert world.decisions.close_lapsed() == 1
    assert world.decisions.close_lapsed() == 0
    record = world.decisions.get(ORG, case_id)
    assert (record.state, record.closed_for, record.closed_by) == (CaseState.CLOSED, CloseReason.LAPSED, None)
    assert world.kinds()[-1] is EntryKind.CASE_CLOSED
