"""Sums in buckets of time, as `usage/completions` tells them, on both databases."""

from typing import Any

import msgspec
import pytest

from keepless.db import Database
from keepless.errors import Code, Problem
from keepless.ids import Id, Prefix, mint
from keepless.usage.ledger import Ledger
from keepless.usage.record import Endpoint, Record
from keepless.usage.results import completions
from keepless.usage.sums import Group, UsageQuestion, Width
from tests.support.usage import KEY, MODEL, ORGANIZATION, PROJECT, record

DAY = 86_400_000
START = 20_000 * DAY
OTHER = mint(Prefix.ORGANIZATION)


def write(database: Database, *records: Record, max_rows: int = 1000) -> None:
    ledger = Ledger(database, max_rows=max_rows)
    for each in records:
        ledger.add(each)
    assert ledger.flush()


def ask(database: Database, **values: Any) -> list[tuple[int, list[tuple[Any, ...]]]]:
    defaults: dict[str, Any] = {"organization_id": ORGANIZATION, "start_ms": START, "end_ms": START + 3 * DAY}
    page = completions(database, UsageQuestion(**(defaults | values)))
    return [
        (
            bucket.start_time * 1000 - START,
            [
                (r.num_model_requests, r.input_tokens, r.output_tokens, r.project_id, r.api_key_id, r.model, r.batch)
                for r in bucket.results
            ],
        )
        for bucket in page.data
    ]


SUM = (None, None, None, None)


def test_sums_by_day_with_empty_days_between(database: Database) -> None:
    write(database, record(START), record(START + DAY - 1), record(START + 2 * DAY), record(START + 3 * DAY))
    assert ask(database) == [
        (0, [(2, 20, 10, *SUM)]),
        (DAY, []),
        (2 * DAY, [(1, 10, 5, *SUM)]),
    ]


def test_only_this_organization_only_completions_only_what_was_answered(database: Database) -> None:
    write(
        database,
        record(START),
        record(START, organization_id=OTHER),
        record(START, endpoint=Endpoint.EMBEDDINGS),
        record(START, status=400, code=Code.INVALID_JSON, prompt_tokens=0, completion_tokens=0),
        record(START, status=404, model=None, code=Code.MODEL_NOT_FOUND),
        record(START, status=502, code=Code.UPSTREAM_CUT, prompt_tokens=10, completion_tokens=1),
    )
    assert ask(database, end_ms=START + DAY) == [(0, [(2, 20, 6, *SUM)])]


def test_grouped_and_filtered(database: Database) -> None:
    other_project, other_key, other_model = mint(Prefix.PROJECT), mint(Prefix.API_KEY), Id("zz")
    write(
        database,
        record(START),
        record(START, project_id=other_project),
        record(START, key_id=other_key),
        record(START, model=other_model),
    )
    end = START + DAY
    by_model = ask(database, end_ms=end, group_by=frozenset({Group.MODEL, Group.BATCH}))
    assert by_model == [
        (0, [(3, 30, 15, None, None, MODEL, False), (1, 10, 5, None, None, other_model, False)]),
    ]
    [(_, by_all)] = ask(database, end_ms=end, group_by=frozenset(Group))
    assert sorted(row[3:6] for row in by_all) == sorted(
        [
            (PROJECT, KEY, MODEL),
            (other_project, KEY, MODEL),
            (PROJECT, other_key, MODEL),
            (PROJECT, KEY, other_model),
        ]
    )
    assert ask(database, end_ms=end, project_ids=(other_project,)) == [(0, [(1, 10, 5, *SUM)])]
    assert ask(database, end_ms=end, key_ids=(KEY,)) == [(0, [(3, 30, 15, *SUM)])]
    assert ask(database, end_ms=end, models=(MODEL,)) == [(0, [(3, 30, 15, *SUM)])]
    assert ask(database, end_ms=end, models=("x' OR 1=1 --",)) == [(0, [])]
    assert ask(database, end_ms=end, batch=False) == [(0, [(4, 40, 20, *SUM)])]
    assert ask(database, end_ms=end, batch=True) == [(0, [])]


