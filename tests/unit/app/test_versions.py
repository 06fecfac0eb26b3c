"""Migrations that carry what is there: what an old entry says is found as a new one's is."""

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from keepless.app import migrate
from keepless.db import Database
from keepless.ids import Prefix, mint
from keepless.receipts.statement import Entry, EntryKind, Fact, FactValue, body_of


def test_entries_of_before_are_found_by_actor_subject_and_project(tmp_path: Path) -> None:
    organization, project, actor, hold = (
        mint(prefix) for prefix in (Prefix.ORGANIZATION, Prefix.PROJECT, Prefix.OPERATOR_KEY, Prefix.HOLD)
    )
    by: dict[Fact, FactValue] = {Fact.ACTOR: actor}
    entries = [
        Entry(EntryKind.PROJECT_CREATED, 1, organization, project, facts=by),
        Entry(EntryKind.HOLD_PLACED, 2, organization, facts={**by, Fact.HOLD_ID: hold}),
        Entry(EntryKind.PURGE_FINISHED, 3, organization, project, facts={Fact.PURGE_ID: mint(Prefix.PURGE)}),
        Entry(EntryKind.CAPTURED, 4, organization, project, mint(Prefix.OBJECT)),
        Entry(EntryKind.KEY_DESTROYED, 5, object_id=mint(Prefix.KEK)),
    ]
    db = Database(f"sqlite:///{tmp_path}/keepless.sqlite")
    to_version(db, "0018")
    with db.write() as tx:
        for index, entry in enumerate(entries):
            values = {"i": index, "b": body_of(entry), "k": entry.kind.value, "a": entry.at_ms}
            tx.execute(sa.text("INSERT INTO log_entry (idx, body, kind, at) VALUES (:i, :b, :k, :a)"), values)
        tx.execute(sa.text("INSERT INTO log_entry (idx, kind, at) VALUES (9, 'captured', 6)"))  # erased
    to_version(db, "0019")
    with db.read() as tx:
        rows = tx.execute(sa.text("SELECT project_id, actor_id, subject_id FROM log_entry ORDER BY idx")).all()
    db.close()
    wanted: list[tuple[Any, ...]] = [(entry.project_id, entry.actor_id, entry.subject_id) for entry in entries]
    assert [tuple(row) for row in rows] == [*wanted, (None, None, None)]


def to_version(db: Database, version: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate._MIGRATIONS))
    config.attributes["engine"] = db.engine
    command.upgrade(config, version)
