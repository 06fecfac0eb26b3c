"""Parts and labels of what is kept: authentic, the owner's, and no longer than it lives."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from keepless.accounts import tables as accounts
from keepless.clock import DAY_MS
from keepless.content import Content, Purpose
from keepless.db import Database
from keepless.ids import Id, Prefix, mint
from keepless.policy.data_class import DataClass
from keepless.vault.errors import NotKeptError, NotOpenedError, StoreFailedError
from keepless.vault.rows import Kept
from keepless.vault.states import Cause
from keepless.vault.tables import kept
from tests.support.accounts import make_organization
from tests.support.vault import Rig, make_rig

READ = Purpose.CUSTOMER
DATA = os.urandom(9_500_000)


@pytest.fixture
def rig(database: Database, tmp_path: Path) -> Rig:
    return make_rig(database, tmp_path)


@pytest.fixture
def owner(database: Database) -> tuple[Id, Id]:
    return make_organization(database)


def keep(rig: Rig, owner: tuple[Id, Id], data: bytes = DATA, label: bytes = b"a name") -> Kept:
    with rig.vault.writing(owner[0]) as writer:
        writer.write(Content(data))
        return writer.commit(rig.permit(*owner, DataClass.BATCH_INPUT), label=Content(label))


def joined(parts: Iterator[Content]) -> bytes:
    return b"".join(part.reveal(READ) for part in parts)


def all_of(rig: Rig, row: Kept) -> bytes:
    reader = rig.vault.reader(row.id, row.organization_id, READ)
    assert reader.label() is not None
    return joined(reader.stream())


@pytest.mark.parametrize("whole", [True, False])
def test_any_part_of_an_object_is_read(rig: Rig, owner: tuple[Id, Id], whole: bool) -> None:
    row = rig.put(*owner, DATA, data_class=DataClass.BATCH_INPUT) if whole else keep(rig, owner)
    reader = rig.vault.reader(row.id, owner[0], READ)
    assert reader.size == len(DATA)
    mib = 1 << 20
    for start, length in ((0, 0), (0, 1), (mib - 60, 30), (mib - 5, 2 * mib), (5_000_000, 10**9), (10**9, 5)):
        assert reader.read(start, length).reveal(READ) == DATA[start : start + length]
    parts = [part.size for part in reader.stream()]
    assert max(parts) <= 4 * mib
    assert joined(reader.stream()) == DATA
    assert joined(reader.stream(7, 2_000_000)) == DATA[7:2_000_000]
    assert joined(reader.stream(3, 3)) == b""
    for start, length in ((-1, 5), (5, -1)):
        with pytest.raises(ValueError, match="negative"):
            reader.read(start, length)


@pytest.mark.parametrize("size", [0, 1])
def test_the_smallest_objects_are_read(rig: Rig, owner: tuple[Id, Id], size: int) -> None:
    row = keep(rig, owner, b"x" * size)
    reader = rig.vault.reader(row.id, owner[0], READ)
    assert (reader.size, joined(reader.stream())) == (size, b"x" * size)


def test_labels_are_the_owners(rig: Rig, owner: tuple[Id, Id], database: Database) -> None:
    rows = [keep(rig, owner, b"x", f"name {n}".encode()) for n in range(3)]
    bare = rig.put(*owner)
    other = make_organization(database)
    theirs = keep(rig, other, b"x", b"theirs")
    ids = [*(row.id for row in rows), bare.id, theirs.id, mint(Prefix.OBJECT)]
    labels = rig.vault.labels(ids, owner[0], READ)
    assert {key: None if it.label is None else it.label.reveal(READ) for key, it in labels.items()} == {
        **{row.id: f"name {n}".encode() for n, row in enumerate(rows)},
        bare.id: None,
    }
    assert rig.vault.labels(ids, owner[0], Purpose.SEAL) == {}
    reader = rig.vault.reader(rows[1].id, owner[0], READ)
    label = reader.label()
    assert label is not None
    assert label.reveal(READ) == b"name 1"
    assert rig.vault.reader(bare.id, owner[0], READ).label() is None


def test_labels_are_found_when_their_objects_move_to_another_key_meanwhile(
    rig: Rig, owner: tuple[Id, Id], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = keep(rig, owner, b"x")
    load, asked = rig.keyring.load, []

    def missing_once(kek_id: Id) -> bytes:
        asked.append(kek_id)
        return load(kek_id if len(asked) > 1 else mint(Prefix.KEK))

    monkeypatch.setattr(rig.keyring, "load", missing_once)
    (it,) = rig.vault.labels([row.id], owner[0], READ).values()
    assert it.label is not None
    assert it.label.reveal(READ) == b"a name"
    assert it.ends_at == row.expires_at


def test_nobody_else_reads_it(rig: Rig, owner: tuple[Id, Id], database: Database) -> None:
    row = keep(rig, owner, b"x")
    other, _ = make_organization(database)
    for object_id, organization_id in ((row.id, other), (mint(Prefix.OBJECT), owner[0])):
        with pytest.raises(NotKeptError):
            rig.vault.reader(object_id, organization_id, READ)


def test_reading_ends_with_the_object(rig: Rig, owner: tuple[Id, Id]) -> None:
    row = keep(rig, owner)
    reader = rig.vault.reader(row.id, owner[0], READ)
    parts = reader.stream()
    assert next(parts).size
    rig.clock.advance_ms(30 * DAY_MS)
    with pytest.raises(NotKeptError):
        next(parts)
    with pytest.raises(NotKeptError):
        rig.vault.reader(row.id, owner[0], READ)
    assert rig.vault.labels([row.id], owner[0], READ) == {}


def test_reading_ends_when_it_is_deleted(rig: Rig, owner: tuple[Id, Id], database: Database) -> None:
    row = keep(rig, owner)
    parts = rig.vault.reader(row.id, owner[0], READ).stream()
    assert next(parts).size
    with database.write() as tx:
        shredding = rig.vault.shred(tx, [row.id], Cause.CUSTOMER)
    rig.vault.erase(shredding.shredded)
    with pytest.raises(NotKeptError):
        next(parts)


def test_what_a_feature_left_is_read_by_owners_and_fed_to_no_model(
    rig: Rig, owner: tuple[Id, Id], database: Database
) -> None:
    row = keep(rig, owner, b"x")
    assert rig.vault.reader(row.id, owner[0], Purpose.INFERENCE).size == 1
    with database.write() as tx:
        tx.execute(accounts.organization.update().values(batch_off=True))
    assert rig.vault.reader(row.id, owner[0], READ).size == 1
    with pytest.raises(NotKeptError):
        rig.vault.reader(row.id, owner[0], Purpose.INFERENCE)


def test_what_was_changed_does_not_open(rig: Rig, owner: tuple[Id, Id], database: Database, tmp_path: Path) -> None:
    row, other = keep(rig, owner), keep(rig, owner, DATA[::-1], b"another name")
    (path,) = tmp_path.rglob(str(row.blob))
    sealed = path.read_bytes()
    (other_path,) = tmp_path.rglob(str(other.blob))
    mib = 1 << 20
    changed = {
        "a byte": sealed[: 3 * mib] + bytes([sealed[3 * mib] ^ 1]) + sealed[3 * mib + 1 :],
        "the order": sealed[: 1 + mib] + sealed[1 + 2 * mib : 1 + 3 * mib] + sealed[1 + mib : 1 + 2 * mib]
        + sealed[1 + 3 * mib :],
        "the format": b"\1" + sealed[1:],
        "an unknown format": b"\7" + sealed[1:],
        "another's": other_path.read_bytes(),
    }  # fmt: skip
    for data in changed.values():
        path.write_bytes(data)
        with pytest.raises(NotOpenedError):
            joined(rig.vault.reader(row.id, owner[0], READ).stream())
    path.write_bytes(sealed[: 1 + mib])
    with pytest.raises((NotOpenedError, StoreFailedError)):
        joined(rig.vault.reader(row.id, owner[0], READ).stream())
    path.write_bytes(sealed)
    values = [
        {"label": other.label},
        {"label": b"\2" + (row.label or b"")[1:]},
        {"bytes": 1 + mib},
        {"bytes": 5},
        {"expires_at": (row.expires_at or 0) + DAY_MS},
        {"data_class": DataClass.BATCH_OUTPUT},
    ]
    original = {"label": row.label, "bytes": row.size, "expires_at": row.expires_at, "data_class": row.data_class}
    for change in values:
        with database.write() as tx:
            tx.execute(kept.update().where(kept.c.id == row.id).values(original | change))
        with pytest.raises(NotOpenedError):
            all_of(rig, row)
    with database.write() as tx:
        tx.execute(kept.update().where(kept.c.id == row.id).values(original))
    assert joined(rig.vault.reader(row.id, owner[0], READ).stream()) == DATA
