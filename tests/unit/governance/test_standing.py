"""What stands at every level, and that looking at it costs nothing by what is kept."""

import pytest
import sqlalchemy as sa

from keepless.accounts.store import replace_periods
from keepless.accounts.tables import organization, project
from keepless.clock import DAY_MS
from keepless.db import Database
from keepless.errors import Problem
from keepless.governance.change import organization_row
from keepless.governance.standing import (
    Standing,
    _moved,
    _not_moved,
    held_of,
    kept_by_class,
    oldest_of,
    residual,
    standing_of,
)
from keepless.ids import Id, Prefix, mint
from keepless.policy.controls import Controls
from keepless.policy.data_class import DataClass, Feature
from keepless.vault.tables import kept, legal_hold
from tests.support import rows
from tests.support.accounts import make_organization

BATCH = DataClass.BATCH_INPUT


def standing(database: Database, organization_id: Id, project_id: Id | None = None) -> Standing:
    with database.read() as tx:
        return standing_of(tx, organization_row(tx, organization_id), project_id)


def test_levels(database: Database) -> None:
    own, below = make_organization(database, epoch=4, batch_off=True)
    with database.write() as tx:
        tx.execute(project.update().values(zero_data_retention=True))
        replace_periods(tx, own, below, {BATCH: 3})
    above = standing(database, own)
    assert (above.epoch, above.own, above.above) == (4, Controls(off=frozenset({Feature.BATCH})), None)
    meant = standing(database, own, below)
    assert meant.own == Controls(True, frozenset(), {BATCH: 3}) and meant.above is not None
    assert meant.in_force.on == frozenset() and Feature.FINE_TUNING in meant.above.on
    assert above.after(Controls(), 5).in_force.on == set(Feature)
    changed = meant.after(Controls(), 5)
    assert (changed.epoch, changed.own, changed.organization) == (5, Controls(), meant.organization)


def test_an_archived_project_is_gone_but_what_it_keeps_is_seen(database: Database) -> None:
    own, below = make_organization(database)
    with database.write() as tx:
        rows.kept_rows(tx, 2, own, below, data_class=BATCH)
        tx.execute(project.update().values(archived_at=1, batch_off=True))
    with pytest.raises(Problem) as caught:
        standing(database, own, below)
    assert caught.value.status == 404
    with database.read() as tx:
        assert residual(tx, standing(database, own)).objects == 2


def test_the_end_of_a_residual_is_never_too_early(database: Database) -> None:
    own, below = make_organization(database)
    with database.write() as tx:
        for age in range(5):
            rows.kept_rows(tx, 1, own, below, data_class=BATCH, created_at=rows.NOW - age * DAY_MS)
        tx.execute(organization.update().values(batch_off=True))
        replace_periods(tx, own, below, {BATCH: 7})
    with database.read() as tx:
        here = standing(database, own)
        left = residual(tx, here)
        last = tx.execute(sa.select(sa.func.max(kept.c.created_at))).scalar_one() + 7 * DAY_MS
        assert (left.objects, left.until_ms) == (5, last)
        assert oldest_of(tx, here, kept_by_class(tx, here)) == rows.NOW - 4 * DAY_MS
        assert oldest_of(tx, here, []) is None


def test_held_objects_are_counted_and_nobody_says_when_they_end(database: Database) -> None:
    own, below = make_organization(database, batch_off=True)
    hold_id = mint(Prefix.HOLD)
    with database.write() as tx:
        rows.kept_rows(tx, 2, own, below, data_class=BATCH)
        rows.kept_rows(tx, 3, own, below, data_class=BATCH, created_at=rows.NOW - 1, hold_id=hold_id)
        values = {"reason": "litigation", "authority": "counsel", "reference": "x", "placed_by": Id("okey_x")}
        tx.execute(
            legal_hold.insert().values(
                id=hold_id, organization_id=own, placed_at=0, review_at=1, released_at=2, **values
            )
        )
    here = standing(database, own)
    with database.read() as tx:
        counts = kept_by_class(tx, here)
        assert (held_of(tx, here, counts), oldest_of(tx, here, counts)) == (3, rows.NOW - 1)
        left = residual(tx, here)
    assert (left.objects, left.until_ms) == (5, None)  # released, but it has not let go of them yet


def test_the_ends_of_an_index_are_asked_and_nothing_is_scanned(database: Database) -> None:
    own, below = make_organization(database)
    with database.write() as tx:
        rows.kept_rows(tx, 3000, own, below, data_class=DataClass.RELIABILITY_LOG)
        rows.kept_rows(tx, 30, own, below, data_class=BATCH, created_at=rows.NOW - DAY_MS)
    if not database.sqlite:
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("ANALYZE kept")
    here = standing(database, own)
    with database.read() as tx:
        (count,) = [count for count in kept_by_class(tx, here) if count.data_class is BATCH]
        plans = [rows.plan(tx, look(here, count, sa.func.max(kept.c.created_at))) for look in (_not_moved, _moved)]
    assert "kept_by_age" in plans[0] and "kept_by_hold" in plans[1], plans
    assert not any(scan in plan for plan in plans for scan in ("Seq Scan on kept", "SCAN kept"))
