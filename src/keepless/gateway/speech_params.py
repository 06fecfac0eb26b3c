"""The parameters of audio/speech: OpenAI's and Groq's, in one table.

Holds: `PARAMETERS` (see rules for what a row says), `SpeechRules` (the table bound to one model, made once),
`SpeechRequest`, what a checked request comes to. Leaves out: the formats (inference.embedded.formats) and voices
(inference.embedded.voices) of the embedded engine, what an engine is asked (speech).

Where no format is asked for, it is OpenAI's default, mp3, but wav for a client that says it accepts that (Groq's does).
"""

from dataclasses import dataclass
from typing import Any, Final

from keepless.config import Engine, ModelConfig
from keepless.gateway import switches, values
from keepless.gateway.rules import Capabilities, Parameter, Rules, anything, plain
from keepless.gateway.values import Check, bad_type, bad_value, members, missing
from keepless.inference.embedded.formats import FORMATS, RATES
from keepless.inference.embedded.voices import ALIASES, VOICES, voice_of
from keepless.policy.controls import RequestControls

__all__ = ["CAPABILITIES", "PARAMETERS", "SpeechRequest", "SpeechRules"]

_WAV: Final = b"audio/wav"
_LONGEST_VOICE: Final = 256
_LONGEST_INSTRUCTIONS: Final = 4096


@dataclass(slots=True)
class SpeechRequest:
    """A checked request. `body`: parameters of the table only, no switches, no nulls. `events`: as SSE."""

    body: dict[str, Any]
    controls: RequestControls
    format: str
    voice: str
    events: bool
    stream: bool = True  # every answer is sent as it comes

    @property
    def characters(self) -> int:
        """Of the text, which is what speech is counted in."""
        return len(self.body["input"])

    @property
    def rate(self) -> int | None:
        """Samples a second; None = as the voice is."""
        found = self.body.get("sample_rate", FORMATS[self.format].default_rate)
        return None if found is None else int(found)


def _sample_rate(value: Any) -> None:
    values.integer("sample_rate", RATES[0], RATES[-1])(value)
    if value not in RATES:
        raise bad_value("sample_rate", f"one of {', '.join(map(str, RATES))}")


def _voice(value: Any) -> None:
    if type(value) is dict:
        value = members("voice", value, {"id"}).get("id")
        if value is None:
            raise missing("voice.id")
        values.text("voice.id", _LONGEST_VOICE)(value)
    elif type(value) is not str:
        raise bad_type("voice", "a string or an object with an id", value)
    else:
        values.text("voice", _LONGEST_VOICE)(value)


PARAMETERS: Final[dict[str, Parameter]] = {
    "model": Parameter(plain(lambda: anything)),  # looked up before
    "input": Parameter(plain(lambda: anything)),  # checked with the model's limit
    "voice": Parameter(plain(lambda: _voice)),
    "response_format": Parameter(plain(values.choice, "response_format", frozenset(FORMATS))),
    "sample_rate": Parameter(plain(lambda: _sample_rate), "sample_rate"),
    "speed": Parameter(plain(values.number, "speed", 0.25, 4.0), "speed", (1, 1.0)),
    "instructions": Parameter(plain(values.text, "instructions", _LONGEST_INSTRUCTIONS), "instructions", ("",)),
    "stream_format": Parameter(plain(values.choice, "stream_format", frozenset({"audio", "sse"})), "sse", ("audio",)),
    **{member.path[0]: Parameter(plain(lambda: anything)) for member in switches.BODY},
}
CAPABILITIES: Final = frozenset({"sample_rate", "speed", "sse"})  # the embedded engine's


class SpeechRules(Rules):
    """The table bound to one model's capabilities."""

    def __init__(self, model: ModelConfig, capabilities: Capabilities) -> None:
        super().__init__(model, PARAMETERS, capabilities)
        self._checks["input"] = _input(model.max_input_characters)
        self._ours = model.engine is Engine.FLITE

    def check(self, body: dict[str, Any], accept: bytes | None) -> SpeechRequest:
        """Check a decoded body; takes switches and nulls out of it. `accept`: the header. Raises `Problem` (400)."""
        controls = self._read(body, "input", "voice")
        wanted = body.get("response_format")
        if wanted is None:
            wanted = "wav" if accept is not None and accept.strip().lower() == _WAV else "mp3"
        voice = body["voice"]["id"] if type(body["voice"]) is dict else body["voice"]
        if self._ours:
            voice = _ours(body, wanted, voice)
        return SpeechRequest(body, controls, wanted, voice, events=body.get("stream_format") == "sse")


def _ours(body: dict[str, Any], wanted: str, voice: str) -> str:
    """What only the embedded engine minds: rates of a format, and its own voices. The voice. Raises `Problem` (400)."""
    rates = FORMATS[wanted].rates
    if body.get("sample_rate", rates[0]) not in rates:
        raise bad_value("sample_rate", f"one of {', '.join(map(str, rates))} for this format")
    found = voice_of(voice)
    if found is None:
        raise bad_value("voice", f"one of {', '.join(sorted(VOICES))}, or OpenAI's {', '.join(sorted(ALIASES))}")
    return found


def _input(most: int) -> Check:
    longest = values.text("input", most)

    def check(value: Any) -> None:
        longest(value)
        if not value.strip():
            raise bad_value("input", "a string that is not empty")

    return check
