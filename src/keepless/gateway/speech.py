"""POST audio/speech: a text in, sound out as it is spoken.

Holds: `SpeechFamily` (what the endpoint has of its own, see handler), `SoundSpeaker` and `EventSpeaker`, the client's
side of one request. Leaves out: the steps of a request (handler), parameters (speech_params), voices and formats
(inference.embedded).

A failure after the first sound cuts the connection: there is no place for an error in a sound, and a client must not
take half of it for the whole. Events have such a place. Speech is counted in characters of the text.
"""

from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec

from keepless.accounts.principal import Principal
from keepless.config import Endpoint
from keepless.content import Content
from keepless.errors import Problem
from keepless.gateway.catalogue import capabilities_of
from keepless.gateway.handler import Arrival, JsonFamily, Served
from keepless.gateway.input_shape import NO_FLAG, sketch_of
from keepless.gateway.media_shapes import SpeechEvent
from keepless.gateway.reply import Outlet
from keepless.gateway.speaker import PlainSpeaker
from keepless.gateway.speech_params import PARAMETERS, SpeechRequest, SpeechRules
from keepless.gateway.wire import SSE
from keepless.http.limits import Grant, RateLimits
from keepless.inference.asking import NO_TOKENS, SSE_ANSWER, Ask, Ending, MalformedError, Tokens
from keepless.inference.embedded.asks import SpeechHeader
from keepless.inference.embedded.flite import RATE
from keepless.inference.embedded.formats import FORMATS
from keepless.inference.embedded.frames import pack
from keepless.inference.router import Route
from keepless.policy.controls import NO_REQUEST, RequestControls
from keepless.usage.record import Flag, Phase, Sketch

__all__ = ["EventSpeaker", "SoundSpeaker", "SpeechFamily"]

_PATH: Final = "/audio/speech"
_SOUND: Final = (b"audio/", b"application/octet-stream", b"application/ogg")
_CHARACTERS_A_TOKEN: Final = 4
_LONGEST_EVENT: Final = 4 * 1024 * 1024

_encode: Final = msgspec.json.Encoder().encode


_event: Final = msgspec.json.Decoder(SpeechEvent).decode


@dataclass(frozen=True, slots=True)
class _Model(Served):
    rules: SpeechRules


class SpeechFamily(JsonFamily[_Model, SpeechRequest]):
    """See `Family`."""

    def __init__(self, json_depth: int) -> None:
        super().__init__(Endpoint.SPEECH, json_depth)

    def serve(self, route: Route) -> _Model:
        """See `Family`."""
        rules = SpeechRules(route.model, capabilities_of(route.model))
        return _Model(route=route, id=route.model_id, endpoint=self.endpoint, path=_PATH, rules=rules)

    def check(self, arrival: Arrival, model: _Model) -> SpeechRequest:
        """See `Family`."""
        return model.rules.check(arrival.members, arrival.request.fields.get(b"accept"))

    def estimate(self, arrival: Arrival, checked: SpeechRequest) -> int:
        """See `Family`."""
        return _estimate(checked)

    def ask(
        self, arrival: Arrival, principal: Principal, model: _Model, checked: SpeechRequest, controls: RequestControls
    ) -> Ask:
        """See `Family`."""
        received = Content(arrival.request.body)
        answered_as = SSE_ANSWER if checked.events else _SOUND
        route = model.route
        sent = _framed(checked) if route.embedded else _for_upstream(checked, route.name or str(model.id))
        renamed = partial(_for_upstream, checked) if route.several_names else None
        return arrival.ask(
            principal, model, sent, received, controls, stream=True, answered_as=answered_as, renamed=renamed
        )

    def speaker(
        self, arrival: Arrival, ask: Ask, checked: SpeechRequest, grant: Grant | None, rates: RateLimits
    ) -> "SoundSpeaker":
        """See `Family`."""
        return (EventSpeaker if checked.events else SoundSpeaker)(arrival.outlet, ask, checked, grant, rates)

    def sketch(self, arrival: Arrival) -> Sketch:
        """See `Family`."""
        return sketch_of(
            arrival.body, PARAMETERS, arrival.phase, body_bytes=len(arrival.request.body), flags=Flag.AUDIO
        )


