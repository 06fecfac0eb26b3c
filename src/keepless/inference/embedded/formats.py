"""The sound formats of the speech endpoint: what each is called on the wire and may be sampled at.

Holds: `FORMATS`, `RATES`. Leaves out: the encoders (sound), which only the engine's own process loads.
"""

from dataclasses import dataclass
from typing import Final

__all__ = ["FORMATS", "RATES", "Format"]

RATES: Final = (8000, 16000, 22050, 24000, 32000, 44100, 48000)
_OPUS_RATES: Final = (8000, 16000, 24000, 48000)


@dataclass(frozen=True, slots=True)
class Format:
    """One format. `content_type` may name the rate; `default_rate` None = as it is spoken."""

    content_type: str
    rates: tuple[int, ...] = RATES
    default_rate: int | None = None
    muxer: str | None = None
    codec: str | None = None


FORMATS: Final[dict[str, Format]] = {
    "wav": Format("audio/wav"),
    "pcm": Format("audio/pcm", default_rate=24000),  # OpenAI's: no header says the rate, clients play it at 24 kHz
    "mulaw": Format("audio/basic", default_rate=8000, muxer="mulaw", codec="pcm_mulaw"),
    "mp3": Format("audio/mpeg", muxer="mp3", codec="libmp3lame"),
    "flac": Format("audio/flac", muxer="flac", codec="flac"),
    "opus": Format("audio/ogg; codecs=opus", rates=_OPUS_RATES, muxer="ogg", codec="libopus"),
    "ogg": Format("audio/ogg"),
    "aac": Format("audio/aac", muxer="adts", codec="aac"),
}
