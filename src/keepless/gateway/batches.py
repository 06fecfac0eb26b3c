"""`/batches` for both SDKs: create, retrieve, list, cancel.

Holds: `routes`. Leaves out: what a batch is (batches), running it (jobs), what may be asked (batch_order), the JSON
(batch_shape). The order of the refusals: key (401), lease (503), feature (403), privacy switches and parameters (400),
what is named (404). Everything that blocks runs in a worker thread.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from keepless.accounts.lease import Lease
from keepless.accounts.principal import Principal
from keepless.batches.book import Book
from keepless.batches.values import Batch, LineError
from keepless.clock import Clock
from keepless.config import Endpoint
from keepless.content import Purpose
from keepless.errors import Code, ErrorType, Problem
from keepless.gateway.batch_order import order_of, page_of
from keepless.gateway.batch_shape import listing_of, shape_of
from keepless.gateway.json_body import decode_object
from keepless.gateway.orders import json_answer, repeat_key_of, whole_body
from keepless.gateway.recorded import Call, Handler, Recorded, in_thread
from keepless.gateway.switches import combined, from_body
from keepless.ids import Id, Prefix, parse
from keepless.policy.controls import NO_REQUEST, RequestControls
from keepless.policy.data_class import Feature
from keepless.policy.refusal import feature_disabled
from keepless.usage.ledger import Ledger

__all__ = ["routes"]

_BASES: Final = ("/v1", "/openai/v1")


def routes(lease: Lease, book: Book, ledger: Ledger, clock: Clock, *, json_depth: int) -> Sequence[BaseRoute]:
    """The routes, below both bases."""
    calls = _Calls(lease, book, clock, json_depth)
    paths: dict[str, dict[str, Handler]] = {
        "/batches": {"GET": calls.index, "POST": calls.create},
        "/batches/{id}": {"GET": calls.one},
        "/batches/{id}/cancel": {"POST": calls.cancel},
    }
    return [
        Route(base + path, Recorded(Endpoint.BATCHES, handlers, lease=lease, ledger=ledger, clock=clock))
        for base in _BASES
        for path, handlers in paths.items()
    ]


class _Calls:
    def __init__(self, lease: Lease, book: Book, clock: Clock, json_depth: int) -> None:
        self._lease: Final = lease
        self._book: Final = book
        self._clock: Final = clock
        self._json_depth: Final = json_depth

    async def create(self, call: Call) -> Response:
        caller, request = self._caller(call), call.request
        body = decode_object(await whole_body(request), self._json_depth)[0]
        _no_conflict(combined(call.controls, from_body(body)))
        order = order_of(body, repeat_key_of(request))
        batch, call.kept = await in_thread(lambda: self._book.create(caller, order, call.request_id))
        return await self._answer(batch, [])

    async def index(self, call: Call) -> Response:
        caller, asked = self._caller(call), page_of(call.request.scope["query_string"])

        def page() -> list[dict[str, Any]]:
            if asked.nothing:
                return []
            found = self._book.listing(caller.project.id, limit=asked.limit + 1, after=asked.after, ids=asked.ids)
            return [self._shape(*one) for one in found]

        shapes = await in_thread(page)
        return json_answer(listing_of(shapes[: asked.limit], more=len(shapes) > asked.limit))

    async def one(self, call: Call) -> Response:
        return await self._named(call, self._book.get)

    async def cancel(self, call: Call) -> Response:
        return await self._named(call, self._book.cancel)

    async def _named(self, call: Call, act: Callable[[Id, Id | None], tuple[Batch, list[LineError]]]) -> Response:
        caller, batch_id = self._caller(call), parse(call.request.path_params["id"], Prefix.BATCH)
        return await self._answer(*await in_thread(lambda: act(caller.project.id, batch_id)))

    def _caller(self, call: Call) -> Principal:
        caller = call.caller.principal
        if caller is None or not self._lease.valid:
            raise Problem(
                503,
                Code.POLICY_UNREADABLE,
                "The policy cannot be read at the moment, and without it nothing is kept.",
                type=ErrorType.SERVER,
                retry=False,
            )
        effective = caller.project.effective
        if Feature.BATCH not in effective.on:
            raise feature_disabled(Feature.BATCH, effective.feature_source[Feature.BATCH])
        return caller

    async def _answer(self, batch: Batch, errors: list[LineError]) -> Response:
        return json_answer(await in_thread(lambda: self._shape(batch, errors)))

    def _shape(self, batch: Batch, errors: list[LineError]) -> dict[str, Any]:
        metadata = self._book.metadata(batch)
        told = None if metadata is None else metadata.reveal(Purpose.CUSTOMER)
        return shape_of(batch, errors, told, self._clock.now_ms())


def _no_conflict(asked: RequestControls) -> None:
    if asked != NO_REQUEST:
        raise Problem(
            400,
            Code.RETENTION_CONFLICT,
            "A batch keeps its input and its results; a request that forbids keeping cannot have one.",
            retry=False,
        )
