"""The engine `flite` in its own process: a text comes in, sound goes out as it is spoken.

`python -m keepless.inference.embedded.flite_process`, started by the supervisor. Holds: the child's main,
`Speaking`. Leaves out: voices (flite), cutting (sentences), formats (sound), the process around them (child).

The head is told with the first sound: until then a failure is an answer of its own. A text that is one piece is spoken
whole before it is sent, so that a wav can say how long it is.
"""

import base64
import contextlib
from collections.abc import Callable
from typing import Final

import msgspec

from keepless.content import Content, Purpose
from keepless.errors import Code, Problem
from keepless.inference.embedded.asks import SpeechHeader
from keepless.inference.embedded.child import Channel, NotLoadedError, Work, run
from keepless.inference.embedded.engine import ChildSettings, Word
from keepless.inference.embedded.flite import RATE, Flite, SpeechFailedError
from keepless.inference.embedded.formats import FORMATS
from keepless.inference.embedded.frames import Cost
from keepless.inference.embedded.sentences import pieces, plain
from keepless.inference.embedded.sound import encoder, wav_header

__all__ = ["Speaking", "load"]

_EVENTS: Final = "text/event-stream; charset=utf-8"


class Speaking:
    """See `Work`."""

    def __init__(self, voices: Flite) -> None:
        self._voices: Final = voices

    def __call__(self, header: bytes, content: Content, channel: Channel) -> Cost:
        """See `Work`."""
        asked = msgspec.json.decode(header, type=SpeechHeader)
        text = content.reveal(Purpose.INFERENCE).decode("utf-8", "replace")
        parts = list(pieces(plain(text)))
        if not parts:
            raise _nothing_to_say()
        content_type = FORMATS[asked.format].content_type
        if asked.events:
            samples = self._speak(asked, parts, channel, _EVENTS, lambda sound: channel.data(_delta(sound)))
            channel.data(_done(len(text)))
        else:
            samples = self._speak(asked, parts, channel, content_type, channel.data)
        return Cost(prompt=len(text), audio_ms=samples * 1000 // RATE)

    def _speak(
        self, asked: SpeechHeader, parts: list[str], channel: Channel, content_type: str, send: Callable[[bytes], None]
    ) -> int:
        """Say everything; how many samples it was."""
        whole = len(parts) == 1 and asked.format == "wav"
        writer = encoder("pcm" if whole else asked.format, RATE, asked.rate)
        held: list[bytes] = []
        samples = 0
        spoken = self._voices.say(parts, voice=asked.voice, speed=asked.speed, idle=channel.progress)
        with contextlib.closing(spoken):
            for block in spoken:
                samples += len(block) // 2
                sound = writer.feed(block)
                if whole:
                    held.append(sound)
                    continue
                if not channel.begun:
                    channel.head(content_type)
                if sound:
                    send(sound)
        if not samples:
            raise _nothing_to_say()
        last = writer.finish()
        if whole:
            held.append(last)
            last = b"".join(held)
            last = wav_header(asked.rate, len(last) // 2) + last
            channel.head(content_type)
        if last:
            send(last)
        return samples


def load(settings: ChildSettings) -> Work:
    """Find the voices and let each say a word. Raises `NotLoadedError`."""
    try:
        voices = Flite(settings.model.path)
        for _ in voices.say(["Ready."], voice="slt", speed=1.0):
            pass
    except SpeechFailedError:
        raise NotLoadedError(Word.PROGRAM_MISSING) from None
    return Speaking(voices)


def _delta(sound: bytes) -> bytes:
    return b'data: {"type":"speech.audio.delta","audio":"%b"}\n\n' % base64.b64encode(sound)


def _done(characters: int) -> bytes:
    return b'data: {"type":"speech.audio.done","usage":{"input_tokens":%d,"output_tokens":0,"total_tokens":%d}}\n\n' % (
        characters,
        characters,
    )


def _nothing_to_say() -> Problem:
    message = "Invalid value for 'input': expected text that an English voice can say."
    return Problem(400, Code.INVALID_VALUE, message, param="input")


if __name__ == "__main__":
    run(load)
