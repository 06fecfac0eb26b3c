"""Audio as it came (wav, mp3, flac, ogg, webm, m4a) to samples for Whisper, all in memory.

Holds: `samples_of` and `SilentOr`. Leaves out: the model. Only containers of this list are read: others (playlists, for
one) name further files or addresses, which a decoder would open.
"""

import io
from collections.abc import Callable, Iterator
from typing import Final

import av
import numpy as np
from numpy.typing import NDArray

from keepless.errors import Code, Problem

__all__ = ["RATE", "is_silent", "samples_of"]

RATE: Final = 16_000  # samples a second
_CONTAINERS: Final = {"format_whitelist": "wav,mp3,flac,ogg,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,aac"}
_SILENCE: Final = 1e-3  # of full scale, about -60 dB: below it there is nothing to hear
_AT_ONCE: Final = 500_000  # samples

Samples = NDArray[np.float32]


def samples_of(data: bytes, longest_s: int, progress: Callable[[], None]) -> Samples:
    """Mono samples from -1 to 1. Raises `Problem` (400) for what is no audio, or lasts longer than `longest_s`."""
    if not data:
        raise _bad("The audio file is empty.")
    pieces: list[NDArray[np.int16]] = []
    count = 0
    try:
        for piece in _decoded(data):
            pieces.append(piece)
            count += len(piece)
            if count > longest_s * RATE:
                raise _bad(f"The audio is longer than {longest_s} seconds, the most that this server takes.")
            progress()
    except (av.error.FFmpegError, ValueError, IndexError, EOFError):  # their texts may quote the file
        if not count:
            raise _bad(
                "The audio file could not be decoded. Supported are wav, mp3, flac, ogg, webm and m4a."
            ) from None
    if not count:
        raise _bad("The audio file has no sound in it.")
    samples = np.empty(count, dtype=np.float32)
    at = 0
    for piece in pieces:
        samples[at : at + len(piece)] = piece
        at += len(piece)
    samples /= 32768.0
    return samples


def is_silent(samples: Samples) -> bool:
    """Whether there is nothing to hear: a model would make words up."""
    return not samples.size or float(max(samples.max(), -samples.min())) < _SILENCE


def _decoded(data: bytes) -> Iterator[NDArray[np.int16]]:
    """Pieces of samples. What is broken within the file is passed over, as players do."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    fifo = av.AudioFifo()
    with av.open(io.BytesIO(data), mode="r", metadata_errors="ignore", options=_CONTAINERS) as container:
        if not container.streams.audio:
            raise _bad("The audio file has no sound in it.")
        frames = iter(container.decode(audio=0))
        while True:
            try:
                frame = next(frames)
            except StopIteration:
                break
            except av.error.InvalidDataError:
                continue
            frame.pts = None  # time stamps that jump are no reason to refuse
            fifo.write(frame)
            if fifo.samples >= _AT_ONCE:
                yield from _resampled(resampler, fifo.read())
        yield from _resampled(resampler, fifo.read() if fifo.samples else None)
        yield from _resampled(resampler, None)


def _resampled(resampler: av.AudioResampler, frame: av.AudioFrame | None) -> Iterator[NDArray[np.int16]]:
    for piece in resampler.resample(frame):
        yield np.asarray(piece.to_ndarray(), dtype=np.int16).reshape(-1)


def _bad(message: str) -> Problem:
    return Problem(400, Code.INVALID_VALUE, message, param="file")
