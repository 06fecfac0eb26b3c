"""What of an engine's transcripts matters here: that they are some, and what they cost.

Holds: `transcript_of`, `event_of` and what they give. Leaves out: passing them on (audio). Stays interpreted when the
request path is compiled, because msgspec reads annotations.
"""

from typing import Final

import msgspec

__all__ = ["Event", "Transcript", "Usage", "event_of", "transcript_of"]

_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Usage(msgspec.Struct, gc=False):
    """Of either kind: tokens or a duration."""

    seconds: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0


class Transcript(msgspec.Struct, gc=False):
    """A whole answer."""

    text: str
    duration: float = 0.0
    usage: Usage | None = None


class Event(msgspec.Struct, gc=False):
    """One event of a stream."""

    type: str = ""
    usage: Usage | None = None


_transcript: Final = msgspec.json.Decoder(Transcript).decode
_event: Final = msgspec.json.Decoder(Event).decode


def transcript_of(body: bytes) -> Transcript | None:
    """A whole answer, None when it is none."""
    try:
        return _transcript(body)
    except _UNREADABLE:
        return None


def event_of(data: bytes) -> Event | None:
    """The data of an event, None when it is no JSON object."""
    try:
        return _event(data)
    except _UNREADABLE:
        return None
