"""What processes read of tuned models: those whose weights are kept and that nobody is deleting."""

from pathlib import Path

import pytest

from keepless.db import Database
from keepless.ids import Id, Prefix, mint
from keepless.policy.data_class import DataClass
from keepless.tuning.served import read_served
from keepless.tuning.tables import tuned_model
from keepless.vault.states import Cause
from tests.support.accounts import make_organization
from tests.support.vault import Rig, make_rig


@pytest.fixture
def rig(database: Database, tmp_path: Path) -> Rig:
    return make_rig(database, tmp_path)


def add(rig: Rig, owner: tuple[Id, Id], hexadecimal: str) -> Id:
    kept = rig.put(*owner, data_class=DataClass.MODEL_WEIGHTS)
    with rig.database.write() as tx:
        tx.execute(
            tuned_model.insert().values(
                hexadecimal=hexadecimal,
                organization_id=owner[0],
                project_id=owner[1],
                job_id=mint(Prefix.TUNED_MODEL),
                base_model="m",
                object_id=kept.id,
                rank=8,
                created_at=rig.clock.now_ms(),
            )
        )
    return kept.id


def test_what_is_served(rig: Rig) -> None:
    def look(present):
        with rig.database.read() as tx:
            return read_served(tx, present)

    owner = make_organization(rig.database)
    nothing = {}
    assert look(nothing) is nothing
    first = add(rig, owner, "a" * 12)
    one = look(nothing)
    assert [(t.hexadecimal, t.organization_id, t.project_id, t.object_id) for t in one.values()] == [
        ("a" * 12, *owner, first)
    ]
    assert look(one) is one
    add(rig, owner, "b" * 12)
    two = look(one)
    assert set(two) == {"a" * 12, "b" * 12}
    with rig.database.write() as tx:  # its weights end
        rig.vault.shred(tx, [first], Cause.EXPIRED)
    three = look(two)
    assert set(three) == {"b" * 12}
    with rig.database.write() as tx:  # somebody deletes it
        tx.execute(tuned_model.update().values(deleting_at=1))
    assert look(three) == {}