def test_lines_of_batches_are_told_apart(database: Database) -> None:
    write(database, record(START), record(START, batch=True), record(START, batch=True))
    write(database, record(START), max_rows=0)  # of this one only a sum remains: nobody knows what it was
    end = START + DAY
    assert ask(database, end_ms=end, batch=True) == [(0, [(2, 20, 10, *SUM)])]
    assert ask(database, end_ms=end, batch=False) == [(0, [(1, 10, 5, *SUM)])]
    grouped = [
        (batch, number) for number, *_, batch in ask(database, end_ms=end, group_by=frozenset({Group.BATCH}))[0][1]
    ]
    assert sorted(grouped, key=str) == [(False, 1), (None, 1), (True, 2)]


def test_requests_of_which_only_sums_remain_are_counted(database: Database) -> None:
    write(database, record(START), record(START), record(START + 1), max_rows=1)
    end = START + DAY
    assert ask(database, end_ms=end) == [(0, [(3, 30, 15, *SUM)])]
    assert ask(database, end_ms=end, group_by=frozenset({Group.PROJECT})) == [
        (0, [(2, 20, 10, *SUM), (1, 10, 5, PROJECT, None, None, None)]),
    ]
    assert ask(database, end_ms=end, project_ids=(PROJECT,)) == [(0, [(1, 10, 5, *SUM)])]


def test_pages_go_on_where_the_last_one_ended(database: Database) -> None:
    write(database, *(record(START + hour * 3_600_000) for hour in range(30)))
    asked = UsageQuestion(ORGANIZATION, START + 1000, START + 30 * 3_600_000, Width.HOUR)
    first = completions(database, asked)
    assert (len(first.data), first.has_more) == (24, True)
    assert first.data[0].start_time * 1000 == START
    assert first.data[0].results == []  # its only request came before the start that was asked for
    second = completions(database, UsageQuestion(ORGANIZATION, START, asked.end_ms, Width.HOUR, page=first.next_page))
    assert (len(second.data), second.has_more, second.next_page) == (6, False, None)
    assert second.data[0].start_time == first.data[-1].end_time
    assert sum(bucket.results[0].num_model_requests for bucket in second.data) == 6


def test_the_shape_is_openais(database: Database) -> None:
    write(database, record(START))
    page = completions(database, UsageQuestion(ORGANIZATION, START, START + 60_000, Width.MINUTE))
    assert msgspec.to_builtins(page) == {
        "object": "page",
        "has_more": False,
        "next_page": None,
        "data": [
            {
                "object": "bucket",
                "start_time": START // 1000,
                "end_time": START // 1000 + 60,
                "results": [
                    {
                        "object": "organization.usage.completions.result",
                        "input_tokens": 10,
                        "output_tokens": 5,
                        "input_cached_tokens": 1,
                        "input_audio_tokens": 0,
                        "output_audio_tokens": 0,
                        "num_model_requests": 1,
                        "project_id": None,
                        "user_id": None,
                        "api_key_id": None,
                        "model": None,
                        "batch": None,
                        "service_tier": None,
                        "api_source": None,
                    }
                ],
            }
        ],
    }


@pytest.mark.parametrize("page", ["", "page_", "page_-1", "page_x", "x", "page_1e9", "page_\u0661", "page_" + "9" * 40])
def test_a_page_that_there_is_not_is_400_without_an_echo(database: Database, page: str) -> None:
    with pytest.raises(Problem) as caught:
        ask(database, page=page)
    assert (caught.value.status, caught.value.param) == (400, "page")
    assert not page or page not in caught.value.message.split()


@pytest.mark.parametrize(("width", "limit"), [(Width.DAY, 0), (Width.DAY, 32), (Width.HOUR, 169), (Width.MINUTE, 1441)])
def test_a_limit_out_of_bounds_is_400(database: Database, width: Width, limit: int) -> None:
    with pytest.raises(Problem):
        ask(database, width=width, limit=limit)


def test_an_empty_span_has_no_bucket(database: Database) -> None:
    assert ask(database, end_ms=START) == []
    assert ask(database, end_ms=START - DAY) == []
