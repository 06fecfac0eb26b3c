"""Everything of a feature as one ZIP: what is in it, what never is, what the log says of it, on both databases."""

import io
import json
import zipfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from keepless.accounts.principal import AdminPrincipal
from keepless.accounts.roles import Role
from keepless.content import Content
from keepless.db import Database
from keepless.errors import Problem
from keepless.expiry.sweep import Sweeper
from keepless.governance.exports import Export, Exports
from keepless.governance.holds import Holds
from keepless.ids import Id, Prefix, mint
from keepless.policy.data_class import DataClass, Feature
from keepless.receipts import bundle
from keepless.receipts.stated import verify_entry
from keepless.receipts.statement import EntryKind
from keepless.vault.errors import NotKeptError
from tests.support.accounts import make_organization
from tests.support.sweeping import FlakyStore, Stage
from tests.support.vault import make_rig

BOTH = (Feature.BATCH, Feature.FINE_TUNING)
EVIL = "../../etc/pass\nwd:<b>.jsonl"


class World:
    def __init__(self, database: Database, folder: Path) -> None:
        self.rig = rig = make_rig(database, folder)
        sweeper = Sweeper(database, rig.clock, rig.clock, rig.vault, rig.log)
        holds = Holds(database, rig.clock, rig.log, sweeper)
        self.stage = Stage(rig, FlakyStore(rig.store), sweeper, holds)
        self.organization, self.project = make_organization(database)
        self.exports = Exports(database, self.rig.clock, self.rig.log, self.rig.vault)
        self.owner = AdminPrincipal(mint(Prefix.MEMBER), self.organization, Role.OWNER)

    def keep(self, data: bytes, data_class: DataClass, name: str | None = None, project: Id | None = None) -> Id:
        with self.rig.vault.writing(self.organization) as writer:
            writer.write(Content(data))
            permit = self.rig.permit(self.organization, project or self.project, data_class)
            label = None if name is None else Content(name.encode())
            return writer.commit(permit, label=label).id

    def begin(self, *features: Feature, project: Id | None = None) -> Export:
        return self.exports.begin(self.owner, self.organization, project, features or BOTH)

    def taken(self, *features: Feature, project: Id | None = None) -> zipfile.ZipFile:
        export = self.begin(*features, project=project)
        archive = b"".join(export.parts())
        export.end(complete=True)
        return zipfile.ZipFile(io.BytesIO(archive))

    def said(self, kind: EntryKind) -> list[dict[str, Any]]:
        return self.stage.entries(kind)


@pytest.fixture
def world(database: Database, tmp_path: Path) -> World:
    return World(database, tmp_path)


def listed(archive: zipfile.ZipFile) -> dict[str, dict[str, Any]]:
    return {line["id"]: line for line in map(json.loads, archive.read("objects.jsonl").splitlines())}


def test_everything_of_the_features_is_in_it_and_nothing_that_was_captured(world: World) -> None:
    large = bytes(range(256)) * 20_000
    wanted = {
        world.keep(b"in", DataClass.BATCH_INPUT, EVIL): b"in",
        world.keep(large, DataClass.BATCH_OUTPUT, "out.jsonl"): large,
        world.keep(b"bad", DataClass.BATCH_ERROR): b"bad",
        world.keep(b"", DataClass.FINE_TUNING_DATASET, "empty"): b"",
        world.rig.put(world.organization, world.project, b"weights", data_class=DataClass.MODEL_WEIGHTS).id: b"weights",
    }
    for never in (DataClass.RELIABILITY_LOG, DataClass.ABUSE_LOG, DataClass.FINE_TUNING_WORK):
        world.rig.put(world.organization, world.project, b"never", data_class=never)
    archive = world.taken()
    assert archive.testzip() is None
    lines = listed(archive)
    assert set(lines) == set(wanted)
    for object_id, data in wanted.items():
        assert archive.read(lines[object_id]["path"]) == data
        assert lines[object_id]["bytes"] == len(data)
    assert all(b"never" not in archive.read(name) for name in archive.namelist())
    for name in archive.namelist():
        assert ".." not in name.split("/") and not name.startswith("/")
        assert name.isprintable() and not set(name) & set('\\:*?"<>|')
        assert name == "objects.jsonl" or len(name.split("/")) == 3


