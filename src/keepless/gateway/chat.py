"""POST chat/completions: from the bytes of a request to the way, and from the way to the bytes of an answer.

Holds: `ChatHandler` (key -> JSON -> parameters -> limits -> way) and `ChatSpeaker`, the client's side of one request.
Leaves out: sockets (server), what is permitted and kept (pipeline). No task and no await: everything here is called on
the event loop's thread and costs microseconds.

A bad request is refused before a limit is charged; a request that no engine may have is refused before it is sent.
"""

import time
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from keepless import log
from keepless.accounts.lease import Lease
from keepless.accounts.principal import Principal
from keepless.clock import Clock
from keepless.config import Engine, ModelConfig
from keepless.content import Content
from keepless.errors import Code, ErrorType, Problem
from keepless.gateway.chat_params import ChatRequest, ChatRules, model_name
from keepless.gateway.json_body import decode_object
from keepless.gateway.parser import Request
from keepless.gateway.refused import refused
from keepless.gateway.reply import Reply
from keepless.gateway.shape import estimate, sketch_of
from keepless.gateway.stream import StreamReader, error_event, kept_comment
from keepless.gateway.switches import combined, from_headers
from keepless.gateway.watch import Watch
from keepless.gateway.wire import JSON, SSE, head_lines, is_object, read_answer
from keepless.http.auth import authenticate
from keepless.http.limits import Grant, RateLimits
from keepless.http.problems import internal, render
from keepless.ids import Id, Prefix, mint, trusted
from keepless.inference.asking import NO_TOKENS, Ask, Ending, MalformedError, Tokens
from keepless.inference.embedded.dialect import CAPABILITIES
from keepless.inference.router import Route, Router
from keepless.pipeline import Way
from keepless.policy.controls import NO_REQUEST
from keepless.usage.ledger import Ledger
from keepless.usage.record import Endpoint, Phase, Sketch

__all__ = ["ChatHandler", "ChatSpeaker", "capabilities_of"]

_ENGINE_PATH: Final = "/chat/completions"
_USAGE: Final = {"include_usage": True}
# Looked up once: a member of an enum costs ten times a name.
_REQUEST: Final = Prefix.REQUEST
_CHAT: Final = Endpoint.CHAT
_AUTHENTICATE, _VALIDATE, _LIMIT = Phase.AUTHENTICATE, Phase.VALIDATE, Phase.LIMIT

_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class _Model:
    """A model of the catalogue as this endpoint needs it."""

    route: Route
    rules: ChatRules
    id: Id
    name: str | None  # the upstream's own, when it is another one
    asks_usage: bool  # usage of a stream comes only when it is asked for


class _Arrival:
    """A request, and how far it has come."""

    __slots__ = ("began", "body", "model", "phase", "principal", "reply", "request", "request_id")

    def __init__(self, request: Request, reply: Reply, request_id: Id, began: int) -> None:
        self.request = request
        self.reply = reply
        self.request_id = request_id
        self.began = began
        self.phase = _AUTHENTICATE
        self.principal: Principal | None = None
        self.body: dict[str, Any] | None = None
        self.model: _Model | None = None


