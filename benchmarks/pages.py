"""What the console's pages cost beside a million kept objects: the time from asking to the last byte, and the bytes.

Holds: `pages`. A server of its own (one process, SQLite, local files) whose organization has `stored` kept objects of
one class and four weeks, a fifth as many entries in its log (of the two years to come: a log that goes back would be
none) and as many requests in its usage (of 90 days). One object is put through the door; the others are copies of its
row, made with plain SQL, because the door's pace is not what is measured here. Every page is asked `repeats` times, in
turn, over a connection that stays open.
"""

import http.client
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.vault import fill, opened
from keepless.app.compose import Deployment
from keepless.clock import DAY_MS
from keepless.config import Endpoint
from keepless.ids import Id, Prefix, mint, trusted
from keepless.policy.data_class import DataClass
from keepless.policy.hold import HoldAuthority, HoldReason
from keepless.receipts.statement import Entry, EntryKind
from keepless.usage.daily import Daily
from keepless.usage.ledger import Ledger
from keepless.usage.record import Record
from keepless.usage.tables import usage
from keepless.vault.tables import kept, kept_day, kept_total, legal_hold

__all__ = ["pages"]

_PAGES = (
    "/",
    "/controls",
    "/controls/review?zero_data_retention=on",
    "/kept",
    "/kept?held=yes",
    "/kept?held=no",
    "/kept?class=batch_input",
    "/receipts",
    "/captures",
    "/cases",
    "/holds",
    "/usage",
    "/usage?days=90&by=key",
    "/audit",
    "/audit?type=organization.created",
    "/audit?from=2027-02-01&to=2027-09-01",
    "/audit?from=2027-02-01&to=2027-09-01&type=api_key.updated",
    "/files",
    "/batches",
    "/fine-tunings",
    "/projects",
    "/keys",
    "/members",
    "/location",
)
_AT_ONCE = 10_000
_KEYS = 8


