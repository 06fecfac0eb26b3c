"""Calls that ask no model: one row each whatever becomes of them, stores that fail told as 503, places that run out."""

import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, cast

import pytest
import sqlalchemy as sa
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from keepless.accounts.lease import Lease
from keepless.clock import SystemClock
from keepless.config import Endpoint
from keepless.errors import Code, Problem
from keepless.gateway.recorded import Call, Places, Recorded, in_thread
from keepless.http import problems
from keepless.ids import Prefix, mint
from keepless.usage.ledger import Ledger
from keepless.usage.record import Outcome, Record
from keepless.vault.errors import StaleEpochError, StoreFailedError
from tests.support.asgi import Answer, call
from tests.support.way import KEY, ORGANIZATION, FakeLease

MARKER = "MARKER-of-a-customer"


class Rows(list[Record]):
    def add(self, record: Record) -> None:
        self.append(record)


@pytest.fixture
def rows() -> Iterator[Rows]:
    return Rows()


def ask(rows: Rows, act: Callable[[Call], Awaitable[Response]], *, key: str = KEY, method: str = "POST") -> Answer:
    endpoint = Recorded(
        Endpoint.FILES,
        {"POST": act},
        lease=cast("Lease", FakeLease()),
        ledger=cast("Ledger", rows),
        clock=SystemClock(),
    )

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope[problems.REQUEST_ID] = mint(Prefix.REQUEST)
        await Starlette(routes=[Route("/v1/files", endpoint)])(scope, receive, send)

    return call(cast("Any", app), method, "/v1/files", {"authorization": f"Bearer {key}"}, b"body")


def test_an_answer_leaves_one_row_with_who_and_how_much(rows: Rows) -> None:
    async def act(it: Call) -> Response:
        assert await it.request.body() == b"body"
        return JSONResponse({"done": await in_thread(lambda: True)})

    answer = ask(rows, act)
    (row,) = rows
    assert (answer.status, json.loads(answer.body)) == (200, {"done": True})
    assert (row.status, row.endpoint, row.organization_id, row.code) == (200, Endpoint.FILES, ORGANIZATION, None)
    assert (row.bytes_in, row.bytes_out, row.outcome) == (4, len(answer.body), Outcome.NONE)


def test_a_wrong_key_leaves_a_row_of_nobody(rows: Rows) -> None:
    async def act(_: Call) -> Response:
        raise AssertionError

    answer = ask(rows, act, key=MARKER)
    (row,) = rows
    assert (answer.status, row.status, row.organization_id, row.key_id) == (401, 401, None, None)
    assert MARKER.encode() not in answer.body


@pytest.mark.parametrize(
    "error",
    [
        StoreFailedError("x"),
        StaleEpochError("x"),
        sa.exc.OperationalError(f"INSERT '{MARKER}'", {"name": MARKER}, OSError(MARKER)),
    ],
    ids=["store", "epoch", "database"],
)
def test_a_store_that_fails_is_told_as_503_and_its_text_stays_inside(
    error: Exception, rows: Rows, capsys: pytest.CaptureFixture[str]
) -> None:
    async def act(_: Call) -> Response:
        raise error

    answer = ask(rows, act)
    (row,) = rows
    assert (answer.status, row.status, row.code) == (503, 503, Code.STORE_FAILED)
    said = capsys.readouterr()
    assert MARKER not in answer.body.decode() + said.out + said.err


def test_a_client_that_leaves_is_499(rows: Rows) -> None:
    async def act(_: Call) -> Response:
        raise ClientDisconnect

    with pytest.raises(IndexError):  # nothing was answered
        ask(rows, act)
    assert [(row.status, row.code) for row in rows] == [(499, Code.CLIENT_CLOSED)]


def test_a_fault_of_ours_is_recorded_and_goes_on_up(rows: Rows) -> None:
    async def act(_: Call) -> Response:
        raise ZeroDivisionError(MARKER)

    with pytest.raises(ZeroDivisionError):
        ask(rows, act)
    assert [(row.status, row.code) for row in rows] == [(500, Code.INTERNAL)]


def test_another_method_says_which_there_are(rows: Rows) -> None:
    async def act(_: Call) -> Response:
        raise AssertionError

    answer = ask(rows, act, method="PUT")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert rows == []


def test_places_run_out_and_come_back() -> None:
    places, one, two = Places(4), mint(Prefix.ORGANIZATION), mint(Prefix.ORGANIZATION)
    for _ in range(2):  # all come back
        with places.one(one), places.one(one), places.one(one):
            with pytest.raises(Problem) as refused, places.one(one):
                raise AssertionError  # the last quarter is for others
            assert (refused.value.status, refused.value.code) == (503, Code.OVERLOADED)
            with places.one(two), pytest.raises(Problem), places.one(two):
                raise AssertionError
    with Places(1).one(one):
        pass
