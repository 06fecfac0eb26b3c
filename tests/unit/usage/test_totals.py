"""Daily counts, explanations, and the end of old rows, on both databases."""

import sqlalchemy as sa

from keepless.db import Database
from keepless.errors import Code
from keepless.ids import Prefix, mint
from keepless.policy.controls import Source
from keepless.policy.decision import DiscardReason
from keepless.usage.ledger import Ledger
from keepless.usage.record import Flag, Outcome, Phase, Record, Role, Sketch, roles_from
from keepless.usage.tables import usage, usage_gap, usage_sketch
from keepless.usage.totals import delete_before, explain, requests_since
from tests.support.usage import ORGANIZATION, PROJECT, record

DAY = 86_400_000
START = 20_000 * DAY
OTHER = mint(Prefix.ORGANIZATION)


def write(database: Database, *records: Record, max_rows: int = 1000) -> None:
    ledger = Ledger(database, max_rows=max_rows)
    for each in records:
        ledger.add(each)
    assert ledger.flush()


def test_counts_for_daily_limits(database: Database) -> None:
    other_project = mint(Prefix.PROJECT)
    write(
        database,
        record(START - 1),
        record(START),
        record(START + 1, status=400, code=Code.INVALID_JSON),
        record(START + 1, status=429, code=Code.RATE_LIMIT),
        record(START + 2, project_id=other_project),
        record(START + 2, organization_id=OTHER, project_id=None),
    )
    assert requests_since(database, [ORGANIZATION], START) == {ORGANIZATION: 3, PROJECT: 2, other_project: 1}
    assert requests_since(database, [OTHER], START) == {OTHER: 1}
    write(database, record(START + 3), max_rows=0)
    assert requests_since(database, [ORGANIZATION], START)[ORGANIZATION] == 4


def test_one_request_is_explained_to_its_organization_only(database: Database) -> None:
    shape = Sketch(phase=Phase.ANSWER, flags=Flag.STREAM | Flag.TOOLS, roles=roles_from(["system", "user"]), messages=2)
    failed = record(
        START,
        status=502,
        code=Code.UPSTREAM_CUT,
        outcome=Outcome.REFUSED,
        discard=DiscardReason.ZERO_DATA_RETENTION,
        source=Source.PROJECT_ZDR,
        epoch=7,
        sketch=shape,
    )
    write(database, failed, record(START))
    known = explain(database, failed.request_id, ORGANIZATION)
    assert known is not None
    assert known["discard"] is DiscardReason.ZERO_DATA_RETENTION
    assert (known["source"], known["epoch"], known["outcome"]) == (Source.PROJECT_ZDR, 7, Outcome.REFUSED)
    assert known["sketch"]["flags"] == ["stream", "tools"]
    assert known["sketch"]["roles"] == [Role.SYSTEM, Role.USER]
    assert explain(database, failed.request_id) == known
    assert explain(database, failed.request_id, OTHER) is None
    assert explain(database, mint(Prefix.REQUEST), ORGANIZATION) is None


def test_old_rows_end_in_batches(database: Database) -> None:
    failed = record(START, code=Code.UPSTREAM_CUT, sketch=Sketch(phase=Phase.ANSWER))
    write(database, *(record(START + at) for at in range(10)), failed, record(START + 20))
    write(database, record(START), max_rows=0)
    assert delete_before(database, START + 8, batch=3) == 11
    with database.read() as tx:
        assert list(tx.execute(sa.select(usage.c.at).order_by(usage.c.at)).scalars()) == [
            START + 8,
            START + 9,
            START + 20,
        ]
        assert tx.execute(sa.select(sa.func.count()).select_from(usage_sketch)).scalar_one() == 0
        assert tx.execute(sa.select(sa.func.count()).select_from(usage_gap)).scalar_one() == 0
    assert delete_before(database, START + 8) == 0