class SoundSpeaker(PlainSpeaker[SpeechRequest]):
    """The client's side of one request (`Speaker`): sound, as it comes."""

    __slots__ = ()

    def stream(self, data: bytes, retention: bytes) -> bool:
        """See `Speaker`."""
        self._begin(self._content_type, retention)
        self._send(data)
        return True

    def stream_ended(self) -> Ending:
        """See `Speaker`. Where a sound ends, only the end of the answer says."""
        return Ending.COMPLETE if self._spoke else Ending.CUT

    def close(self, kept: bytes | None) -> None:
        """See `Speaker`. There is no place in a sound to tell what was kept; the header said that it could be."""
        self._outlet.finish()

    def fail(self, problem: Problem, retention: bytes, kept: bytes | None) -> None:
        """See `Speaker`."""
        if self._spoke:
            self._outlet.abort()
        else:
            super().fail(problem, retention, kept)

    def sketch(self, phase: Phase, upstream_status: int, answered_bytes: int) -> Sketch:
        """See `Speaker`."""
        switched = NO_FLAG if self._ask.controls == NO_REQUEST else Flag.PRIVACY_SWITCH
        return sketch_of(
            self._checked.body,
            PARAMETERS,
            phase,
            body_bytes=self._ask.received.size,
            upstream_status=upstream_status,
            answered_bytes=answered_bytes,
            flags=Flag.AUDIO | switched | (Flag.STREAM if self._checked.events else NO_FLAG),
        )

    def settle(self, tokens: Tokens) -> None:
        """See `Speaker`. Characters are no tokens: once something was said, what the estimate charged stands."""
        super().settle(NO_TOKENS)

    def _begin(self, content_type: bytes, retention: bytes) -> None:
        if not self._spoke:
            # Until the engine says what it cost, in case it never comes to that.
            self.tokens = Tokens(self._checked.characters, 0, 0)
            self._begin_stream(content_type, retention)

    @property
    def _content_type(self) -> bytes:
        return FORMATS[self._checked.format].content_type.encode("ascii")


class EventSpeaker(SoundSpeaker):
    """The same as server-sent events: whole ones only, so that an error of ours never lands within one."""

    __slots__ = ("_held", "_last")

    def __init__(
        self, outlet: Outlet, ask: Ask, checked: SpeechRequest, grant: Grant | None, rates: RateLimits
    ) -> None:
        super().__init__(outlet, ask, checked, grant, rates)
        self._held = b""
        self._last = b""

    def stream(self, data: bytes, retention: bytes) -> bool:
        """See `Speaker`. Raises `MalformedError`."""
        data = self._held + data
        end = max(data.rfind(b"\n\n") + 2, data.rfind(b"\r\n\r\n") + 4)
        if end < 4:
            end = 0
        self._held, whole = data[end:], data[:end]
        if len(self._held) > _LONGEST_EVENT:
            raise MalformedError
        if whole:
            self._last = _last_type(whole) or self._last
            self._begin(SSE, retention)
            self._send(whole)
        return self._spoke

    def stream_ended(self) -> Ending:
        """See `Speaker`."""
        if self._held.strip() or not self._spoke:
            return Ending.CUT
        return _ENDINGS.get(self._last, Ending.CUT)

    def close(self, kept: bytes | None) -> None:
        """See `Speaker`."""
        PlainSpeaker.close(self, kept)

    def fail(self, problem: Problem, retention: bytes, kept: bytes | None) -> None:
        """See `Speaker`."""
        PlainSpeaker.fail(self, problem, retention, kept)


_ENDINGS: Final = {b"speech.audio.done": Ending.COMPLETE, b"error": Ending.FAILED}


def _last_type(whole: bytes) -> bytes:
    """The type of the last event with data."""
    for line in reversed(whole.replace(b"\r", b"\n").split(b"\n")):
        if line.startswith(b"data:"):
            try:
                return _event(line[5:]).type.encode()
            except (msgspec.MsgspecError, UnicodeDecodeError):
                continue
    return b""


def _estimate(checked: SpeechRequest) -> int:
    return -(-checked.characters // _CHARACTERS_A_TOKEN)


def _framed(checked: SpeechRequest) -> Content:
    """What our own engine is asked."""
    header = SpeechHeader(
        format=checked.format,
        rate=checked.rate or RATE,
        voice=checked.voice,
        speed=float(checked.body.get("speed", 1.0)),
        events=checked.events,
    )
    return Content(pack(_encode(header), checked.body["input"].encode("utf-8")))


def _for_upstream(checked: SpeechRequest, name: str) -> Content:
    """What an upstream is asked that calls the model by `name`: the format too by name, so that we know what comes."""
    return Content(_encode({**checked.body, "model": name, "response_format": checked.format}))