def test_one_feature_and_one_project_alone(world: World) -> None:
    other = make_organization(world.rig.database)
    world.keep(b"tune", DataClass.FINE_TUNING_DATASET)
    mine = world.keep(b"batch", DataClass.BATCH_INPUT)
    assert set(listed(world.taken(Feature.BATCH))) == {mine}
    assert set(listed(world.taken(project=world.project))) > {mine}
    with pytest.raises(Problem) as refused:
        world.begin(project=other[1])
    assert refused.value.status == 404
    with pytest.raises(Problem) as refused:
        world.begin(Feature.INFERENCE_LOGGING)
    assert refused.value.status == 400


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.OWNER])
def test_owners_alone(world: World, role: Role) -> None:
    for organization, status in ((world.organization, 403), (None, 404), (mint(Prefix.ORGANIZATION), 404)):
        actor = AdminPrincipal(mint(Prefix.MEMBER), organization, role)
        with pytest.raises(Problem) as refused:
            world.exports.begin(actor, world.organization, None, BOTH)
        assert refused.value.status == status
    assert world.said(EntryKind.EXPORT_BEGUN) == []


def test_the_log_says_it_before_anything_is_read_and_the_receipt_is_verified_offline(world: World) -> None:
    world.keep(b"in", DataClass.BATCH_INPUT)
    export = world.begin()
    begun = world.said(EntryKind.EXPORT_BEGUN)[0]
    assert (begun["export_id"], begun["actor"]) == (export.id, world.owner.id)
    assert world.said(EntryKind.EXPORTED) == []
    assert b"".join(export.parts())
    export.end(complete=True)
    export.end(complete=True)
    ended = world.said(EntryKind.EXPORTED)
    assert [(one["export_id"], one["objects"], one["complete"]) for one in ended] == [(export.id, 1, True)]
    log = world.rig.log
    receipt = bundle.issue(world.rig.database, log, Id(ended[0]["receipt_id"]), world.organization)
    assert receipt is not None
    stated = verify_entry(receipt, log.key)
    assert stated is not None
    assert stated.statement == ended[0]
    assert bundle.issue(world.rig.database, log, Id(ended[0]["receipt_id"]), mint(Prefix.ORGANIZATION)) is None
    assert verify_entry(receipt.replace(b'"objects":1', b'"objects":2'), log.key) is None
    assert verify_entry(receipt + b" ", log.key) is None


def test_a_client_that_leaves_ends_it_and_the_log_says_so(world: World) -> None:
    for _ in range(3):
        world.keep(b"x" * 3_000_000, DataClass.BATCH_INPUT)
    export = world.begin()
    parts = export.parts()
    next(parts)
    assert isinstance(parts, Generator)
    parts.close()
    export.end(complete=False)
    ended = world.said(EntryKind.EXPORTED)[0]
    assert (ended["objects"], ended["complete"]) == (0, False)


def test_what_ends_meanwhile_is_named_as_missing_and_cuts_what_is_being_read(world: World) -> None:
    gone = world.keep(b"x" * 12_000_000, DataClass.BATCH_INPUT)
    world.rig.clock.advance_ms(1)
    later = world.keep(b"later", DataClass.BATCH_INPUT)
    export = world.begin()
    parts = export.parts()
    next(parts)
    world.stage.sweeper.delete_object(world.organization, gone)
    with pytest.raises(NotKeptError):
        list(parts)
    export = world.begin()
    parts = export.parts()
    world.stage.sweeper.delete_object(world.organization, later)
    archive = zipfile.ZipFile(io.BytesIO(b"".join(parts)))
    export.end(complete=True)
    assert listed(archive) == {}
    late = world.begin()
    world.keep(b"written after it began", DataClass.BATCH_INPUT)
    world.rig.clock.advance_ms(1)
    world.keep(b"written after it began", DataClass.BATCH_INPUT)
    assert len(listed(zipfile.ZipFile(io.BytesIO(b"".join(late.parts()))))) <= 1


def test_what_is_held_and_over_is_served_to_nobody(world: World) -> None:
    held = world.keep(b"held", DataClass.BATCH_INPUT)
    world.stage.hold(world.organization, object_id=held)
    world.rig.pass_days(31)
    export = world.begin()
    archive = zipfile.ZipFile(io.BytesIO(b"".join(export.parts())))
    export.end(complete=True)
    assert "path" not in listed(archive)[held]
    assert world.said(EntryKind.EXPORTED)[0]["complete"] is False
