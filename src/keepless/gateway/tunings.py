"""Fine-tunings for both SDKs: Groq's `/fine_tunings`, OpenAI's `/fine_tuning/jobs`, and the end of a tuned model.

Holds: `routes`, `model_deletion`. Leaves out: what a fine-tuning is (tuning), training (jobs), what may be asked
(tuning_order), the JSON (tuning_shape), events as they come (tuning_events). The order of the refusals: key (401),
lease (503), feature (403), privacy switches and parameters (400), what is named (404). Everything that blocks runs in a
worker thread.

An owner's admin key may list, read and delete the fine-tunings of every project of the organization, also what a
feature that is off has left (DECISIONS 6); an API key sees those of its own project, while the feature is on.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from keepless.accounts.lease import Lease
from keepless.clock import Clock
from keepless.config import Endpoint
from keepless.content import Content, Purpose
from keepless.errors import Code, ErrorType, Problem
from keepless.gateway.json_body import decode_object
from keepless.gateway.orders import json_answer, repeat_key_of, whole_body
from keepless.gateway.recorded import Call, Caller, Handler, Recorded, in_thread
from keepless.gateway.switches import combined, from_body
from keepless.gateway.tuning_events import streamed
from keepless.gateway.tuning_order import order_of_job, order_of_tuning, page_of
from keepless.gateway.tuning_shape import (
    checkpoint_shape,
    curve_of,
    event_shape,
    job_id_of,
    job_shape,
    page_shape,
    tuning_id_of,
    tuning_shape,
)
from keepless.ids import Id, Prefix
from keepless.policy.controls import NO_REQUEST, RequestControls
from keepless.policy.data_class import Feature
from keepless.policy.refusal import feature_disabled
from keepless.tuning.book import Book, Order
from keepless.tuning.ending import Ending
from keepless.tuning.names import parse_name
from keepless.tuning.shown import Seen
from keepless.usage.ledger import Ledger

__all__ = ["model_deletion", "routes"]

_BASES: Final = ("/v1", "/openai/v1")
_OWNERS: Final = frozenset({"GET", "DELETE"})


def routes(
    lease: Lease, book: Book, ending: Ending, ledger: Ledger, clock: Clock, *, json_depth: int
) -> Sequence[BaseRoute]:
    """The routes, below both bases."""
    calls = _Calls(lease, book, ending, clock, json_depth)
    paths: dict[str, dict[str, Handler]] = {
        "/fine_tunings": {"GET": calls.tunings, "POST": calls.create_tuning},
        "/fine_tunings/{id}": {"GET": calls.tuning, "DELETE": calls.delete_tuning},
        "/fine_tuning/jobs": {"GET": calls.jobs, "POST": calls.create_job},
        "/fine_tuning/jobs/{id}": {"GET": calls.job},
        "/fine_tuning/jobs/{id}/cancel": {"POST": calls.cancel},
        "/fine_tuning/jobs/{id}/pause": {"POST": calls.pause},
        "/fine_tuning/jobs/{id}/resume": {"POST": calls.resume},
        "/fine_tuning/jobs/{id}/events": {"GET": calls.events},
        "/fine_tuning/jobs/{id}/checkpoints": {"GET": calls.checkpoints},
    }
    return [
        Route(
            base + path,
            Recorded(Endpoint.FINE_TUNINGS, handlers, lease=lease, ledger=ledger, clock=clock, owners=_OWNERS),
        )
        for base in _BASES
        for path, handlers in paths.items()
    ]


def model_deletion(lease: Lease, ending: Ending, ledger: Ledger, clock: Clock) -> ASGIApp:
    """What answers `DELETE /models/{model}`: only tuned models can be deleted."""
    calls = _Deletions(lease, ending)
    handlers: dict[str, Handler] = {"DELETE": calls.delete_model}
    return Recorded(Endpoint.FINE_TUNINGS, handlers, lease=lease, ledger=ledger, clock=clock, owners=_OWNERS)


class _Deletions:
    def __init__(self, lease: Lease, ending: Ending) -> None:
        self._lease: Final = lease
        self._ending: Final = ending

    async def delete_tuning(self, call: Call) -> Response:
        caller, job_id = self._demand(call), _id(call.request)
        done = await in_thread(lambda: self._ending.delete_job(job_id, caller.organization_id, caller.project_id))
        return json_answer({"id": tuning_id_of(done), "object": "fine_tuning", "deleted": True})

    async def delete_model(self, call: Call) -> Response:
        caller, sent = self._demand(call), call.request.path_params["model"]
        named = parse_name(sent)
        await in_thread(lambda: self._ending.delete_model(named, caller.organization_id, caller.project_id))
        return json_answer({"id": sent, "object": "model", "deleted": True})

    def _demand(self, call: Call) -> Caller:
        """The caller. Raises `Problem` 503 without a lease, 403 when the feature is off."""
        caller = call.caller
        if not self._lease.valid:
            raise Problem(
                503,
                Code.POLICY_UNREADABLE,
                "The policy cannot be read at the moment, and without it nothing is kept.",
                type=ErrorType.SERVER,
                retry=False,
            )
        principal = caller.principal
        if principal is not None and Feature.FINE_TUNING not in principal.project.effective.on:
            raise feature_disabled(Feature.FINE_TUNING, principal.project.effective.feature_source[Feature.FINE_TUNING])
        return caller


class _Calls(_Deletions):
    def __init__(self, lease: Lease, book: Book, ending: Ending, clock: Clock, json_depth: int) -> None:
        super().__init__(lease, ending)
        self._book: Final = book
        self._clock: Final = clock
        self._json_depth: Final = json_depth

    # --- create ------------------------------------------------------------------------------------------------------

    async def create_job(self, call: Call) -> Response:
        seen = await self._create(call, order_of_job)
        return json_answer(self._job(seen))

    async def create_tuning(self, call: Call) -> Response:
        seen = await self._create(call, order_of_tuning)
        return json_answer(self._tuning(seen))

    async def _create(self, call: Call, read: Callable[[dict[str, Any]], Order]) -> Seen:
        self._demand(call)
        _ = call.caller.project
        body = decode_object(await whole_body(call.request), self._json_depth)[0]
        _no_conflict(combined(call.controls, from_body(body)))
        order = replace(read(body), repeat_key=repeat_key_of(call.request))
        principal = call.caller.principal
        if principal is None:
            raise LookupError("an owner's key has been refused")
        seen, call.kept = await in_thread(lambda: self._book.create(principal, order, call.request_id))
        return seen

    # --- read --------------------------------------------------------------------------------------------------------

    async def jobs(self, call: Call) -> Response:
        seen, more = await self._page(call, Prefix.TUNING_JOB, searches=True)
        return json_answer(page_shape([self._job(one) for one in seen], more=more))

    async def tunings(self, call: Call) -> Response:
        seen, more = await self._page(call, Prefix.TUNED_MODEL)
        shapes = [tuning_shape(one.job, _told(one.name), one.faults, self._clock.now_ms()) for one in seen]
        return json_answer(page_shape(shapes, more=more))

    async def _page(self, call: Call, prefix: Prefix, *, searches: bool = False) -> tuple[list[Seen], bool]:
        caller = self._demand(call)
        asked = page_of(call.request.scope["query_string"], prefix, searches=searches)
        if asked.nothing:
            return [], False
        after = None if asked.after is None else job_id_of(asked.after)
        return await in_thread(
            lambda: self._book.page(
                caller.organization_id, caller.project_id, limit=asked.limit, after=after, wanted=asked.metadata
            )
        )

    async def job(self, call: Call) -> Response:
        seen = await self._named(call, self._book.get)
        curve = await in_thread(lambda: self._book.curve(seen.job))
        return json_answer(self._job(seen, curve_of(curve)))

    async def tuning(self, call: Call) -> Response:
        return json_answer(self._tuning(await self._named(call, self._book.get)))

    async def events(self, call: Call) -> Response:
        caller, job_id = self._demand(call), _id(call.request)
        own, below = caller.organization_id, caller.project_id
        asked = page_of(call.request.scope["query_string"], Prefix.TUNING_EVENT, streams=True)
        if asked.stream:
            return await streamed(
                lambda after: self._book.news(job_id, own, below, after), lambda: self._feature_on(caller)
            )
        found, more = await in_thread(
            lambda: self._book.events(job_id, own, below, limit=asked.limit, after=asked.after)
        )
        return json_answer(page_shape([] if asked.nothing else [event_shape(one) for one in found], more=more))

    async def checkpoints(self, call: Call) -> Response:
        caller, job_id = self._demand(call), _id(call.request)
        asked = page_of(call.request.scope["query_string"], Prefix.CHECKPOINT)
        seen, found = await in_thread(lambda: self._book.checkpoints(job_id, caller.organization_id, caller.project_id))
        if asked.after is not None or asked.nothing:
            places = [one.id for one in found]
            found = found[places.index(asked.after) + 1 :] if asked.after in places else []
        shapes = [checkpoint_shape(one, seen.job, _told(seen.name)) for one in found[: asked.limit]]
        return json_answer(page_shape(shapes, more=len(found) > asked.limit))

    # --- change ------------------------------------------------------------------------------------------------------

    async def cancel(self, call: Call) -> Response:
        return json_answer(self._job(await self._named(call, self._book.cancel)))

    async def pause(self, call: Call) -> Response:
        return json_answer(self._job(await self._named(call, self._book.pause)))

    async def resume(self, call: Call) -> Response:
        return json_answer(self._job(await self._named(call, self._book.resume)))

    # --- what they have in common ------------------------------------------------------------------------------------

    async def _named(self, call: Call, act: Callable[[Id | None, Id, Id | None], Seen]) -> Seen:
        caller, job_id = self._demand(call), _id(call.request)
        return await in_thread(lambda: act(job_id, caller.organization_id, caller.project_id))

    def _feature_on(self, caller: Caller) -> bool:
        """Whether who listens for events may go on."""
        if caller.principal is None:
            return self._lease.valid
        project = self._lease.project(caller.principal.project.id)
        return self._lease.valid and project is not None and Feature.FINE_TUNING in project.effective.on

    def _job(self, seen: Seen, curve: Sequence[Any] | None = None) -> dict[str, Any]:
        metadata = None if seen.metadata is None else seen.metadata.reveal(Purpose.CUSTOMER)
        return job_shape(
            seen.job,
            _told(seen.name),
            metadata=metadata,
            faults=seen.faults,
            now_ms=self._clock.now_ms(),
            curve=curve,
        )

    def _tuning(self, seen: Seen) -> dict[str, Any]:
        shape = tuning_shape(seen.job, _told(seen.name), seen.faults, self._clock.now_ms())
        return {"id": shape["id"], "object": "fine_tuning", "data": shape}


def _told(name: Content) -> str:
    return name.reveal(Purpose.CUSTOMER).decode("utf-8", "replace")


def _id(request: Request) -> Id | None:
    return job_id_of(request.path_params["id"])


def _no_conflict(asked: RequestControls) -> None:
    if asked != NO_REQUEST:
        raise Problem(
            400,
            Code.RETENTION_CONFLICT,
            "A fine-tuning keeps its checkpoints and its model; a request that forbids keeping cannot have one.",
            retry=False,
        )
