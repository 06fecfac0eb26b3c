"""Every format, decoded again by somebody else's decoder."""

import io
import wave

import av
import numpy as np
import pytest
import soundfile

from keepless.inference.embedded.formats import FORMATS
from keepless.inference.embedded.sound import encoder, wav_header

RATE = 16_000
SECONDS = 3.0
TONE = 440.0
CASES = [(name, rate) for name, kind in FORMATS.items() for rate in kind.rates]
# What a codec adds before the first sample, at most.
LEAD_S = 0.3


def tone(seconds: float = SECONDS) -> bytes:
    at = np.arange(int(seconds * RATE)) / RATE
    return (8000 * np.sin(2 * np.pi * TONE * at)).astype("<i2").tobytes()


def noise(seconds: float) -> bytes:
    return np.random.default_rng(7).normal(0, 3000, int(seconds * RATE)).astype("<i2").tobytes()


def encoded(name: str, rate: int, samples: bytes | None = None) -> list[bytes]:
    samples, step = samples or tone(), 2 * 4000
    writer = encoder(name, RATE, rate)
    parts = [writer.feed(samples[at : at + step]) for at in range(0, len(samples), step)]
    return [*parts, writer.finish()]


def decoded(name: str, rate: int, data: bytes) -> tuple[np.ndarray, int]:
    if name == "pcm":
        return np.frombuffer(data, "<i2").astype(float), rate
    if name == "mulaw":
        with av.open(io.BytesIO(data), format="mulaw", options={"sample_rate": str(rate)}) as container:
            return np.concatenate([f.to_ndarray().reshape(-1) for f in container.decode(audio=0)]).astype(float), rate
    if name == "ogg":
        samples, found = soundfile.read(io.BytesIO(data))
        return samples, found
    with av.open(io.BytesIO(data)) as container:
        frames = list(container.decode(audio=0))
    return np.concatenate([f.to_ndarray().reshape(-1) for f in frames]).astype(float), frames[0].sample_rate


@pytest.mark.parametrize(("name", "rate"), CASES)
def test_what_is_heard_is_what_was_said(name: str, rate: int) -> None:
    samples, found = decoded(name, rate, b"".join(encoded(name, rate)))
    assert found == (48_000 if name == "opus" else rate)  # Opus is always heard at 48 kHz
    assert len(samples) / found + 1e-3 >= SECONDS
    assert len(samples) / found < SECONDS + LEAD_S
    middle = samples[found : 2 * found]
    strongest = np.abs(np.fft.rfft(middle)).argmax()
    assert strongest == pytest.approx(TONE, abs=2)


@pytest.mark.parametrize("name", FORMATS)
def test_the_beginning_is_there_before_the_end_is_spoken(name: str) -> None:
    rate = FORMATS[name].default_rate or RATE
    parts = encoded(name, rate, noise(10))
    samples, found = decoded(name, rate, b"".join(parts[: len(parts) // 2]))
    assert len(samples) / found > 2


@pytest.mark.parametrize("name", FORMATS)
def test_no_sample_at_all_is_no_failure(name: str) -> None:
    encoder(name, RATE, FORMATS[name].default_rate or RATE).finish()


def test_a_wav_of_known_length_says_so() -> None:
    data = wav_header(RATE, 100) + bytes(200)
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth(), file.getnframes()) == (RATE, 1, 2, 100)


def test_a_wav_of_unknown_length_is_read_to_its_end() -> None:
    data = b"".join(encoded("wav", RATE))
    samples, _ = soundfile.read(io.BytesIO(data), dtype="int16")
    assert samples.tobytes() == tone()
    with wave.open(io.BytesIO(data)) as file:
        assert file.readframes(10**6) == tone()


def test_the_same_samples_give_the_same_bytes_so_a_format_says_nothing_of_who_made_it_when() -> None:
    for name in FORMATS:
        rate = FORMATS[name].default_rate or RATE
        if name != "ogg":  # a stream's serial number is random there
            assert encoded(name, rate) == encoded(name, rate)
