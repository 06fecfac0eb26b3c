"""Catalogue rows without blobs, for tests that ask the catalogue and never open an object."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keepless.accounts import tables as accounts
from keepless.clock import DAY_MS
from keepless.ids import Id, Prefix, mint
from keepless.policy.data_class import DataClass
from keepless.policy.decision import Reason
from keepless.vault.tables import kept, kept_total

NOW = 1_800_000_000_000


def organization(tx: Connection, **values: Any) -> Id:
    row = {"id": mint(Prefix.ORGANIZATION), "name": "Acme", "created_at": NOW, "epoch": 1, "generation": 1} | values
    tx.execute(accounts.organization.insert().values(row))
    return row["id"]


def project(tx: Connection, organization_id: Id) -> Id:
    row = {"id": mint(Prefix.PROJECT), "organization_id": organization_id, "name": "One", "created_at": NOW}
    tx.execute(accounts.project.insert().values(row | {"generation": 1}))
    return row["id"]


def kept_rows(tx: Connection, count: int, organization_id: Id, project_id: Id, **values: Any) -> list[Id]:
    """`count` objects that differ in nothing but their ids, and their totals."""
    shared = {
        "organization_id": organization_id,
        "project_id": project_id,
        "data_class": DataClass.RELIABILITY_LOG,
        "reason": Reason.ENGINE_CRASH,
        "epoch": 1,
        "created_at": NOW,
        "expires_at": NOW + 30 * DAY_MS,
        "bytes": 100,
        "location": "local",
        "kek_id": "kek_none",
        "wrapped_dek": b"",
    } | values
    rows = [{"id": mint(Prefix.OBJECT), "blob": mint(Prefix.BLOB)} | shared for _ in range(count)]
    tx.execute(kept.insert(), rows)
    key = {name: shared[name] for name in ("organization_id", "project_id", "data_class")}
    grown = tx.execute(
        kept_total.update()
        .where(*(kept_total.c[name] == value for name, value in key.items()))
        .values(objects=kept_total.c.objects + count, bytes=kept_total.c.bytes + count * shared["bytes"])
    )
    if grown.rowcount == 0:
        tx.execute(kept_total.insert().values(key | {"objects": count, "bytes": count * shared["bytes"]}))
    return [row["id"] for row in rows]


def plan(tx: Connection, statement: sa.Select[Any]) -> str:
    """How the database would run a statement."""
    explain = "EXPLAIN QUERY PLAN " if tx.dialect.name == "sqlite" else "EXPLAIN "
    compiled = statement.compile(tx.engine, compile_kwargs={"literal_binds": True})
    return "\n".join(" ".join(map(str, row)) for row in tx.exec_driver_sql(explain + str(compiled).replace("%", "%%")))
