"""From the bytes of a request to the way, for every endpoint: key -> body -> model -> rules -> limits -> way.

Holds: `InferenceHandler` (one an endpoint), `Family` and `JsonFamily` (what an endpoint has of its own), `Arrival` (a
request, and how far it has come), `Served`, `Checked`. Leaves out: sockets (server), formats (each family), what is
permitted and kept (pipeline). No task and no await: everything here is called on the event loop's thread and costs
microseconds.

A bad request is refused before a limit is charged; a request that no engine may have is refused before it is sent. A
line of a batch comes without a socket and without a key of its own (`line`), and goes the same way: same checks, same
engine, its own row of usage; only rate limits do not count it, and it cannot stream.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, Protocol, TypeVar

from keepless import log
from keepless.accounts.lease import Lease
from keepless.accounts.principal import Principal
from keepless.clock import Clock
from keepless.config import Endpoint
from keepless.content import Content
from keepless.errors import Code, Problem
from keepless.gateway.catalogue import does_not_serve, endpoints_of, no_such_model
from keepless.gateway.json_body import decode_object
from keepless.gateway.parser import Request
from keepless.gateway.refused import refused
from keepless.gateway.reply import FastHandler, Outlet
from keepless.gateway.rules import model_name
from keepless.gateway.switches import combined, from_headers
from keepless.gateway.tuned import TunedModels, is_tuned
from keepless.gateway.watch import Watch
from keepless.http.auth import bearer, principal_of
from keepless.http.limits import Grant, RateLimits
from keepless.http.problems import internal, render
from keepless.ids import Id, Prefix, mint
from keepless.inference.asking import JSON_BODY, SSE_ANSWER, Ask, Speaker
from keepless.inference.router import Route, Router
from keepless.pipeline import Way
from keepless.policy.controls import RequestControls
from keepless.usage.ledger import Ledger
from keepless.usage.record import Phase, Sketch

__all__ = ["Accepted", "Arrival", "Checked", "Family", "InferenceHandler", "JsonFamily", "Served"]

# Looked up once: a member of an enum costs ten times a name.
_REQUEST: Final = Prefix.REQUEST
_MOST_TUNED: Final = 256
_AUTHENTICATE, _VALIDATE, _LIMIT = Phase.AUTHENTICATE, Phase.VALIDATE, Phase.LIMIT


@dataclass(frozen=True, slots=True)
class Served:
    """A model of the catalogue as an endpoint needs it; a family adds its own. `path`: the engine's."""

    route: Route
    id: Id
    endpoint: Endpoint
    path: str


class Checked(Protocol):
    """What every checked request says."""

    stream: bool
    controls: RequestControls


class Arrival:
    """A request, and how far it has come. `body` and `encoded` are for its family; `batch`: a line of a batch."""

    __slots__ = (
        "batch", "began", "body", "encoded", "model", "outlet", "phase", "principal", "request", "request_id",
    )  # fmt: skip

    def __init__(self, request: Request, outlet: Outlet, principal: Principal | None = None) -> None:
        self.began: Final = time.perf_counter_ns()
        self.request: Final = request
        self.request_id: Final = mint(_REQUEST)
        self.outlet: Final = outlet
        self.phase = _AUTHENTICATE
        self.principal = principal
        self.batch: Final = principal is not None
        self.body: dict[str, Any] | None = None  # its members, once they could be read
        self.encoded = b""
        self.model: Served | None = None

    @property
    def members(self) -> dict[str, Any]:
        """The members of a body that was read."""
        return {} if self.body is None else self.body

    def ask(
        self,
        principal: Principal,
        model: Served,
        body: Content,
        received: Content,
        controls: RequestControls,
        *,
        stream: bool,
        content_type: bytes = JSON_BODY,
        answered_as: bytes | tuple[bytes, ...] = SSE_ANSWER,
        renamed: Callable[[str], Content] | None = None,
    ) -> Ask:
        """The request as it goes its way. See `Ask`."""
        return Ask(
            request_id=self.request_id,
            endpoint=model.endpoint,
            principal=principal,
            route=model.route,
            path=model.path,
            body=body,
            received=received,
            stream=stream,
            controls=controls,
            bytes_in=self.request.bytes_in,
            began=self.began,
            batch=self.batch,
            content_type=content_type,
            answered_as=answered_as,
            renamed=renamed,
        )