def pages(stored: int, repeats: int) -> dict[str, object]:
    """Milliseconds (median, worst) and bytes of each page."""
    deployment, organization, project, secrets = opened("pages")
    began = time.monotonic()
    _keep(deployment, organization, project, stored)
    _log(deployment, organization, stored // 5)
    _use(deployment, organization, project, stored)
    folder = Path(deployment.settings.data_dir)
    deployment.close()
    print(f"filled in {time.monotonic() - began:.0f} s", file=sys.stderr)
    found = _asked(folder, secrets["admin_key"], repeats)
    shutil.rmtree(folder, ignore_errors=True)
    worst = max(found.values(), key=lambda one: one["median_ms"])
    return {"stored": stored, "repeats": repeats, "load": os.getloadavg()[0], "slowest": worst, "pages": found}


def _keep(d: Deployment, organization: Id, project: Id, stored: int) -> None:
    fill(d, organization, project, 1, ends_in_s=29 * 86_400)
    span = 28 * DAY_MS
    made = {
        "id": "'obj_' || printf('%024d', n)",
        "blob": "'blob_' || printf('%024d', n)",
        "created_at": f"created_at - (n * 7919 % {span})",
        "expires_at": f"expires_at - (n * 7919 % {span})",
    }
    columns = ", ".join(column.name for column in kept.c)
    values = ", ".join(made.get(column.name, column.name) for column in kept.c)
    many = f"WITH RECURSIVE many(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM many WHERE n < {stored - 1})"
    day = "SELECT organization_id, project_id, data_class, created_at / 86400000, expires_at / 86400000, count(*)"
    with d.db.write() as tx:
        one = tx.execute(sa.select(kept.c.id)).scalar_one()
        tx.exec_driver_sql(f"{many} INSERT INTO kept ({columns}) SELECT {values} FROM many, kept WHERE id = ?", (one,))
        tx.execute(kept_total.update().values(objects=stored, bytes=kept_total.c.bytes * stored))
        tx.execute(kept_day.delete())
        tx.exec_driver_sql(f"INSERT INTO kept_day {day} FROM kept GROUP BY 1, 2, 3, 4, 5")
        hold: dict[str, Any] = {
            "organization_id": organization,
            "reason": HoldReason.LITIGATION,
            "authority": HoldAuthority.COUNSEL,
        }
        hold |= {"reference": "1", "placed_by": mint(Prefix.OPERATOR_KEY), "placed_at": 1, "review_at": 2}
        for scope in ({"object_id": one}, {"data_class": DataClass.BATCH_INPUT}, {"created_to": 1}):
            tx.execute(legal_hold.insert().values(hold | {"id": mint(Prefix.HOLD)} | scope))


def _log(d: Deployment, organization: Id, entries: int) -> None:
    step = 2 * 365 * DAY_MS // entries
    born = d.clock.now_ms()
    for first in range(0, entries, _AT_ONCE):
        kind = EntryKind.LIMITS_CHANGED if first < entries // 2 else EntryKind.HOLD_PLACED
        numbers = range(first, min(first + _AT_ONCE, entries))
        with d.db.write() as tx:
            d.log.append(tx, [Entry(kind, born + at * step, organization) for at in numbers])


def _use(d: Deployment, organization: Id, project: Id, requests: int) -> None:
    ledger, now_ms = Ledger(d.db), d.clock.now_ms()
    for _ in range(_KEYS):
        whose: dict[str, Any] = {"organization_id": organization, "project_id": project, "key_id": mint(Prefix.API_KEY)}
        whose |= {"model": trusted("model"), "endpoint": Endpoint.CHAT, "request_id": mint(Prefix.REQUEST)}
        ledger.add(Record(at_ms=now_ms, status=200, prompt_tokens=10, completion_tokens=20, latency_us=1, **whose))
    ledger.close()
    columns = [column.name for column in usage.c if column.name != "id"]
    made = {
        "request_id": "'req_' || printf('%024d', n)",
        "kind_id": f"1 + n % {_KEYS}",
        "at": f"at - (n * 7919 % {90 * DAY_MS})",
        "latency_us": "1000 + n * 7919 % 900000",
    }
    many = f"WITH RECURSIVE many(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM many WHERE n < {requests})"
    values = ", ".join(made.get(name, name) for name in columns)
    with d.db.write() as tx:
        tx.exec_driver_sql(
            f"{many} INSERT INTO usage ({', '.join(columns)}) SELECT {values} FROM many, usage WHERE id = 1"
        )
    Daily(d.db, d.clock).roll()  # as housekeeping does every half minute


def _asked(folder: Path, key: str, repeats: int) -> dict[str, dict[str, float]]:
    command = [sys.executable, "-m", "keepless", "serve", "--json", "--port", "0", "--no-worker"]
    process = subprocess.Popen(
        [*command, "--data-dir", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        if process.stdout is None:
            raise RuntimeError("the server says nothing")
        port = int(json.loads(process.stdout.readline())["url"].rpartition(":")[2])
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        headers = {"authorization": f"Bearer {key}", "accept": "text/html"}
        taken: dict[str, list[float]] = {path: [] for path in _PAGES}
        sizes: dict[str, int] = {}
        for turn in range(repeats + 1):
            for path in _PAGES:
                began = time.monotonic()
                line.request("GET", path, headers=headers)
                answer = line.getresponse()
                body = answer.read()
                if answer.status != 200:
                    raise RuntimeError(f"{path} answers {answer.status}")
                if turn:  # what a first page compiles and reads once is not measured
                    taken[path].append((time.monotonic() - began) * 1000)
                sizes[path] = len(body)
        line.close()
    finally:
        process.terminate()
        process.wait()
    return {
        path: {
            "median_ms": round(statistics.median(times), 1),
            "worst_ms": round(max(times), 1),
            "bytes": sizes[path],
        }
        for path, times in taken.items()
    }
