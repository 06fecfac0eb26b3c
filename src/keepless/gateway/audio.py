"""POST audio/transcriptions and audio/translations: speech in, text out.

Holds: `TranscriptionFamily` and `TranslationFamily` (what the endpoints have of their own, see handler) and
`AudioSpeaker`. Leaves out: the steps of a request (handler), parameters (audio_params), the form (multipart), what is
permitted and kept (pipeline).

The embedded engine is asked in frames, an upstream in a form of our own; what they answer is passed on byte for byte.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec

from keepless.accounts.principal import Principal
from keepless.config import Endpoint
from keepless.content import Content
from keepless.gateway.audio_params import AudioRequest, AudioRules, read_body
from keepless.gateway.catalogue import capabilities_of
from keepless.gateway.handler import Arrival, Family, Served
from keepless.gateway.multipart import FORM, new_boundary, write_form
from keepless.gateway.reply import Outlet
from keepless.gateway.rules import model_name
from keepless.gateway.speaker import PlainSpeaker
from keepless.gateway.transcripts import Usage, event_of, transcript_of
from keepless.gateway.wire import JSON, SSE, clamped, head_lines
from keepless.http.limits import Grant, RateLimits
from keepless.inference.asking import NO_TOKENS, SSE_ANSWER, Ask, Ending, MalformedError, Tokens
from keepless.inference.embedded.frames import pack
from keepless.inference.embedded.hearing import Format, Hearing, Task, content_type_of
from keepless.inference.router import Route
from keepless.outbound.fetch import Fetcher
from keepless.policy.controls import NO_REQUEST, RequestControls
from keepless.usage.record import Flag, Phase, Sketch

__all__ = ["AudioModel", "AudioSpeaker", "TranscriptionFamily", "TranslationFamily"]

_FRAMES: Final = b"application/octet-stream"
_LONGEST_EVENT: Final = 4 * 1024 * 1024
_MOST_SECONDS: Final = 10**7
_SNIFFED: Final = (
    (b"RIFF", "wav"), (b"fLaC", "flac"), (b"OggS", "ogg"), (b"\x1aE\xdf\xa3", "webm"), (b"ID3", "mp3"),
    (b"\xff\xfb", "mp3"), (b"\xff\xf3", "mp3"), (b"\xff\xf2", "mp3"),
)  # fmt: skip
_FILE_TYPES: Final = frozenset(one.value for one in Format)

_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class AudioModel(Served):
    """A model that hears."""

    rules: AudioRules


class _Family(Family[AudioModel, AudioRequest]):
    """What both endpoints have in common."""

    def __init__(
        self, endpoint: Endpoint, task: Task, json_depth: int, audio_bytes: int, fetcher: Fetcher | None
    ) -> None:
        self.endpoint = endpoint
        self._task: Final = task
        self._depth: Final = json_depth
        self._audio_bytes: Final = audio_bytes
        self._allowed: Final = None if fetcher is None else fetcher.target

    def serve(self, route: Route) -> AudioModel:
        """See `Family`."""
        model = route.model
        return AudioModel(
            route=route,
            id=route.model_id,
            endpoint=self.endpoint,
            path="/" + self.endpoint.value.replace(".", "/"),
            rules=AudioRules(self.endpoint, capabilities_of(model), self._audio_bytes, self._allowed),
        )

    def read(self, arrival: Arrival) -> str:
        """See `Family`."""
        request = arrival.request
        arrival.body = read_body(request.body, request.fields.get(b"content-type", b""), self._depth)
        return model_name(arrival.body)

    def check(self, arrival: Arrival, model: AudioModel) -> AudioRequest:
        """See `Family`."""
        return model.rules.check(arrival.members, batch=arrival.batch)

    def estimate(self, arrival: Arrival, checked: AudioRequest) -> int:
        """See `Family`. Speech costs seconds, not tokens."""
        return 0

    def ask(
        self,
        arrival: Arrival,
        principal: Principal,
        model: AudioModel,
        checked: AudioRequest,
        controls: RequestControls,
    ) -> Ask:
        """See `Family`."""
        received = Content(arrival.request.body)
        renamed: Callable[[str], Content] | None = None
        if model.route.embedded:
            kind, body = _FRAMES, pack(_encode(self._hearing(arrival, checked)), checked.audio)
        else:
            boundary = new_boundary()
            kind, body = FORM + boundary, _form(checked, boundary, model.route.name or str(model.id))
            if model.route.several_names:
                renamed = partial(_renamed, checked, boundary)
        return arrival.ask(
            principal,
            model,
            Content(body),
            received,
            controls,
            stream=checked.stream,
            content_type=kind,
            answered_as=SSE_ANSWER,
            renamed=renamed,
        )

    def speaker(
        self, arrival: Arrival, ask: Ask, checked: AudioRequest, grant: Grant | None, rates: RateLimits
    ) -> "AudioSpeaker":
        """See `Family`."""
        return AudioSpeaker(arrival.outlet, ask, checked, grant, rates)

    def sketch(self, arrival: Arrival) -> Sketch:
        """See `Family`."""
        members = arrival.body
        flags = Flag(0)
        if members is not None:
            flags = Flag.AUDIO | (Flag.STREAM if members.get("stream") is True else Flag(0))
        return Sketch(phase=arrival.phase, flags=flags, body_bytes=len(arrival.request.body))

    def _hearing(self, arrival: Arrival, checked: AudioRequest) -> Hearing:
        return Hearing(
            request_id=str(arrival.request_id),
            task=self._task,
            format=Format(checked.format),
            language=checked.language,
            prompt=checked.prompt,
            temperature=checked.temperature,
            words=checked.words,
            segments=checked.segments,
            stream=checked.stream,
        )


class TranscriptionFamily(_Family):
    """See `Family`."""

    def __init__(self, json_depth: int, audio_bytes: int, fetcher: Fetcher | None = None) -> None:
        super().__init__(Endpoint.TRANSCRIPTIONS, Task.TRANSCRIBE, json_depth, audio_bytes, fetcher)


class TranslationFamily(_Family):
    """See `Family`. Speech of any language to English text."""

    def __init__(self, json_depth: int, audio_bytes: int, fetcher: Fetcher | None = None) -> None:
        super().__init__(Endpoint.TRANSLATIONS, Task.TRANSLATE, json_depth, audio_bytes, fetcher)


class AudioSpeaker(PlainSpeaker[AudioRequest]):
    """The client's side of one request (`Speaker`): what the engine says, byte for byte."""

    __slots__ = ("_buffer", "_done")

    def __init__(self, outlet: Outlet, ask: Ask, checked: AudioRequest, grant: Grant | None, rates: RateLimits) -> None:
        super().__init__(outlet, ask, checked, grant, rates)
        self._buffer = b""
        self._done = False

    def stream(self, data: bytes, retention: bytes) -> bool:
        """See `Speaker`. Whole events only."""
        self._buffer += data.replace(b"\r\n", b"\n") if b"\r" in data else data
        end = self._buffer.rfind(b"\n\n") + 2
        if end < 2:
            if len(self._buffer) > _LONGEST_EVENT:
                raise MalformedError
            return self._spoke
        whole, self._buffer = self._buffer[:end], self._buffer[end:]
        for block in whole.split(b"\n\n"):
            self._note(block)
        if not self._spoke:
            self._begin_stream(SSE, retention)
        self._send(whole)
        return True

    def stream_ended(self) -> Ending:
        """See `Speaker`."""
        return Ending.COMPLETE if self._done and not self._buffer.strip() else Ending.CUT

    def read(self, body: bytes) -> None:
        """See `Speaker`. Of texts without members only the engine that we run says what they cost."""
        if self._checked.format not in ("json", "verbose_json", "diarized_json"):
            return
        found = transcript_of(body)
        if found is None:
            raise MalformedError
        self._take(found.usage or Usage(seconds=found.duration))

    def answer(self, status: int, body: bytes, retention: bytes) -> None:
        """See `Speaker`."""
        if status != 200:
            super().answer(status, body, retention)
            return
        self._spoke = True
        self.bytes_out += len(body)
        kind = JSON
        if self._checked.format in _FILE_TYPES:
            kind = content_type_of(Format(self._checked.format), stream=False).encode("ascii")
        self._outlet.full(200, head_lines(self._ask.request_id, retention, kind, self._rate_lines), body)

    def sketch(self, phase: Phase, upstream_status: int, answered_bytes: int) -> Sketch:
        """See `Speaker`."""
        flags = Flag.AUDIO | (Flag.STREAM if self._checked.stream else Flag(0))
        if self._ask.controls != NO_REQUEST:
            flags |= Flag.PRIVACY_SWITCH
        return Sketch(
            phase=phase,
            flags=flags,
            body_bytes=self._ask.received.size,
            largest_message_bytes=len(self._checked.audio),
            upstream_status=upstream_status,
            answered_bytes=answered_bytes,
        )

    def _note(self, block: bytes) -> None:
        """Whether an event is the last one that matters, and what it says of the cost."""
        for line in block.split(b"\n"):
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                self._done = True
                continue
            event = event_of(data)
            if event is not None and event.type == "transcript.text.done":
                self._done = True
                self._take(event.usage or Usage())

    def _take(self, usage: Usage) -> None:
        if self.tokens is NO_TOKENS:
            seconds = usage.seconds if 0 < usage.seconds < _MOST_SECONDS else 0.0
            self.tokens = Tokens(clamped(usage.input_tokens), clamped(usage.output_tokens), 0, round(seconds * 1000))


def _extension(audio: bytes) -> str:
    """What an upstream tells the format by; it is found in the first bytes, because a file's name is content."""
    for beginning, extension in _SNIFFED:
        if audio.startswith(beginning):
            return extension
    return "m4a" if audio[4:8] == b"ftyp" else "mp3"


def _form(checked: AudioRequest, boundary: bytes, name: str) -> bytes:
    """What an upstream is sent, the model by its name."""
    fields = [("model", name.encode()), *checked.fields]
    return write_form(boundary, fields, checked.audio, extension=_extension(checked.audio))


def _renamed(checked: AudioRequest, boundary: bytes, name: str) -> Content:
    """The same for an upstream that calls the model by a name of its own."""
    return Content(_form(checked, boundary, name))
