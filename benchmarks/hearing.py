"""Transcription through Keepless against the library alone: the same recording, settings and run, turn by turn.

Holds: `hearing`. The library runs in a process of its own with the same weights, threads and options; its time is that
of decoding, features and text. Both have made one transcript before the clock starts.
"""

import json
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request

from benchmarks.targets import OUT
from keepless.gateway.multipart import FORM, write_form

_TEXT = "The quick brown fox jumps over the lazy dog, and seven purple elephants walk along the river in the evening. "
_ALONE = """
import io, sys, time
from faster_whisper import WhisperModel
from faster_whisper.audio import decode_audio
from keepless.config import Engine, ModelConfig
from keepless.inference.embedded.whisper_process import _loaded
model = _loaded(ModelConfig(id="whisper", engine=Engine.WHISPER, threads=int(sys.argv[2]), parallel=1))
data = open(sys.argv[1], "rb").read()
for line in sys.stdin:
    began = time.perf_counter()
    segments, info = model.transcribe(io.BytesIO(data), language="en", temperature=0.0)
    text = "".join(segment.text for segment in segments)
    print(time.perf_counter() - began, info.duration, flush=True)
"""


def hearing(repeats: int, sentences: int, threads: int) -> dict[str, float]:
    """Seconds for the recording, medians, and their ratio (1.1 = 10 % slower than the library)."""
    folder = OUT / "run" / "hearing"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    sound = folder / "sound.wav"
    spoken = (_TEXT * sentences).encode()
    subprocess.run(["flite", "-voice", "slt", "-f", "/dev/stdin", "-o", str(sound)], input=spoken, check=True)
    model = f'[[models]]\nid = "whisper"\nengine = "whisper"\nthreads = {threads}\nparallel = 1\npreload = true\n'
    (folder / "keepless.toml").write_text(model)
    command = [sys.executable, "-m", "keepless", "serve", "--json", "--port", "0", "--config"]
    served = subprocess.Popen(
        [*command, str(folder / "keepless.toml"), "--data-dir", str(folder / "data")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    alone = subprocess.Popen(
        [sys.executable, "-c", _ALONE, str(sound), str(threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        return _compare(served, alone, sound.read_bytes(), repeats)
    finally:
        for process in (served, alone):
            process.terminate()
            process.wait(30)


def _compare(served: subprocess.Popen, alone: subprocess.Popen, sound: bytes, repeats: int) -> dict[str, float]:
    told = json.loads(served.stdout.readline())
    fields = [("model", b"whisper"), ("language", b"en"), ("temperature", b"0")]
    request = urllib.request.Request(
        told["url"] + "/v1/audio/transcriptions",
        write_form(b"XX", fields, sound, extension="wav"),
        {"authorization": f"Bearer {told['api_key']}", "content-type": (FORM + b"XX").decode()},
    )
    ours, theirs, seconds = [], [], 0.0
    for turn in range(repeats + 1):
        began = time.perf_counter()
        with urllib.request.urlopen(request, timeout=600) as answer:
            answer.read()
        took = time.perf_counter() - began
        alone.stdin.write("\n")
        alone.stdin.flush()
        other, seconds = (float(number) for number in alone.stdout.readline().split())
        if turn:  # the first makes both warm
            ours.append(took)
            theirs.append(other)
    one, two = statistics.median(ours), statistics.median(theirs)
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    return {
        "audio_s": seconds,
        "keepless_s": one,
        "library_s": two,
        "keepless_rtf": one / seconds,
        "library_rtf": two / seconds,
        "ratio": ratio,
    }