class ChatHandler:
    """Answers chat/completions. One a process. `watch` is told what happens at the rate limits."""

    def __init__(
        self,
        *,
        lease: Lease,
        router: Router,
        way: Way,
        ledger: Ledger,
        clock: Clock,
        rates: RateLimits,
        json_depth: int,
        watch: Watch | None = None,
    ) -> None:
        self.watch = watch
        self._lease: Final = lease
        self._way: Final = way
        self._ledger: Final = ledger
        self._clock: Final = clock
        self._rates: Final = rates
        self._depth: Final = json_depth
        routes = [router.route(model.id) for model in router.models()]
        self._models: Final = {route.model.id: _model(route) for route in routes if route is not None}

    def handle(self, request: Request, reply: Reply) -> None:
        """See `FastHandler`."""
        arrival = _Arrival(request, reply, mint(_REQUEST), time.perf_counter_ns())
        try:
            ask, speaker = self._accept(arrival)
            passage = self._way.begin(ask, speaker)
            if not reply.closed:
                reply.on_disconnect = passage.abandon
                reply.on_pause = passage.pause
                reply.on_resume = passage.resume
        except Problem as problem:
            self.refuse(arrival, problem)
        except Exception as error:
            log.failure(log.Event.SERVER_FAILED, error, request_id=arrival.request_id)
            self.refuse(arrival, internal())

    def refuse(self, arrival: _Arrival, problem: Problem) -> None:
        """Answer a request that is not sent on its way, and record it."""
        status, headers, body = render(problem, arrival.request_id)
        arrival.reply.full(status, headers, body)
        request = arrival.request
        if status == 429 and self.watch is not None and arrival.principal is not None:
            self.watch.refused(arrival.principal, request)
        self._ledger.add(
            refused(
                problem,
                arrival.request_id,
                at_ms=self._clock.now_ms(),
                endpoint=Endpoint.CHAT,
                principal=arrival.principal,
                model=None if arrival.model is None else arrival.model.id,
                bytes_in=request.bytes_in,
                bytes_out=len(body),
                began=arrival.began,
                sketch=sketch_of(arrival.body, arrival.phase, body_bytes=len(request.body)),
            )
        )

    def _accept(self, arrival: _Arrival) -> tuple[Ask, "ChatSpeaker"]:
        request = arrival.request
        principal = arrival.principal = authenticate(self._lease, request.fields.get(b"authorization"))
        arrival.phase = _VALIDATE
        body, encoded = decode_object(request.body, self._depth)
        arrival.body = body
        model = arrival.model = self._models.get(model_name(body))
        if model is None:
            raise _no_such_model()
        checked = model.rules.check(body)
        controls = combined(checked.controls, from_headers(request.headers))
        arrival.phase = _LIMIT
        grant = None
        if not (principal.organization.limits.none_set and principal.project.limits.none_set):
            tokens = estimate(body, checked.max_tokens, checked.choices)
            grant = self._rates.admit(principal, model.id, tokens)
        if self.watch is not None:
            self.watch.admitted(principal)
        received = Content(request.body)
        ask = Ask(
            request_id=arrival.request_id,
            endpoint=_CHAT,
            principal=principal,
            route=model.route,
            path=_ENGINE_PATH,
            body=_for_engine(model, checked, encoded, request.body, received),
            received=received,
            stream=checked.stream,
            controls=controls,
            bytes_in=request.bytes_in,
            began=arrival.began,
        )
        return ask, ChatSpeaker(arrival.reply, ask, checked, grant, self._rates)