S = TypeVar("S", bound=Served)
C = TypeVar("C", bound=Checked)
# Whose it is, which model, what is asked and how, what the limits charged.
Accepted = tuple[Principal, Any, Any, RequestControls, Grant | None]


class Family(Generic[S, C]):
    """One endpoint: how its requests are read and answered. One a process; holds nothing of a request."""

    endpoint: Endpoint

    def serve(self, route: Route) -> S:
        """A model that serves this endpoint (called once a model)."""
        raise NotImplementedError

    def read(self, arrival: Arrival) -> str:
        """Read the body into `arrival`; which model it asks for. Raises `Problem` (400)."""
        raise NotImplementedError

    def check(self, arrival: Arrival, model: S) -> C:
        """Check a body that was read, against what the model can do. Raises `Problem` (400)."""
        raise NotImplementedError

    def estimate(self, arrival: Arrival, checked: C) -> int:
        """About how many tokens a checked request can cost (asked only where tokens are limited)."""
        raise NotImplementedError

    def ask(self, arrival: Arrival, principal: Principal, model: S, checked: C, controls: RequestControls) -> Ask:
        """What the engine is asked."""
        raise NotImplementedError

    def speaker(self, arrival: Arrival, ask: Ask, checked: C, grant: Grant | None, rates: RateLimits) -> Speaker:
        """The client's side of a request on its way."""
        raise NotImplementedError

    def sketch(self, arrival: Arrival) -> Sketch:
        """The shape of a request that was refused, however far it came."""
        raise NotImplementedError


class JsonFamily(Family[S, C]):
    """One whose requests are JSON objects."""

    def __init__(self, endpoint: Endpoint, json_depth: int) -> None:
        self.endpoint = endpoint
        self._depth: Final = json_depth

    def read(self, arrival: Arrival) -> str:
        """See `Family`."""
        arrival.body, arrival.encoded = decode_object(arrival.request.body, self._depth)
        return model_name(arrival.body)


