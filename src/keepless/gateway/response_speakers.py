"""The client's side of one request of /responses: through the bridge, or native.

Holds: `BridgeSpeaker` (a chat engine's answer, translated), `NativeSpeaker` (an upstream's own, byte for byte) and
`CountSpeaker` (how many tokens an input is).
Leaves out: the translation (response_answer, response_events), what is said when (pipeline).
"""

import time
from typing import Final

import msgspec

from keepless.errors import Problem
from keepless.gateway.reply import Outlet
from keepless.gateway.response_answer import decode_chunk, whole
from keepless.gateway.response_bridge import PARAMS
from keepless.gateway.response_events import Events
from keepless.gateway.response_native import NativeReader, error_event, read_native
from keepless.gateway.response_object import Draft, Json
from keepless.gateway.response_params import ResponseRequest
from keepless.gateway.response_shapes import InputTokens
from keepless.gateway.shape import RESPONSES
from keepless.gateway.speaker import PlainSpeaker, rejected
from keepless.gateway.stream import StreamReader, datas_of
from keepless.gateway.wire import SSE, clamped
from keepless.http.limits import Grant, RateLimits
from keepless.inference import faults
from keepless.inference.asking import NO_TOKENS, Ask, Ending, MalformedError, Tokens
from keepless.inference.backend import Failure, FailureKind
from keepless.policy.controls import NO_REQUEST
from keepless.usage.record import Phase, Sketch

__all__ = ["BridgeSpeaker", "CountSpeaker", "NativeSpeaker"]

_encode: Final = msgspec.json.Encoder().encode


_count: Final = msgspec.json.Decoder(InputTokens).decode


class _Speaker(PlainSpeaker[ResponseRequest]):
    __slots__ = ()

    def sketch(self, phase: Phase, upstream_status: int, answered_bytes: int) -> Sketch:
        """See `Speaker`."""
        return RESPONSES.sketch(
            self._checked.body,
            phase,
            body_bytes=self._ask.received.size,
            max_tokens=self._checked.max_tokens,
            upstream_status=upstream_status,
            answered_bytes=answered_bytes,
            switched=self._ask.controls != NO_REQUEST,
        )


class BridgeSpeaker(_Speaker):
    """A chat engine's answer as a response (`Speaker`)."""

    __slots__ = ("_draft", "_events", "_made", "_reader")

    def __init__(
        self, outlet: Outlet, ask: Ask, checked: ResponseRequest, grant: Grant | None, rates: RateLimits
    ) -> None:
        super().__init__(outlet, ask, checked, grant, rates)
        # A tuned model is called as its project calls it.
        model = ask.route.model_id if ask.route.tuned is None else checked.body["model"]
        self._draft = Draft(checked, str(model), int(time.time()))
        self._events = Events(self._draft)
        self._reader = StreamReader(drop_usage=False)
        self._made: Json = {}

    def stream(self, data: bytes, retention: bytes) -> bool:
        """See `Speaker`."""
        block = self._reader.feed(data)
        if block:
            for said in datas_of(block):
                if not self._spoke:
                    self._begin_stream(SSE, retention)
                    self._events.begin()
                self._take(said)
            if self._spoke:
                self._send(self._events.take())
        return self._spoke

    def _take(self, said: bytes) -> None:
        if self._events.ended:
            return
        if said == b"[DONE]":
            self._events.finish()
            return
        chunk = decode_chunk(said)
        if chunk.failed:
            # What an engine says of its own failure stays here: its text may be anything.
            self._events.fail(faults.of_failure(Failure(FailureKind.CRASHED)).problem)
        else:
            self._events.chunk(chunk)

    def stream_ended(self) -> Ending:
        """See `Speaker`."""
        self._count()
        if self._events.failed:
            return Ending.FAILED
        return Ending.COMPLETE if self._events.ended else Ending.CUT

    def read(self, body: bytes) -> None:
        """See `Speaker`."""
        self._made = whole(self._draft, body, int(time.time()))
        self._count()

    def answer(self, status: int, body: bytes, retention: bytes) -> None:
        """See `Speaker`."""
        super().answer(status, _encode(self._made) if status == 200 else _renamed(body), retention)

    def _count(self) -> None:
        usage = self._draft.usage
        if usage is not None:
            asked, cached, answered, _ = usage
            self.tokens = Tokens(asked, answered, cached)

    def _error_event(self, problem: Problem) -> bytes:
        self._events.fail(problem)
        return self._events.take()


class NativeSpeaker(_Speaker):
    """An upstream's own response, byte for byte (`Speaker`)."""

    __slots__ = ("_reader",)

    def __init__(
        self, outlet: Outlet, ask: Ask, checked: ResponseRequest, grant: Grant | None, rates: RateLimits
    ) -> None:
        super().__init__(outlet, ask, checked, grant, rates)
        self._reader = NativeReader()

    def stream(self, data: bytes, retention: bytes) -> bool:
        """See `Speaker`."""
        block = self._reader.feed(data)
        if block:
            if not self._spoke:
                self._begin_stream(SSE, retention)
            self._send(block)
        return self._spoke

    def stream_ended(self) -> Ending:
        """See `Speaker`."""
        ending = self._reader.finish()
        self.tokens = self._reader.tokens or NO_TOKENS
        return ending

    def read(self, body: bytes) -> None:
        """See `Speaker`."""
        tokens = read_native(body)
        if tokens is None:
            raise MalformedError
        self.tokens = tokens

    def _error_event(self, problem: Problem) -> bytes:
        return error_event(problem, self._reader.next_number)


class CountSpeaker(_Speaker):
    """The count of an input (`Speaker`). No token is used by it."""

    __slots__ = ("_made",)

    def read(self, body: bytes) -> None:
        """See `Speaker`."""
        try:
            count = _count(body).input_tokens
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise MalformedError from None
        self._made = _encode({"object": "response.input_tokens", "input_tokens": clamped(count)})

    def answer(self, status: int, body: bytes, retention: bytes) -> None:
        """See `Speaker`."""
        if status != 200 and self._ask.route.embedded:
            self.fail(rejected(status), retention, None)  # an embedded engine's own text stays here
        else:
            super().answer(status, self._made if status == 200 else body, retention)

    def settle(self, tokens: Tokens) -> None:
        """See `Speaker`."""
        self._spoke = False  # what was charged is given back: an input was counted, not used
        super().settle(tokens)


def _renamed(body: bytes) -> bytes:
    """A chat engine's refusal with the parameter as it is called here; anything else as it came."""
    try:
        refusal = msgspec.json.decode(body)
        param = refusal["error"]["param"]
        refusal["error"]["param"] = PARAMS[param]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
        return body
    return _encode(refusal)
