"""SQL of files."""

import pytest
import sqlalchemy as sa

from keepless.accounts import places
from keepless.accounts.places import Place
from keepless.db import Database
from keepless.files import store
from keepless.files.values import File, FilePurpose
from keepless.ids import Id, Prefix, mint
from keepless.policy.data_class import DataClass


def one(organization_id: Id, project_id: Id, created_at: int = 1, size: int = 5) -> File:
    ids = (mint(Prefix.FILE), mint(Prefix.OBJECT), organization_id, project_id)
    return File(*ids, FilePurpose.BATCH, DataClass.BATCH_INPUT, size, created_at)


def test_a_row_comes_back_as_it_was_to_its_owner(database: Database) -> None:
    mine = one(mint(Prefix.ORGANIZATION), mint(Prefix.PROJECT))
    with database.write() as tx:
        store.add(tx, mine)
        assert store.get(tx, mine.id, mine.organization_id, mine.project_id) == mine
        assert store.get(tx, mine.id, mine.organization_id, None) == mine
        assert store.get(tx, mine.id, mint(Prefix.ORGANIZATION), None) is None
        assert store.get(tx, mine.id, mine.organization_id, mint(Prefix.PROJECT)) is None
        assert store.count_of(tx, mine.organization_id) == (1, 5)
        assert store.count_of(tx, mint(Prefix.ORGANIZATION)) == (0, 0)
        store.remove(tx, [mine.id], 9)
        assert store.get(tx, mine.id, mine.organization_id, None) is None


def test_two_files_cannot_be_one_object(database: Database) -> None:
    first = one(mint(Prefix.ORGANIZATION), mint(Prefix.PROJECT))
    second = File(mint(Prefix.FILE), first.object_id, *list(vars_of(first))[2:])
    with database.write() as tx:
        store.add(tx, first)
    with pytest.raises(sa.exc.IntegrityError), database.write() as tx:
        store.add(tx, second)


def vars_of(it: File) -> list[object]:
    return [getattr(it, name) for name in it.__slots__]


def test_lists_follow_place_and_filter(database: Database) -> None:
    who = (mint(Prefix.ORGANIZATION), mint(Prefix.PROJECT))
    made = sorted((one(*who, created_at=n // 2) for n in range(7)), key=lambda it: (it.created_at, it.id))
    with database.write() as tx:
        for it in made:
            store.add(tx, it)
        assert store.listing(tx, *who, limit=3) == made[:-4:-1]
        assert store.listing(tx, *who, limit=9, after=made[3]) == made[2::-1]
        assert store.listing(tx, *who, limit=2, after=made[3], oldest_first=True) == made[4:6]
        assert store.listing(tx, *who, limit=9, purpose=FilePurpose.FINE_TUNE) == []
        assert store.listing(tx, *who, limit=9, classes=[DataClass.BATCH_OUTPUT]) == []
        assert len(store.listing(tx, *who, limit=9, classes=[DataClass.BATCH_INPUT])) == 7
        assert store.remove_dead(tx, 9, limit=5) == 5
        assert store.remove_dead(tx, 9) == 2
        assert store.remove_dead(tx, 9) == 0
        assert places.found(tx, made[3].id, *who) == Place(
            made[3].id, made[3].created_at
        )  # still a place to go on from