class InferenceHandler(FastHandler, Generic[S, C]):
    """Answers one endpoint. `watch` is told what happens at the rate limits."""

    def __init__(
        self,
        family: Family[S, C],
        *,
        lease: Lease,
        router: Router,
        way: Way,
        ledger: Ledger,
        clock: Clock,
        rates: RateLimits,
        watch: Watch | None = None,
        tuned: TunedModels | None = None,
    ) -> None:
        self.watch = watch
        self._tuned: Final = tuned
        self._tuned_served: Final[dict[str, S]] = {}  # by their digits
        self._family: Final = family
        self._lease: Final = lease
        self._way: Final = way
        self._ledger: Final = ledger
        self._clock: Final = clock
        self._rates: Final = rates
        routes = list(router.routes())
        serving = [route for route in routes if family.endpoint in endpoints_of(route.model)]
        self._models: Final = {route.model.id: family.serve(route) for route in serving}
        self._others: Final = {route.model.id: route.model_id for route in routes if route.model.id not in self._models}

    def handle(self, request: Request, reply: Outlet) -> None:
        """See `FastHandler`."""
        self._take(Arrival(request, reply))

    def line(self, principal: Principal, body: bytes, outlet: Outlet) -> Id:
        """Take a line of a batch: a request of `principal`, answered through `outlet`. The request's id."""
        request = Request(b"POST", b"", b"", [], 1)
        request.body, request.bytes_in = body, len(body)
        arrival = Arrival(request, outlet, principal)
        self._take(arrival)
        return arrival.request_id

    def _take(self, arrival: Arrival) -> None:
        try:
            accepted = self._accept(arrival)
            if accepted is not None:
                self._go_on(arrival, accepted)
        except Problem as problem:
            self._refuse(arrival, problem)
        except Exception as error:
            self._fail(arrival, error)

    def _go_on(self, arrival: Arrival, accepted: Accepted) -> None:
        """Send an accepted request on its way."""
        principal, model, checked, controls, grant = accepted
        family = self._family
        ask = family.ask(arrival, principal, model, checked, controls)
        passage = self._way.begin(ask, family.speaker(arrival, ask, checked, grant, self._rates))
        outlet = arrival.outlet
        if not outlet.closed:
            outlet.on_disconnect = passage.abandon
            outlet.on_pause = passage.pause
            outlet.on_resume = passage.resume

    def _accept(self, arrival: Arrival) -> Accepted | None:
        """None: its model is being looked up, and `_found` follows."""
        family, request, principal = self._family, arrival.request, arrival.principal
        if principal is None:
            if not request.digest:
                request.digest = bearer(request.fields.get(b"authorization"))
            principal = arrival.principal = principal_of(self._lease, request.digest)
        arrival.phase = _VALIDATE
        name = family.read(arrival)
        model = arrival.model = self._models.get(name)
        if model is None:
            model = arrival.model = self._other(arrival, principal, name)
            if model is None:
                return None
        return self._checked(arrival, principal, model)

    def _other(self, arrival: Arrival, principal: Principal, name: str) -> S | None:
        """A model that is not in the catalogue; None: it is being looked up. Raises `Problem`."""
        tuned = self._tuned
        if tuned is None or not is_tuned(name):
            raise (
                no_such_model()
                if name not in self._others
                else does_not_serve(self._others[name], self._family.endpoint)
            )
        route = tuned.find(principal, name, partial(self._found, arrival, principal))
        if route is not None:
            return self._serve(route)

        def left() -> None:
            self._record(arrival, _LEFT, 0)

        arrival.outlet.on_disconnect = left
        return None

    def _found(self, arrival: Arrival, principal: Principal, found: Route | Problem) -> None:
        """A model was looked up."""
        outlet = arrival.outlet
        if outlet.closed:
            return
        outlet.on_disconnect = None
        if isinstance(found, Problem):
            self._refuse(arrival, found)
            return
        try:
            model = arrival.model = self._serve(found)
            self._go_on(arrival, self._checked(arrival, principal, model))
        except Problem as problem:
            self._refuse(arrival, problem)
        except Exception as error:
            self._fail(arrival, error)

    def _serve(self, route: Route) -> S:
        """A tuned model as this endpoint needs it. Raises `Problem` when it does not serve it."""
        if self._family.endpoint not in endpoints_of(route.model):
            raise does_not_serve(route.model_id, self._family.endpoint)
        served = self._tuned_served.get(route.model.id)
        if served is None or served.route is not route:
            if len(self._tuned_served) >= _MOST_TUNED:
                self._tuned_served.clear()
            served = self._tuned_served[route.model.id] = self._family.serve(route)
        return served

    def _checked(self, arrival: Arrival, principal: Principal, model: S) -> Accepted:
        family, request = self._family, arrival.request
        checked = family.check(arrival, model)
        controls = combined(checked.controls, from_headers(request.headers))
        grant = None
        if arrival.batch:
            if checked.stream:
                raise _streamed_line()
        else:
            arrival.phase = _LIMIT
            project = principal.project
            none_set = principal.organization.limits.none_set and project.limits.none_set
            if not none_set or project.model_limits is not None:
                grant = self._rates.admit(principal, model.id, family.estimate(arrival, checked))
            if self.watch is not None:
                self.watch.admitted(principal)
        return principal, model, checked, controls, grant

    def _fail(self, arrival: Arrival, error: Exception) -> None:
        """Answer a fault of ours."""
        log.failure(log.Event.SERVER_FAILED, error, request_id=arrival.request_id)
        self._refuse(arrival, internal())

    def _refuse(self, arrival: Arrival, problem: Problem) -> None:
        """Answer a request that is not sent on its way, and record it."""
        status, headers, body = render(problem, arrival.request_id)
        arrival.outlet.code = problem.code
        arrival.outlet.full(status, headers, body)
        if status == 429 and self.watch is not None and arrival.principal is not None:
            self.watch.refused(arrival.principal, arrival.request)
        self._record(arrival, problem, len(body))

    def _record(self, arrival: Arrival, problem: Problem, bytes_out: int) -> None:
        """The row of a request that is not sent on its way."""
        self._ledger.add(
            refused(
                problem,
                arrival.request_id,
                at_ms=self._clock.now_ms(),
                endpoint=self._family.endpoint,
                principal=arrival.principal,
                model=None if arrival.model is None else arrival.model.id,
                bytes_in=arrival.request.bytes_in,
                bytes_out=bytes_out,
                began=arrival.began,
                sketch=self._family.sketch(arrival),
            )
        )


_LEFT: Final = Problem(499, Code.CLIENT_CLOSED, "")


def _streamed_line() -> Problem:
    return Problem(
        400, Code.UNSUPPORTED_VALUE, "A line of a batch cannot be streamed: leave out 'stream'.", param="stream"
    )
