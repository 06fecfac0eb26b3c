"""What is held and what is not, page by page, against the rule of holds asked object by object."""

import random
from typing import Any

import pytest
import sqlalchemy as sa

from keepless.db import Database
from keepless.governance.retained import Narrowed, page_of
from keepless.ids import Id, Prefix, mint
from keepless.policy.data_class import DataClass
from keepless.policy.decision import Reason
from keepless.policy.hold import Hold, HoldAuthority, HoldReason, covers
from keepless.vault.tables import kept, kept_total, legal_hold

OWN = mint(Prefix.ORGANIZATION)
PROJECTS = [mint(Prefix.PROJECT) for _ in range(3)]
CLASSES = [DataClass.RELIABILITY_LOG, DataClass.BATCH_INPUT, DataClass.MODEL_WEIGHTS]


def filled(database: Database, chance: random.Random) -> list[dict[str, Any]]:
    """Objects of three classes in three projects, many of one instant."""
    rows = [
        {
            "id": mint(Prefix.OBJECT),
            "organization_id": OWN,
            "project_id": chance.choice(PROJECTS),
            "data_class": chance.choice(CLASSES),
            "reason": Reason.UPSTREAM_5XX,
            "epoch": 1,
            "created_at": chance.randrange(100),
            "bytes": 1,
            "location": Id("local"),
            "blob": mint(Prefix.BLOB),
            "kek_id": mint(Prefix.KEK),
            "wrapped_dek": bytes(80),
        }
        for _ in range(300)
    ]
    with database.write() as tx:
        tx.execute(kept.insert(), rows)
        for project in PROJECTS:
            for data_class in CLASSES:
                of = [r for r in rows if (r["project_id"], r["data_class"]) == (project, data_class)]
                kind = {"organization_id": OWN, "project_id": project, "data_class": data_class}
                tx.execute(kept_total.insert().values(**kind, objects=len(of), bytes=len(of)))
    return sorted(rows, key=lambda row: (row["created_at"], row["id"]))


def some_holds(database: Database, rows: list[dict[str, Any]], chance: random.Random) -> list[Hold]:
    """Between none and four holds, each narrowed somehow."""
    holds = []
    with database.write() as tx:
        tx.execute(legal_hold.delete())
        for _ in range(chance.randrange(5)):
            low, high = sorted((chance.randrange(100), chance.randrange(100)))
            scope: dict[str, Any] = {
                "project_id": chance.choice((None, None, *PROJECTS[:2])),
                "data_class": chance.choice((None, *CLASSES[:2])),
                "object_id": chance.choice((None, None, chance.choice(rows)["id"])),
                "created_from": chance.choice((None, low)),
                "created_to": chance.choice((None, high)),
            }
            one = {"id": mint(Prefix.HOLD), "organization_id": OWN, "reference": "x", "placed_by": "x", "placed_at": 1}
            one |= {"reason": HoldReason.LITIGATION, "authority": HoldAuthority.COUNSEL, "review_at": 2}
            tx.execute(legal_hold.insert().values(**one, **scope))
            times = {"created_from_ms": scope.pop("created_from"), "created_to_ms": scope.pop("created_to")}
            holds.append(Hold(id=one["id"], organization_id=OWN, **scope, **times))
    return holds


def is_held(row: dict[str, Any], holds: list[Hold]) -> bool:
    named = {name: row[name] for name in ("organization_id", "project_id", "data_class")}
    return any(covers(hold, **named, object_id=row["id"], created_at_ms=row["created_at"]) for hold in holds)


def test_pages_of_what_is_held_and_of_what_is_not(database: Database) -> None:
    chance = random.Random(3)
    rows = filled(database, chance)
    for _ in range(60):
        holds = some_holds(database, rows, chance)
        asked = Narrowed(
            held=chance.choice((True, False)),
            project_id=chance.choice((None, PROJECTS[0], PROJECTS[2])),
            data_class=chance.choice((None, *CLASSES)),
        )
        wanted = [
            row["id"]
            for row in rows
            if is_held(row, holds) is asked.held
            and asked.project_id in (None, row["project_id"])
            and asked.data_class in (None, row["data_class"])
        ]
        found: list[str] = []
        while page := page_of(database, OWN, asked, limit=70, after=found[-1] if found else None):
            found += [one.id for one in page]
            assert {one.held for one in page} == {asked.held}
        assert found == wanted


@pytest.mark.parametrize("held", [True, False])
def test_what_a_hold_covers_is_read_by_an_index(database: Database, held: bool) -> None:
    chance = random.Random(4)
    rows = filled(database, chance)
    some_holds(database, rows, chance)
    asked: list[str] = []
    sa.event.listen(database.engine, "before_cursor_execute", lambda _c, _u, said, *_: asked.append(said))
    page_of(database, OWN, Narrowed(held=held), limit=5)
    of_kept = [said for said in asked if "FROM kept " in said.replace("\n", " ")]
    assert of_kept
    assert all("kept.data_class = " in said for said in of_kept)
