"""Calls of the inference API that ask no model: each is authenticated, answered and leaves its row of usage.

Holds: `Call` (one request on its way), `Caller`, `Recorded` (an ASGI endpoint made of a handler), `in_thread`. Leaves
out: what a call does (files, uploads, batches), requests that ask a model (handler).

Whatever happens, one row: also for a client that left, a fault of ours, and a body that was not read to its end.
"""

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import anyio
import anyio.to_thread
import sqlalchemy as sa
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from keepless import log
from keepless.accounts.lease import Lease
from keepless.accounts.principal import Principal
from keepless.accounts.roles import Role
from keepless.clock import Clock
from keepless.errors import Code, ErrorType, Problem
from keepless.gateway.switches import from_headers
from keepless.http import problems
from keepless.http.auth import authenticate, bearer
from keepless.ids import Id
from keepless.incidents.afterwards import described
from keepless.policy.controls import NO_REQUEST, RequestControls
from keepless.usage.ledger import Ledger
from keepless.usage.record import Endpoint, Outcome, Record
from keepless.vault.errors import LocationRedError, StaleEpochError, StoreFailedError
from keepless.vault.rows import Kept

__all__ = ["Call", "Caller", "Handler", "Places", "Recorded", "in_thread"]

_THREADS: Final = 16  # of one process, for files: they never take the threads that administration needs
T = TypeVar("T")
_limiters: Final[dict[int, anyio.CapacityLimiter]] = {}


async def in_thread(act: Callable[[], T]) -> T:
    """Do something that blocks."""
    if not _limiters:
        _limiters[0] = anyio.CapacityLimiter(_THREADS)
    return await anyio.to_thread.run_sync(act, limiter=_limiters[0])


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose files: a key's project, or (`project_id` None, no principal) all projects of an owner's organization."""

    organization_id: Id
    project_id: Id | None
    principal: Principal | None

    @property
    def project(self) -> Id:
        """The project that something new belongs to. Raises `Problem` 403 for an owner's key."""
        if self.project_id is None:
            raise Problem(
                403,
                Code.INSUFFICIENT_PERMISSIONS,
                "What is made here belongs to a project: use an API key of the project.",
                type=ErrorType.PERMISSION,
            )
        return self.project_id


@dataclass(slots=True)
class Call:
    """One request on its way. A handler notes what it has kept."""

    request: Request
    request_id: Id
    caller: Caller
    controls: RequestControls = NO_REQUEST
    kept: Kept | None = None


Handler = Callable[[Call], Awaitable[Response]]


class Places:
    """How many uploads one process takes at a time, of one organization three quarters; on the event loop's thread.

    A place is held for as long as a client cares to send: with all of them one organization would stop all others.
    """

    def __init__(self, most: int) -> None:
        self._most: Final = most
        self._share: Final = most - most // 4
        self._taken: Final[Counter[Id]] = Counter()

    @contextmanager
    def one(self, organization_id: Id) -> Iterator[None]:
        """Hold a place. Raises `Problem` 503 when there are too many."""
        taken = self._taken
        if taken.total() >= self._most or taken[organization_id] >= self._share:
            raise Problem(
                503,
                Code.OVERLOADED,
                f"This server takes {self._most} uploads at a time (limits.uploads), {self._share} of an organization.",
                type=ErrorType.SERVER,
                headers={"retry-after": "2"},
            )
        taken[organization_id] += 1
        try:
            yield
        finally:
            taken[organization_id] -= 1
            if not taken[organization_id]:
                del taken[organization_id]


