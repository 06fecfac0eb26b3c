"""What may be asked of batches, and what is told of the rest, without an echo."""

import json
from typing import Any

import pytest

from keepless.batches.values import BatchEndpoint
from keepless.clock import DAY_MS
from keepless.content import Purpose
from keepless.errors import Problem
from keepless.gateway.batch_order import Listed, order_of, page_of, window_text
from keepless.ids import Prefix, mint

HOUR_MS = 3_600_000
FILE = str(mint(Prefix.FILE))
GOOD: dict[str, Any] = {"input_file_id": FILE, "endpoint": "/v1/chat/completions", "completion_window": "24h"}


def refused(body: dict[str, Any]) -> Problem:
    with pytest.raises(Problem) as problem:
        order_of(body, None)
    assert problem.value.status == 400
    assert "MARKER" not in problem.value.message
    return problem.value


def test_the_least_and_the_most() -> None:
    least = order_of(GOOD, None)
    assert (least.endpoint, least.input_file_id, least.window_ms) == (BatchEndpoint.CHAT, FILE, DAY_MS)
    assert (least.metadata, least.output_life_ms, least.repeat_key) == (None, None, None)
    told = {f"{n:064}": "v" * 512 for n in range(16)}
    most = order_of(
        {**GOOD, "metadata": told, "output_expires_after": {"anchor": "created_at", "seconds": 3600}}, b"again"
    )
    assert most.metadata is not None
    assert json.loads(most.metadata.reveal(Purpose.CUSTOMER)) == told
    assert (most.output_life_ms, most.repeat_key) == (HOUR_MS, b"again")


@pytest.mark.parametrize("endpoint", BatchEndpoint)
def test_every_endpoint(endpoint: BatchEndpoint) -> None:
    assert order_of({**GOOD, "endpoint": endpoint.value}, None).endpoint is endpoint


@pytest.mark.parametrize(
    ("text", "hours"), [("24h", 24), ("1d", 24), ("36h", 36), ("48h", 48), ("7d", 168), ("168h", 168)]
)
def test_windows_are_told_as_they_were_asked_for(text: str, hours: int) -> None:
    order = order_of({**GOOD, "completion_window": text}, None)
    told = window_text(order.window_ms, in_days=order.window_in_days)
    assert (order.window_ms, told) == (hours * HOUR_MS, text)


@pytest.mark.parametrize(
    "text", ["", "23h", "0d", "8d", "169h", "24", "24H", "1w", "24h ", "-1d", "024h", "٢٤h", "MARKER"]
)
def test_other_windows(text: str) -> None:
    assert refused({**GOOD, "completion_window": text}).param == "completion_window"


@pytest.mark.parametrize("name", GOOD)
def test_what_is_missing_or_of_another_type(name: str) -> None:
    assert refused({key: value for key, value in GOOD.items() if key != name}).param == name
    assert refused({**GOOD, name: None}).code.value == "missing_required_parameter"
    for value in (1, ["MARKER"], {"MARKER": 1}, True):
        problem = refused({**GOOD, name: value})
        assert (problem.param, problem.code.value) == (name, "invalid_type")


def test_other_endpoints_are_answered_with_those_there_are() -> None:
    problem = refused({**GOOD, "endpoint": "/v1/MARKER"})
    assert problem.param == "endpoint"
    assert all(endpoint.value in problem.message for endpoint in BatchEndpoint)


def test_what_cannot_be_a_files_id_is_looked_for_nowhere() -> None:
    for text in ("MARKER", "file-abc", str(mint(Prefix.BATCH)), ""):
        assert order_of({**GOOD, "input_file_id": text}, None).input_file_id is None


@pytest.mark.parametrize(
    "metadata",
    [
        [],
        "MARKER",
        {f"k{n}": "v" for n in range(17)},
        {"k" * 65: "v"},
        {"MARKER": "v" * 513},
        {"k": 1},
        {"k": None},
        {"k": {"MARKER": "x"}},
    ],
)
def test_other_metadata(metadata: object) -> None:
    assert refused({**GOOD, "metadata": metadata}).param == "metadata"


@pytest.mark.parametrize(
    "life",
    [
        1,
        "MARKER",
        {},
        {"anchor": "created_at"},
        {"anchor": "MARKER", "seconds": 3600},
        {"anchor": "created_at", "seconds": 3599},
        {"anchor": "created_at", "seconds": 2_592_001},
        {"anchor": "created_at", "seconds": "3600"},
        {"anchor": "created_at", "seconds": True},
        {"anchor": "created_at", "seconds": 3600, "MARKER": 1},
    ],
)
def test_other_ends_of_outputs(life: object) -> None:
    assert refused({**GOOD, "output_expires_after": life}).param == "output_expires_after"


def test_what_is_not_known_is_not_ignored() -> None:
    assert refused({**GOOD, "MARKER": 1}).code.value == "unknown_parameter"


def test_pages() -> None:
    one, two = mint(Prefix.BATCH), mint(Prefix.BATCH)
    assert page_of(b"") == Listed()
    assert page_of(f"limit=5&after={one}".encode()) == Listed(limit=5, after=one)
    assert page_of(f"cursor={one}".encode()) == Listed(after=one)
    for query in (f"id={one}&id={two}", f"id={one},{two}", f"id={one}%2C{two}", f"id[]={one}&ids[]={two}"):
        assert page_of(query.encode()).ids == (one, two)
    assert page_of(f"id={one},file-x".encode()).ids == (one,)
    assert page_of(b"id=MARKER").nothing
    assert page_of(b"after=MARKER").nothing
    assert page_of(b"after=") == Listed()


@pytest.mark.parametrize(
    "query",
    [
        b"limit=0",
        b"limit=101",
        b"limit=x",
        b"limit=%D9%A2",
        b"limit=5&limit=6",
        b"MARKER=1",
        b"id=%FF",
        b"id=" + b",".join([b"batch_x"] * 201),
        b"\xff",
        b"&".join([b"id=a"] * 300),
    ],
)
def test_other_pages(query: bytes) -> None:
    with pytest.raises(Problem) as problem:
        page_of(query)
    assert problem.value.status == 400
    assert "MARKER" not in problem.value.message
