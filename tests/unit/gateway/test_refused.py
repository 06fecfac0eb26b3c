"""The row of a request that the server itself refused."""

from typing import cast

from keepless.errors import Code, Problem
from keepless.gateway.refused import on_refused
from keepless.ids import Prefix, mint
from keepless.usage.ledger import Ledger
from keepless.usage.record import Endpoint, Phase, Record
from tests.support.clock import FakeClock


class List(list[Record]):
    def add(self, record: Record) -> None:
        self.append(record)


def test_a_row_with_nothing_but_numbers() -> None:
    rows, clock, request_id = List(), FakeClock(), mint(Prefix.REQUEST)
    on_refused(cast("Ledger", rows), clock)(Problem(400, Code.BAD_HTTP, "no"), request_id, 17)
    (row,) = rows
    assert (row.request_id, row.status, row.code, row.bytes_in) == (request_id, 400, Code.BAD_HTTP, 17)
    assert (row.endpoint, row.organization_id, row.at_ms) == (Endpoint.OTHER, None, clock.now_ms())
    assert row.sketch is not None
    assert row.sketch.phase is Phase.HEAD
