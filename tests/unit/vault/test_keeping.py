"""The steps that everything kept has in common."""

from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.content import Content
from keepless.db import Database
from keepless.ids import Prefix, mint
from keepless.policy.data_class import DataClass
from keepless.vault.envelope import facts_of, facts_under
from keepless.vault.keeping import demand, nothing_more
from keepless.vault.rows import Kept
from keepless.vault.states import KekState, Step
from keepless.vault.tables import kek
from tests.support.accounts import make_organization
from tests.support.vault import make_rig


def test_what_is_sealed_under_a_permit_opens_by_its_row(database: Database, tmp_path: Path) -> None:
    rig = make_rig(database, tmp_path)
    owner = make_organization(database)
    permit = rig.permit(*owner, DataClass.BATCH_INPUT)
    row = rig.vault.put(Content(b"x"), permit, within=nothing_more)
    assert facts_of(row) == facts_under(permit, row.id)


def test_a_key_that_ends_before_the_commit_is_replaced_and_the_callers_rows_are_written_once(
    database: Database, tmp_path: Path
) -> None:
    rig = make_rig(database, tmp_path)
    owner = make_organization(database)
    tries: list[str] = []

    def within(tx: Connection, row: Kept) -> None:
        tries.append(row.kek_id)
        count = tx.execute(sa.select(sa.func.count()).select_from(kek).where(kek.c.state == KekState.ACTIVE))
        assert count.scalar_one() == 1

    def retire(at: Step) -> None:
        if at is Step.BLOB:
            with database.write() as tx:
                tx.execute(kek.update().values(state=KekState.RETIRING))

    row = rig.hooked(retire).put(Content(b"x"), rig.permit(*owner, DataClass.BATCH_INPUT), within=within)
    assert tries == [row.kek_id]


def test_the_door_demands_the_very_types() -> None:
    demand(Content(b""), Content)
    for value in (b"", None, mint(Prefix.BLOB)):
        with pytest.raises(TypeError):
            demand(value, Content)
