"""Audio of every format in memory, and what is refused: no sound, too long, anything that names something else."""

import io

import av
import numpy as np
import pytest

from keepless.errors import Problem
from keepless.inference.embedded.audio import RATE, is_silent, samples_of


def tone(seconds: float, rate: int = 24_000) -> np.ndarray:
    times = np.arange(int(seconds * rate)) / rate
    return (np.sin(2 * np.pi * 440 * times) * 12000).astype(np.int16)


def encoded(container: str, codec: str, seconds: float = 1.0, rate: int = 24_000) -> bytes:
    """A tone as a file."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate)
        stream.layout = "mono"
        size = stream.frame_size or 1024
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=rate, frame_size=size)
        frame = av.AudioFrame.from_ndarray(tone(seconds, rate).reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = rate
        for one in [frame, None]:
            for piece in resampler.resample(one):
                file.mux(stream.encode(piece))
        file.mux(stream.encode(None))
    return out.getvalue()


def read(data: bytes, longest_s: int = 60) -> np.ndarray:
    return samples_of(data, longest_s, lambda: None)


@pytest.mark.parametrize(
    ("container", "codec", "rate"),
    [
        ("wav", "pcm_s16le", 24_000),
        ("wav", "pcm_mulaw", 8_000),
        ("mp3", "libmp3lame", 24_000),
        ("flac", "flac", 24_000),
        ("ogg", "libopus", 48_000),
        ("webm", "libopus", 48_000),
        ("ipod", "aac", 44_100),
    ],
)
def test_every_format_is_heard(container: str, codec: str, rate: int) -> None:
    samples = read(encoded(container, codec, 1.0, rate))
    assert samples.dtype == np.float32
    assert abs(len(samples) - RATE) < RATE / 5
    spectrum = np.abs(np.fft.rfft(samples[4000:12000]))
    assert abs(np.argmax(spectrum) * RATE / 8000 - 440) < 10
    assert not is_silent(samples)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"zebra",
        bytes(1000),
        encoded("wav", "pcm_s16le")[:40],
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'></MPD>",
        b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nm=audio 9 RTP/AVP 0\r\n",
    ],
)
def test_what_is_no_audio(data: bytes) -> None:
    with pytest.raises(Problem) as caught:
        read(data)
    assert (caught.value.status, caught.value.param) == (400, "file")
    assert "zebra" not in caught.value.message


def test_too_long_is_found_out_while_reading() -> None:
    with pytest.raises(Problem, match="invalid_value") as caught:
        read(encoded("flac", "flac", 3.0), longest_s=2)
    assert "2 seconds" in caught.value.message


def test_a_file_that_is_cut_is_heard_as_far_as_it_goes() -> None:
    whole = encoded("mp3", "libmp3lame", 2.0)
    assert RATE / 2 < len(read(whole[: len(whole) // 2])) < 1.5 * RATE


def test_silence() -> None:
    assert is_silent(np.zeros(100, dtype=np.float32))
    assert is_silent(np.full(100, 0.0005, dtype=np.float32))
    assert not is_silent(np.full(100, -0.01, dtype=np.float32))


def test_progress_is_told_and_may_end_it() -> None:
    class LeftError(Exception):
        pass

    def left() -> None:
        raise LeftError

    with pytest.raises(LeftError):
        samples_of(encoded("wav", "pcm_s16le"), 60, left)
