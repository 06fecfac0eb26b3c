"""Usage as people look at it: what only sums remain of counts by day and by model."""

import sqlalchemy as sa

from keepless.db import Database
from keepless.ids import Prefix, mint
from keepless.usage.overview import By, overview
from keepless.usage.tables import usage_gap


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