class ChatSpeaker:
    """The client's side of one request (`Speaker`)."""

    __slots__ = (
        "_ask", "_checked", "_grant", "_rates", "_reader", "_reply", "_request_id", "_spoke", "bytes_out", "tokens",
    )  # fmt: skip

    def __init__(
        self,
        reply: Reply,
        ask: Ask,
        checked: ChatRequest,
        grant: Grant | None,
        rates: RateLimits,
    ) -> None:
        self._reply = reply
        self._request_id = ask.request_id
        self._checked = checked
        self._grant = grant
        self._rates = rates
        self._ask = ask
        self._reader = StreamReader(drop_usage=not checked.include_usage) if checked.stream else None
        self._spoke = False  # some of an engine's answer is with the client
        self.bytes_out = 0
        self.tokens = NO_TOKENS

    def stream(self, data: bytes, retention: bytes) -> bool:
        """See `Speaker`."""
        if self._reader is None:
            raise MalformedError
        whole = self._reader.feed(data)
        if whole:
            if not self._spoke:
                self._spoke = True
                self._reply.stream_start(200, head_lines(self._request_id, retention, SSE, self._rate_lines))
            self._send(whole)
        return self._spoke

    def stream_ended(self) -> Ending:
        """See `Speaker`."""
        if self._reader is None:
            raise MalformedError
        ending = self._reader.finish()
        self.tokens = self._reader.tokens or NO_TOKENS
        return ending

    def close(self, kept: bytes | None) -> None:
        """See `Speaker`."""
        if kept is not None:
            self._send(kept_comment(kept))
        self._reply.finish()

    def read(self, body: bytes) -> None:
        """See `Speaker`."""
        tokens = read_answer(body)
        if tokens is None:
            raise MalformedError
        self.tokens = tokens

    def answer(self, status: int, body: bytes, retention: bytes) -> None:
        """See `Speaker`."""
        if status != 200 and not is_object(body):
            self.fail(_rejected(status), retention, None)
            return
        self._spoke = status == 200
        self.bytes_out += len(body)
        self._reply.full(status, head_lines(self._request_id, retention, JSON, self._rate_lines), body)

    def fail(self, problem: Problem, retention: bytes, kept: bytes | None) -> None:
        """See `Speaker`."""
        if self._spoke:
            self._send(error_event(problem))
            self.close(kept)
            return
        status, headers, body = render(problem, self._request_id, retention.decode("ascii"))
        self.bytes_out += len(body)
        self._reply.full(status, headers + self._rate_lines, body)

    def sketch(self, phase: Phase, upstream_status: int, answered_bytes: int) -> Sketch:
        """See `Speaker`."""
        return sketch_of(
            self._checked.body,
            phase,
            body_bytes=self._ask.received.size,
            max_tokens=self._checked.max_tokens,
            upstream_status=upstream_status,
            answered_bytes=answered_bytes,
            switched=self._ask.controls != NO_REQUEST,
        )

    def settle(self, tokens: Tokens) -> None:
        """See `Speaker`. Where an answer came but no count of its tokens, the estimate stands."""
        if self._grant is not None and (tokens is not NO_TOKENS or not self._spoke):
            self._rates.settle(self._grant, tokens.prompt + tokens.completion)
        reply = self._reply
        reply.on_disconnect = reply.on_pause = reply.on_resume = None  # nothing refers to this request any more

    @property
    def _rate_lines(self) -> bytes:
        return b"" if self._grant is None else self._grant.headers

    def _send(self, data: bytes) -> None:
        self.bytes_out += len(data)
        self._reply.data(data)


def capabilities_of(model: ModelConfig) -> frozenset[str] | None:
    """What a model can do; None = whatever its upstream can."""
    if model.capabilities is not None:
        return frozenset(model.capabilities)
    return CAPABILITIES if model.engine is Engine.LLAMA else None


def _model(route: Route) -> _Model:
    model = route.model
    return _Model(
        route=route,
        rules=ChatRules(model, capabilities_of(model)),
        id=trusted(model.id),
        name=model.upstream_model if model.upstream_model not in (None, model.id) else None,
        asks_usage=model.engine is Engine.OPENAI,
    )


def _for_engine(model: _Model, checked: ChatRequest, encoded: bytes, body: bytes, received: Content) -> Content:
    """Our encoding of what the engine is asked: the model by the engine's name, and usage always.

    What was received is sent on only where it is our encoding already, byte for byte.
    """
    asked = checked.body
    if model.asks_usage and checked.stream and not checked.include_usage:
        asked = {**asked, "stream_options": {**asked.get("stream_options", {}), **_USAGE}}
    if model.name is not None:
        asked = {**asked, "model": model.name}
    if asked is checked.body and not checked.changed:
        return received if encoded == body else Content(encoded)
    return Content(_encode(asked))


def _no_such_model() -> Problem:
    return Problem(
        404,
        Code.MODEL_NOT_FOUND,
        "The requested model does not exist or you do not have access to it. GET /models lists the models.",
        param="model",
    )


def _rejected(status: int) -> Problem:
    return Problem(status, Code.UPSTREAM_REJECTED, "The engine of this model refused the request.", type=ErrorType.API)