class _Counted:
    """The two directions of an exchange, counted in bytes."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self.bytes_in = self.bytes_out = self.status = 0
        self.left = False

    async def receive(self) -> Message:
        message = await self._receive()
        self.bytes_in += len(message.get("body", b""))
        self.left = self.left or message["type"] == "http.disconnect"
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        self.bytes_out += len(message.get("body", b""))
        await self._send(message)


class Recorded:
    """The methods of one path. `owners`: those that an owner's admin key may call as well."""

    def __init__(
        self,
        endpoint: Endpoint,
        handlers: dict[str, Handler],
        *,
        lease: Lease,
        ledger: Ledger,
        clock: Clock,
        owners: frozenset[str] = frozenset(),
    ) -> None:
        self._endpoint: Final = endpoint
        self._handlers: Final = handlers
        self._lease: Final = lease
        self._ledger: Final = ledger
        self._clock: Final = clock
        self._owners: Final = owners

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        began, counted = time.perf_counter_ns(), _Counted(receive, send)
        request = Request(scope, counted.receive)
        only_head = request.method == "HEAD"
        method = "GET" if only_head else request.method
        handler = self._handlers.get(method)
        if handler is None:
            raise HTTPException(405, headers={"allow": ", ".join(sorted(self._handlers))})
        request_id = Id(scope[problems.REQUEST_ID])
        caller, call, code = None, None, None
        try:
            caller = self._caller(request, method)
            call = Call(request, request_id, caller, from_headers(scope["headers"]))
            async with _failures(request_id):
                response = await handler(call)
            if only_head:  # what GET would say, without the body: nothing is read of it
                response = _without_body(response)
            if call.kept is not None:
                response.headers["x-keepless-retention"] = described(call.kept).decode("ascii")
            await response(scope, counted.receive, counted.send)
        except Problem as problem:
            code = problem.code
            if counted.status:
                raise
            await problems.response(problem, request_id)(scope, counted.receive, counted.send)
        except ClientDisconnect:
            counted.left = True
        except BaseException:
            code, counted.status = Code.INTERNAL, counted.status or 500
            raise
        finally:
            if counted.left and counted.status == 0:
                code, counted.status = Code.CLIENT_CLOSED, 499
            self._record(counted, request_id, caller, call, code=code, began=began)

    def _caller(self, request: Request, method: str) -> Caller:
        sent = request.headers.get("authorization")
        authorization = None if sent is None else sent.encode("latin-1")
        try:
            principal = authenticate(self._lease, authorization)
        except Problem as problem:
            if problem.status == 401 and method in self._owners:
                admin = self._lease.admin(bearer(authorization))
                if admin is not None and admin.role is Role.OWNER and admin.organization_id is not None:
                    return Caller(admin.organization_id, None, None)
            raise
        return Caller(principal.organization.id, principal.project.id, principal)

    def _record(
        self,
        counted: _Counted,
        request_id: Id,
        caller: Caller | None,
        call: Call | None,
        *,
        code: Code | None,
        began: int,
    ) -> None:
        principal = None if caller is None else caller.principal
        kept = None if call is None else call.kept
        self._ledger.add(
            Record(
                request_id=request_id,
                at_ms=self._clock.now_ms(),
                status=counted.status,
                endpoint=self._endpoint,
                organization_id=None if caller is None else caller.organization_id,
                project_id=None if caller is None else caller.project_id,
                key_id=None if principal is None else principal.key_id,
                code=code,
                latency_us=(time.perf_counter_ns() - began) // 1000,
                bytes_in=counted.bytes_in,
                bytes_out=counted.bytes_out,
                epoch=0 if principal is None else principal.organization.epoch,
                outcome=Outcome.NONE if kept is None else Outcome.STORED,
                object_id=None if kept is None else kept.id,
            )
        )


def _without_body(response: Response) -> Response:
    bare = Response(status_code=response.status_code)
    bare.raw_headers = response.raw_headers
    return bare


@asynccontextmanager
async def _failures(request_id: Id) -> Any:
    """A store that fails is told as 503; its text stays inside."""
    try:
        yield
    except (StoreFailedError, LocationRedError, StaleEpochError, sa.exc.SQLAlchemyError) as error:
        log.failure(log.Event.SERVER_FAILED, error, request_id=request_id)
        raise Problem(
            503,
            Code.STORE_FAILED,
            "The store is full, locked or cannot be reached at the moment, or does not hold what was promised of it. "
            "Nothing was kept.",
            type=ErrorType.SERVER,
            headers={"retry-after": "2"},
        ) from None
