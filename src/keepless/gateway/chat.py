"""POST chat/completions: OpenAI's and Groq's conversation.

Holds: `ChatFamily` (what the endpoint has of its own, see handler) and `ChatSpeaker`, the client's side of one request.
Leaves out: the steps of a request (handler), parameters (chat_params), what is permitted and kept (pipeline).
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import msgspec

from keepless.accounts.principal import Principal
from keepless.config import Endpoint, Engine
from keepless.content import Content
from keepless.gateway.catalogue import capabilities_of
from keepless.gateway.chat_params import ChatRequest, ChatRules
from keepless.gateway.handler import Arrival, JsonFamily, Served
from keepless.gateway.reply import Outlet
from keepless.gateway.shape import CHAT
from keepless.gateway.speaker import PlainSpeaker
from keepless.gateway.stream import StreamReader
from keepless.gateway.wire import SSE, read_answer
from keepless.http.limits import Grant, RateLimits
from keepless.inference.asking import NO_TOKENS, Ask, Ending, MalformedError
from keepless.inference.router import Route
from keepless.policy.controls import NO_REQUEST, RequestControls
from keepless.usage.record import Phase, Sketch

__all__ = ["ENGINE_PATH", "USAGE", "ChatFamily", "ChatSpeaker"]

ENGINE_PATH: Final = "/chat/completions"
USAGE: Final = {"include_usage": True}
# Looked up once: a member of an enum costs ten times a name.
_CHAT: Final = Endpoint.CHAT

_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class _Model(Served):
    rules: ChatRules
    asks_usage: bool  # usage of a stream comes only when it is asked for


class ChatFamily(JsonFamily[_Model, ChatRequest]):
    """See `Family`."""

    def __init__(self, json_depth: int) -> None:
        super().__init__(_CHAT, json_depth)

    def serve(self, route: Route) -> _Model:
        """See `Family`."""
        model = route.model
        return _Model(
            route=route,
            id=route.model_id,
            endpoint=_CHAT,
            path=ENGINE_PATH,
            rules=ChatRules(model, capabilities_of(model)),
            asks_usage=model.engine is Engine.OPENAI,
        )

    def check(self, arrival: Arrival, model: _Model) -> ChatRequest:
        """See `Family`."""
        return model.rules.check(arrival.members)

    def estimate(self, arrival: Arrival, checked: ChatRequest) -> int:
        """See `Family`."""
        return CHAT.estimate(checked.body, checked.max_tokens, checked.choices)

    def ask(
        self, arrival: Arrival, principal: Principal, model: _Model, checked: ChatRequest, controls: RequestControls
    ) -> Ask:
        """See `Family`."""
        body = arrival.request.body
        received = Content(body)
        sent = _for_engine(model, checked, arrival.encoded, body, received)
        renamed = partial(_renamed, checked) if model.route.several_names else None
        return arrival.ask(principal, model, sent, received, controls, stream=checked.stream, renamed=renamed)

    def speaker(
        self, arrival: Arrival, ask: Ask, checked: ChatRequest, grant: Grant | None, rates: RateLimits
    ) -> "ChatSpeaker":
        """See `Family`."""
        return ChatSpeaker(arrival.outlet, ask, checked, grant, rates)

    def sketch(self, arrival: Arrival) -> Sketch:
        """See `Family`."""
        return CHAT.sketch(arrival.body, arrival.phase, body_bytes=len(arrival.request.body))


class ChatSpeaker(PlainSpeaker[ChatRequest]):
    """The client's side of one request (`Speaker`): what the engine says, byte for byte."""

    __slots__ = ("_reader",)

    def __init__(self, outlet: Outlet, ask: Ask, checked: ChatRequest, grant: Grant | None, rates: RateLimits) -> None:
        super().__init__(outlet, ask, checked, grant, rates)
        self._reader = StreamReader(drop_usage=not checked.include_usage) if checked.stream else None

    def stream(self, data: bytes, retention: bytes) -> bool:
        """See `Speaker`."""
        if self._reader is None:
            raise MalformedError
        whole = self._reader.feed(data)
        if whole:
            if not self._spoke:
                self._begin_stream(SSE, retention)
            self._send(whole)
        return self._spoke

    def stream_ended(self) -> Ending:
        """See `Speaker`."""
        if self._reader is None:
            raise MalformedError
        ending = self._reader.finish()
        self.tokens = self._reader.tokens or NO_TOKENS
        return ending

    def read(self, body: bytes) -> None:
        """See `Speaker`."""
        tokens = read_answer(body)
        if tokens is None:
            raise MalformedError
        self.tokens = tokens

    def sketch(self, phase: Phase, upstream_status: int, answered_bytes: int) -> Sketch:
        """See `Speaker`."""
        return CHAT.sketch(
            self._checked.body,
            phase,
            body_bytes=self._ask.received.size,
            max_tokens=self._checked.max_tokens,
            upstream_status=upstream_status,
            answered_bytes=answered_bytes,
            switched=self._ask.controls != NO_REQUEST,
        )


def _for_engine(model: _Model, checked: ChatRequest, encoded: bytes, body: bytes, received: Content) -> Content:
    """Our encoding of what the engine is asked: the model by the engine's name, and usage always.

    What was received is sent on only where it is our encoding already, byte for byte.
    """
    asked = _asking_usage(checked) if model.asks_usage else checked.body
    name = model.route.name
    if name is not None:
        asked = {**asked, "model": name}
    if asked is checked.body and not checked.changed:
        return received if encoded == body else Content(encoded)
    return Content(_encode(asked))


def _renamed(checked: ChatRequest, name: str) -> Content:
    """The same for an upstream that calls the model by a name of its own."""
    return Content(_encode({**_asking_usage(checked), "model": name}))


def _asking_usage(checked: ChatRequest) -> dict[str, Any]:
    asked = checked.body
    if checked.stream and not checked.include_usage:
        return {**asked, "stream_options": {**asked.get("stream_options", {}), **USAGE}}
    return asked
