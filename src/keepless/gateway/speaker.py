"""What the client's sides of all endpoints share: whole answers, errors, rate-limit headers, the end.

Holds: `PlainSpeaker`, to be derived from by each endpoint. Leaves out: formats (each endpoint), what is said when
(pipeline).
"""

from typing import Generic, TypeVar

from keepless.errors import Code, ErrorType, Problem
from keepless.gateway.reply import Outlet
from keepless.gateway.stream import error_event, kept_comment
from keepless.gateway.wire import JSON, head_lines, refusal_of
from keepless.http.limits import Grant, RateLimits
from keepless.http.problems import render
from keepless.inference.asking import NO_TOKENS, Ask, Ending, MalformedError, Speaker, Tokens
from keepless.usage.record import Phase, Sketch

__all__ = ["PlainSpeaker", "rejected"]

C = TypeVar("C")  # a request as its endpoint checked it


class PlainSpeaker(Speaker, Generic[C]):
    """An endpoint that answers whole; a subclass reads answers, sketches requests, and may stream (`Speaker`)."""

    __slots__ = ("_ask", "_checked", "_grant", "_outlet", "_rates", "_spoke", "bytes_out", "tokens")

    def __init__(self, outlet: Outlet, ask: Ask, checked: C, grant: Grant | None, rates: RateLimits) -> None:
        self._outlet = outlet
        self._ask = ask
        self._checked = checked
        self._grant = grant
        self._rates = rates
        self._spoke = False  # some of an engine's answer is with the client
        self.bytes_out = 0
        self.tokens = NO_TOKENS

    def stream(self, data: bytes, retention: bytes) -> bool:
        """See `Speaker`."""
        raise MalformedError

    def stream_ended(self) -> Ending:
        """See `Speaker`."""
        raise MalformedError

    def close(self, kept: bytes | None) -> None:
        """See `Speaker`."""
        if kept is not None:
            self._send(kept_comment(kept))
        self._outlet.finish()

    def read(self, body: bytes) -> None:
        """See `Speaker`."""
        raise NotImplementedError

    def answer(self, status: int, body: bytes, retention: bytes) -> None:
        """See `Speaker`."""
        if status != 200:
            refusal = refusal_of(body)
            if refusal is None:
                self.fail(rejected(status), retention, None)
                return
            body = refusal
        self._spoke = status == 200
        self.bytes_out += len(body)
        self._outlet.full(status, head_lines(self._ask.request_id, retention, JSON, self._rate_lines), body)

    def fail(self, problem: Problem, retention: bytes, kept: bytes | None) -> None:
        """See `Speaker`."""
        if self._spoke:
            self._send(self._error_event(problem))
            self.close(kept)
            return
        status, headers, body = render(problem, self._ask.request_id, retention.decode("ascii"))
        self.bytes_out += len(body)
        self._outlet.code = problem.code
        self._outlet.full(status, headers + self._rate_lines, body)

    def sketch(self, phase: Phase, upstream_status: int, answered_bytes: int) -> Sketch:
        """See `Speaker`."""
        raise NotImplementedError

    def settle(self, tokens: Tokens) -> None:
        """See `Speaker`. Where an answer came but no count of its tokens, the estimate stands."""
        if self._grant is not None and (tokens is not NO_TOKENS or not self._spoke):
            self._rates.settle(self._grant, tokens.prompt + tokens.completion)
        outlet = self._outlet
        outlet.on_disconnect = outlet.on_pause = outlet.on_resume = None  # nothing refers to this request any more

    def _error_event(self, problem: Problem) -> bytes:
        return error_event(problem)

    @property
    def _rate_lines(self) -> bytes:
        return b"" if self._grant is None else self._grant.headers

    def _begin_stream(self, content_type: bytes, retention: bytes) -> None:
        self._spoke = True
        lines = head_lines(self._ask.request_id, retention, content_type, self._rate_lines)
        self._outlet.stream_start(200, lines)

    def _send(self, data: bytes) -> None:
        self.bytes_out += len(data)
        self._outlet.data(data)


def rejected(status: int) -> Problem:
    """An engine's refusal that is not JSON, in our words."""
    return Problem(status, Code.UPSTREAM_REJECTED, "The engine of this model refused the request.", type=ErrorType.API)
