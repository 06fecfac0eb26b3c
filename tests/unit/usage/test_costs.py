"""Money: prices a model, line items, and no price at all, on both databases."""

from typing import Any

import msgspec
import pytest

from keepless.config import Endpoint, ModelConfig
from keepless.db import Database
from keepless.errors import Problem
from keepless.ids import Id, Prefix, mint
from keepless.usage.costs import Prices, costs
from keepless.usage.sums import Group, UsageQuestion
from tests.support.usage import MODEL, ORGANIZATION, PROJECT, record
from tests.unit.usage.test_results import DAY, START, write

PRICES = Prices(
    [
        ModelConfig(id=MODEL, input_price=0.1, output_price=0.3),
        ModelConfig(id="flite", character_price=15),
        ModelConfig(id="whisper", audio_hour_price=0.36),
    ]
)
ASKED = UsageQuestion(ORGANIZATION, START, START + DAY)


def ask(database: Database, asked: UsageQuestion = ASKED, **how: Any) -> list[dict[str, Any]]:
    page = costs(database, asked, PRICES, by_line=how.pop("by_line", False), **how)
    return [one for bucket in msgspec.to_builtins(page, enc_hook=str)["data"] for one in bucket["results"]]


def use(database: Database) -> Id:
    other = mint(Prefix.PROJECT)
    write(
        database,
        record(START, prompt_tokens=1_000_000, completion_tokens=2_000_000),
        record(START, prompt_tokens=500_000, completion_tokens=0, endpoint=Endpoint.EMBEDDINGS, project_id=other),
        record(START, model=Id("flite"), endpoint=Endpoint.SPEECH, prompt_tokens=2_000, completion_tokens=0),
        record(
            START,
            model=Id("whisper"),
            endpoint=Endpoint.TRANSCRIPTIONS,
            prompt_tokens=0,
            completion_tokens=0,
            audio_ms=600_000,
        ),
        record(START, model=Id("forgotten")),
        record(START, organization_id=mint(Prefix.ORGANIZATION)),
    )
    return other


def test_the_sum_of_a_day_without_binary_dust(database: Database) -> None:
    use(database)
    (whole,) = ask(database)
    assert whole["amount"] == {"value": 0.84, "currency": "usd"}  # 0.1 + 0.6 + 0.05 + 0.03 + 0.06
    assert (whole["object"], whole["line_item"], whole["quantity"]) == ("organization.costs.result", None, None)


def test_line_items_say_what_was_counted(database: Database) -> None:
    use(database)
    found = {
        one["line_item"]: (one["amount"]["value"], one["quantity"], one["quantity_unit"])
        for one in ask(database, by_line=True)
    }
    assert found == {
        f"{MODEL}, input": (0.15, 1_500_000.0, "tokens"),
        f"{MODEL}, output": (0.6, 2_000_000.0, "tokens"),
        "flite, characters": (0.03, 2_000.0, "characters"),
        "whisper, audio": (0.06, 600.0, "duration_seconds"),
        "forgotten, input": (0.0, 10.0, "tokens"),
        "forgotten, output": (0.0, 5.0, "tokens"),
    }
    (only,) = ask(database, by_line=True, lines=["whisper, audio"])
    assert only["amount"]["value"] == 0.06
    assert ask(database, lines=["MARKER"]) == []


def test_by_project_and_filtered(database: Database) -> None:
    other = use(database)
    by_project = UsageQuestion(ORGANIZATION, START, START + DAY, group_by=frozenset({Group.PROJECT}))
    found = {one["project_id"]: one["amount"]["value"] for one in ask(database, by_project)}
    assert found == {PROJECT: 0.79, other: 0.05}
    (one,) = ask(database, UsageQuestion(ORGANIZATION, START, START + DAY, project_ids=(other,)))
    assert one["amount"]["value"] == 0.05


def test_as_many_days_on_a_page_as_openai_has(database: Database) -> None:
    span = UsageQuestion(ORGANIZATION, START, START + 200 * DAY, limit=180)
    assert len(costs(database, span, PRICES, by_line=False).data) == 180
    with pytest.raises(Problem):
        ask(database, UsageQuestion(ORGANIZATION, START, START + 200 * DAY, limit=181))


def test_a_tuned_model_costs_what_its_base_does() -> None:
    assert PRICES.of(f"ft:{MODEL}:0123456789ab") == PRICES.of(MODEL) != PRICES.of("forgotten")
    assert PRICES.of("ft:forgotten:0123456789ab") == PRICES.of("forgotten")
