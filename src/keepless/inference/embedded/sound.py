"""Samples as the sound formats of the speech endpoint, in memory and as they come.

Holds: `encoder` and `wav_header`. Leaves out: which formats there are (formats), where samples come from (flite).

Every format is written without going back: a client hears the beginning while the end is not yet spoken. So the header
of wav says that its length is unknown; players and the usual libraries then read to the end.
"""

from collections.abc import Iterator
from fractions import Fraction
from typing import Final, Protocol

import av
import numpy as np
import soundfile
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream

from keepless.inference.embedded.formats import FORMATS

__all__ = ["Encoder", "encoder", "wav_header"]

_UNKNOWN: Final = 0xFFFFFFFF
_BLOCK: Final = 4096  # samples given to libvorbis at once: it keeps a block on its stack


# No length written at the end, no date or version of a program, every packet out at once, a page each 0.2 s.
_OPTIONS: Final = {
    "fflags": "+bitexact",
    "flush_packets": "1",
    "write_xing": "0",
    "id3v2_version": "0",
    "page_duration": "200000",
}


class Encoder(Protocol):
    """One answer being written."""

    def feed(self, samples: bytes) -> bytes:
        """What can be written now of 16-bit mono samples (a whole number of them)."""

    def finish(self) -> bytes:
        """The rest."""


def encoder(name: str, rate_in: int, rate: int) -> Encoder:
    """The encoder of a format of the table."""
    kind = FORMATS[name]
    if kind.muxer is not None and kind.codec is not None:
        return _Muxed(kind.muxer, kind.codec, rate_in, rate)
    if name == "ogg":
        return _Vorbis(rate_in, rate)
    return _Plain(wav_header(rate, None) if name == "wav" else b"", rate_in, rate)


def wav_header(rate: int, samples: int | None) -> bytes:
    """The RIFF header of 16-bit mono; `samples` None = unknown."""
    data = _UNKNOWN if samples is None else 2 * samples
    return b"RIFF%bWAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00%b%b\x02\x00\x10\x00data%b" % (
        _word(min(data + 36, _UNKNOWN)),
        _word(rate),
        _word(2 * rate),
        _word(data),
    )


def _word(number: int) -> bytes:
    return number.to_bytes(4, "little")


class _Sink:
    """A file that is written forwards only; what was written is taken out."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._at = 0

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        self._at += len(data)
        return len(data)

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data


class _Seekless(_Sink):
    """The same for libsndfile, which asks where it is but does not go back when it writes Ogg."""

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        return b""


class _Rate:
    """Samples at another rate; nothing to do when it is the same."""

    def __init__(self, rate_in: int, rate: int) -> None:
        self._rate_in: Final = rate_in
        self._resampler: Final = None if rate == rate_in else AudioResampler("s16", "mono", rate)

    def feed(self, samples: bytes) -> Iterator[bytes]:
        if self._resampler is None:
            yield samples
        elif samples:
            for frame in self._resampler.resample(_frame(samples, self._rate_in)):
                yield frame.to_ndarray().tobytes()

    def finish(self) -> Iterator[bytes]:
        if self._resampler is not None:
            for frame in self._resampler.resample(None):
                yield frame.to_ndarray().tobytes()


class _Plain:
    """Samples as they are, behind a header."""

    def __init__(self, header: bytes, rate_in: int, rate: int) -> None:
        self._header = header
        self._rate: Final = _Rate(rate_in, rate)

    def feed(self, samples: bytes) -> bytes:
        header, self._header = self._header, b""
        return header + b"".join(self._rate.feed(samples))

    def finish(self) -> bytes:
        header, self._header = self._header, b""
        return header + b"".join(self._rate.finish())


class _Muxed:
    """What FFmpeg's libraries encode and put into a container."""

    def __init__(self, muxer: str, codec: str, rate_in: int, rate: int) -> None:
        self._sink: Final = _Sink()
        self._container: Final = av.open(self._sink, "w", format=muxer, container_options=dict(_OPTIONS))
        stream = self._container.add_stream(codec, rate=rate, layout="mono")
        if not isinstance(stream, AudioStream):
            raise TypeError("not a codec of sound")
        self._stream: Final = stream
        self._rate_in: Final = rate_in
        self._rate: Final = _Rate(rate_in, rate)
        self._out: Final = rate

    def feed(self, samples: bytes) -> bytes:
        for block in self._rate.feed(samples):
            self._encode(block)
        return self._sink.take()

    def finish(self) -> bytes:
        for block in self._rate.finish():
            self._encode(block)
        for packet in self._stream.encode(None):
            self._container.mux(packet)
        self._container.close()
        return self._sink.take()

    def _encode(self, samples: bytes) -> None:
        if samples:
            for packet in self._stream.encode(_frame(samples, self._out)):
                self._container.mux(packet)


class _Vorbis:
    """Ogg Vorbis, by libsndfile: FFmpeg's own encoder of it is an experiment."""

    def __init__(self, rate_in: int, rate: int) -> None:
        self._sink: Final = _Seekless()
        self._file: Final = soundfile.SoundFile(self._sink, "w", rate, 1, "VORBIS", format="OGG")
        self._rate: Final = _Rate(rate_in, rate)

    def feed(self, samples: bytes) -> bytes:
        for block in self._rate.feed(samples):
            self._write(block)
        return self._sink.take()

    def finish(self) -> bytes:
        for block in self._rate.finish():
            self._write(block)
        self._file.close()
        return self._sink.take()

    def _write(self, samples: bytes) -> None:
        array = np.frombuffer(samples, np.int16)
        for at in range(0, len(array), _BLOCK):
            self._file.write(array[at : at + _BLOCK])


def _frame(samples: bytes, rate: int) -> AudioFrame:
    frame = AudioFrame.from_ndarray(np.frombuffer(samples, np.int16).reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate = rate
    frame.time_base = Fraction(1, rate)
    return frame
