"""What lies astray is found and destroyed; what is named by any row is left alone."""

from pathlib import Path

import pytest

from keepless.db import Database
from keepless.ids import Id, Prefix, mint
from keepless.vault import catalogue
from keepless.vault.rows import Leftover
from keepless.vault.states import Cause
from keepless.vault.tables import intent, kek
from tests.support.accounts import make_organization
from tests.support.vault import Rig, make_rig

EVER = 2**62


@pytest.fixture
def rig(database: Database, tmp_path: Path) -> Rig:
    return make_rig(database, tmp_path)


@pytest.fixture
def owner(database: Database) -> tuple[Id, Id]:
    return make_organization(database)


def test_only_blobs_that_no_row_names_are_strays(rig: Rig, owner: tuple[Id, Id], database: Database) -> None:
    kept, dying = rig.put(*owner), rig.put(*owner)
    location = rig.store.name
    coming, stray = mint(Prefix.BLOB), mint(Prefix.BLOB)
    for blob in (coming, stray):
        rig.store.put(blob, [b"noise"])
    with database.write() as tx:
        catalogue.add_intent(tx, coming, location, 0)
        shredding = rig.vault.shred(tx, [dying.id], Cause.EXPIRED)
    strays = rig.vault.strays
    assert strays.locations == [location]
    assert list(strays.blobs(location, EVER)) == [stray]
    assert list(strays.blobs(location, 1)) == []
    assert strays.destroy_blobs(location, [kept.blob, coming, dying.blob, stray]) == [stray]
    assert sorted(rig.store.listed(EVER)) == sorted([kept.blob, coming, dying.blob])
    # Once its tombstone says destroyed, a blob that comes back (a restored folder) is a stray as well.
    ciphertext = rig.store.get(dying.blob)
    with database.write() as tx:
        rig.vault.settle(tx, rig.vault.erase(shredding.shredded))
    rig.store.put(dying.blob, [ciphertext])
    assert list(strays.blobs(location, EVER)) == [dying.blob]


def test_an_intent_is_abandoned_once_with_or_without_its_blob(rig: Rig, database: Database) -> None:
    with_blob, without = mint(Prefix.BLOB), mint(Prefix.BLOB)
    rig.store.put(with_blob, [b"noise"])
    with database.write() as tx:
        for blob in (with_blob, without):
            catalogue.add_intent(tx, blob, rig.store.name, 0)
    for blob in (with_blob, without):
        assert rig.vault.strays.abandon(rig.store.name, blob)
        assert not rig.vault.strays.abandon(rig.store.name, blob)
    assert list(rig.store.listed(EVER)) == []
    with database.read() as tx:
        assert tx.execute(intent.select()).all() == []


def test_what_is_kept_is_never_abandoned(rig: Rig, owner: tuple[Id, Id]) -> None:
    one = rig.put(*owner)
    assert not rig.vault.strays.abandon(one.location, one.blob)
    assert rig.store.get(one.blob)


def test_an_intent_of_a_location_that_is_not_configured_is_left(rig: Rig, database: Database) -> None:
    assert not rig.vault.strays.abandon(Id("s3:elsewhere"), mint(Prefix.BLOB))


def test_hidden_leftovers_are_passed_on(rig: Rig, tmp_path: Path) -> None:
    blob = mint(Prefix.BLOB)
    key = f"{blob[5]}/{blob}#1"
    path = tmp_path / "blobs" / key
    path.parent.mkdir()
    path.write_bytes(b"half")
    (found,) = rig.vault.strays.leftovers(rig.store.name, EVER)
    assert found == Leftover(key, "", found.at)
    rig.vault.strays.drop(rig.store.name, found)
    assert not path.exists()


def test_only_key_files_that_no_row_needs_are_strays(rig: Rig, owner: tuple[Id, Id], database: Database) -> None:
    one, stray = rig.put(*owner), mint(Prefix.KEK)
    rig.keyring.create(stray)
    strays = rig.vault.strays
    assert strays.keks(EVER) == [stray]
    assert strays.keks(1) == []
    assert not strays.destroy_kek(one.kek_id)
    assert strays.destroy_kek(stray)
    assert not strays.destroy_kek(stray)
    with database.write() as tx:
        catalogue.kek_destroyed(tx, one.kek_id, 0, 0)
    assert strays.keks(EVER) == [one.kek_id]
    with database.read() as tx:
        assert tx.execute(kek.select()).one().log_index == 0
