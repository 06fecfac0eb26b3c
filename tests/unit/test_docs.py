"""Documents that are generated from code are what the code says; links and named files exist."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from keepless.admin.matrix import ENDPOINTS
from keepless.admin.unserved import UNSERVED
from keepless.policy.schedule import SCHEDULE
from tests.support.golden import ROOT, assert_golden
from tests.support.openai_admin import plain, surface

PROMISES = """# Promises

Generated from `src/keepless/policy/schedule.py`, the table that the running code decides by (`make docs`). The same
rows are in `GET /v1/organization/data_controls`.

**Usage metadata** is always recorded: who, when, endpoint, model, counts, latency, status, error code. It never holds
inputs or outputs; every column is a number, an instant, a closed list or an id that Keepless minted.

**Customer data** is kept only in these cases, encrypted, with an end:

{schedule}

"At most" is a ceiling: an owner may shorten each period, nobody can lengthen it. A legal hold stops purging what
already exists, never starts collection, and is always visible to the owner. Expired means not served from that instant;
purged means destroyed by the next sweep, with a receipt.

## How far each claim goes
L0 promised · L1 enforced and tested · L2 tamper-evident to outsiders · L3 attested build

{claims}
"""

CLAIMS = (
    (
        "inference is not kept by default",
        "L1",
        "`decide()` over its full product, the canary tests, `keepless prove`",
    ),
    (
        "after a control is turned off nothing older is kept, routed or accepted",
        "L1",
        "the fence tests: threads, processes and kills, on SQLite and PostgreSQL",
    ),
    (
        "an expired object is not served and is destroyed by the next sweep",
        "L1",
        "the lifecycle property test, with crashes between any two steps",
    ),
    (
        "what files and batches hold is kept encrypted, only while the feature needs it, and each line is told once",
        "L1",
        "`keepless prove` through kill, expiry, deletion and turning off; the property test of batch states",
    ),
    (
        "a deletion was recorded, and when its key was destroyed",
        "L2",
        "receipts in the Merkle log, verified offline by `keepless verify`",
    ),
    ("the operator runs this very code", "L0", "no attestation yet"),
)


def table(*rows: Sequence[str]) -> str:
    """A Markdown table; the first row is its head."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def quoted(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def test_promises_are_the_schedule() -> None:
    schedule = table(
        ("product", "endpoints", "data class", "why it is kept", "kept for", "under ZDR"),
        *(
            (row.product, quoted(row.endpoints), quoted(row.classes), row.why, row.kept_for, row.under_zdr)
            for row in SCHEDULE
        ),
    )
    claims = table(("claim", "level", "evidence"), *CLAIMS)
    assert_golden("docs/promises.md", PROMISES.format(schedule=schedule, claims=claims))


MARK = "<!-- From here on written from the routes by `make docs`. -->"
SURFACE = """{before}{mark}

## The admin part of OpenAI's client, method by method

`client.admin.organization` of openai 3.54 has {all} methods. {served} of them are served, unchanged; each other one
answers 404 `unknown_url` with the reason below. `tests/unit/admin/test_openai_surface.py` calls every one of them.

### Served

{works}

### Not served

{refused}
"""


def test_divergences_name_every_method_of_openais_admin_client() -> None:
    served = {(endpoint.method, plain(endpoint.path)): endpoint.path for endpoint in ENDPOINTS}
    words = {(method, plain(path)): why for (method, path), why in UNSERVED.items()}
    works = [(f"`{name}`", f"`{route[0]} {served[route]}`") for name, route in surface().items() if route in served]
    why = {
        text: [name for name, route in surface().items() if words.get(route) == text]
        for text in dict.fromkeys(UNSERVED.values())
    }
    before, _, _ = (ROOT / "docs/divergences.md").read_text().partition(MARK)
    text = SURFACE.format(
        before=before,
        mark=MARK,
        all=len(surface()),
        served=len(works),
        works=table(("method", "route below `/v1`"), *works),
        refused=table(("methods", "why"), *((quoted(names), text) for text, names in why.items())),
    )
    assert_golden("docs/divergences.md", text)


def documents() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])


@pytest.mark.parametrize("document", documents(), ids=lambda p: str(p.relative_to(ROOT)))
def test_links_and_named_files_exist(document: Path) -> None:
    text = document.read_text()
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    named = re.findall(r"`((?:src|tests|docs|lint|benchmarks|requirements|examples)/[\w./-]+)`", text)
    missing = [link for link in links if not (document.parent / link).exists()]
    missing += [name for name in named if not (ROOT / name).exists()]
    tests = re.findall(r"`((?:tests)/[\w./-]+\.py)::(\w+)`", text)
    missing += [f"{file}::{name}" for file, name in tests if f"def {name}(" not in (ROOT / file).read_text()]
    assert not missing
