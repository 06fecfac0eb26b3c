"""The embedded engines through Keepless against each engine alone: the same weights, settings and run, turn by turn.

Holds: `chatting`, `hearing`, `speaking`, `embedding`, `starting`. What runs alone is a process of its own that does
what the library's own users would do; both have answered once before the clock starts. Both are timed from outside, by
the one who asks, so a ratio is what Keepless costs (1.1 = 10 % slower than the library).
"""

import http.client
import json
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from benchmarks.targets import OUT
from keepless.gateway.multipart import FORM, write_form

__all__ = ["chatting", "embedding", "hearing", "speaking", "starting"]

Figures = dict[str, float]
_TEXT = "The quick brown fox jumps over the lazy dog, and seven purple elephants walk along the river in the evening. "
_TALE = {
    "model": "model",
    "messages": [{"role": "user", "content": "Tell me a long story about a lighthouse keeper and his seven cats."}],
    "max_tokens": 128,
    "temperature": 0,
    "stream": True,
    "stream_options": {"include_usage": True},
}
_ALONE = {
    "llama": """
import sys, xllamacpp
from keepless.config import Engine, ModelConfig
from keepless.inference.embedded.engine import EngineSettings, weights_of
from keepless.inference.embedded.llama_process import _parameters
weights, _ = weights_of(ModelConfig(id="model", engine=Engine.LLAMA))
at, threads = sys.argv[1], int(sys.argv[2])
settings = EngineSettings(weights=weights, sha256=None, socket=at, key="alone", alias="model", threads=threads,
                          parallel=4, context=2048)
server = xllamacpp.Server(_parameters(settings))
print("ready", flush=True)
sys.stdin.read()
""",
    "whisper": """
import io, sys, time
from faster_whisper import WhisperModel
from keepless.config import Engine, ModelConfig
from keepless.inference.embedded.whisper_process import _loaded
model = _loaded(ModelConfig(id="model", engine=Engine.WHISPER, threads=int(sys.argv[2]), parallel=1))
data = open(sys.argv[1], "rb").read()
for line in sys.stdin:
    began = time.perf_counter()
    segments, info = model.transcribe(io.BytesIO(data), language="en", temperature=0.0)
    text = "".join(segment.text for segment in segments)
    print(time.perf_counter() - began, info.duration, flush=True)
""",
    "flite": """
import subprocess, sys, time, wave
for line in sys.stdin:
    began = time.perf_counter()
    command = ["flite", "-voice", "slt", "-f", sys.argv[1], "-o", "/dev/shm/keepless-bench.wav"]
    subprocess.run(command, check=True)
    took = time.perf_counter() - began
    with wave.open("/dev/shm/keepless-bench.wav") as sound:
        print(took, sound.getnframes() / sound.getframerate(), flush=True)
""",
    "minilm": """
import importlib.util, sys, time
from pathlib import Path
from keepless.inference.embedded.minilm import MiniLM
from keepless.inference.embedded.minilm_process import _PACKAGE
place = Path(importlib.util.find_spec(_PACKAGE).origin).parent
model = MiniLM(next(place.rglob("model.safetensors")).parent)
texts = Path(sys.argv[1]).read_text().split("|")
for line in sys.stdin:
    began = time.perf_counter()
    for _ in model.embed(model.tokens(texts)):
        pass
    print(time.perf_counter() - began, len(texts), flush=True)
""",
}


def hearing(repeats: int, sentences: int, threads: int) -> Figures:
    """Seconds for a recording, medians, and their ratio."""
    folder = _folder("hearing")
    sound = folder / "sound.wav"
    spoken = (_TEXT * sentences).encode()
    subprocess.run(["flite", "-voice", "slt", "-f", "/dev/stdin", "-o", str(sound)], input=spoken, check=True)
    fields = [("model", b"model"), ("language", b"en"), ("temperature", b"0")]
    form = write_form(b"XX", fields, sound.read_bytes(), extension="wav")
    with _served("whisper", folder, threads) as told, _alone("whisper", sound, threads) as alone:
        request = _request(told, "/audio/transcriptions", form, (FORM + b"XX").decode())
        return _compare(request, alone, repeats)


def speaking(repeats: int, sentences: int) -> Figures:
    """Seconds to speak a text whole (wav), medians, and their ratio; the library is the `flite` program."""
    folder = _folder("speaking")
    text = folder / "text"
    text.write_text(_TEXT * sentences)
    body = {"model": "model", "voice": "slt", "input": _TEXT * sentences, "response_format": "wav"}
    with _served("flite", folder, 1) as told, _alone("flite", text, 1) as alone:
        return _compare(_request(told, "/audio/speech", json.dumps(body).encode()), alone, repeats)


def embedding(repeats: int, texts: int) -> Figures:
    """Seconds for a request of many texts, medians, and their ratio."""
    folder = _folder("embedding")
    inputs = [f"{number}: {_TEXT}" for number in range(texts)]
    (folder / "texts").write_text("|".join(inputs))
    body = {"model": "model", "input": inputs, "encoding_format": "base64"}
    with _served("minilm", folder, 1) as told, _alone("minilm", folder / "texts", 1) as alone:
        return _compare(_request(told, "/embeddings", json.dumps(body).encode()), alone, repeats)


def chatting(repeats: int, threads: int) -> Figures:
    """Tokens a second of one stream and of four at once, and milliseconds to the first token, of both."""
    folder = _folder("chatting")
    place = folder / "engine.sock"
    with _served("llama", folder, threads) as told, _alone("llama", place, threads) as alone:
        assert alone.stdout is not None
        alone.stdout.readline()
        port = int(told["url"].rsplit(":", 1)[1])
        ours = _Asker(lambda: http.client.HTTPConnection("127.0.0.1", port), told["api_key"])
        theirs = _Asker(lambda: _Unix(place), "alone")
        turns = []
        for turn in range(repeats + 1):
            pair = [(asker.ask()[1], asker.at_once(4)) for asker in (ours, theirs)]
            if turn:
                turns.append(pair)
        # Many short answers: the engine's own time to a first token varies by more than what is asked for here.
        firsts = []
        for turn in range(10 * repeats):
            first = {asker: asker.ask(2)[0] for asker in ((ours, theirs) if turn % 2 else (theirs, ours))}
            firsts.append((first[ours], first[theirs]))
    median = statistics.median
    return {
        "keepless_tokens_per_s": median(ours[0] for ours, _ in turns),
        "engine_tokens_per_s": median(theirs[0] for _, theirs in turns),
        "ratio": median(theirs[0] / ours[0] for ours, theirs in turns),
        "keepless_tokens_per_s_of_4": median(ours[1] for ours, _ in turns),
        "engine_tokens_per_s_of_4": median(theirs[1] for _, theirs in turns),
        "ratio_of_4": median(theirs[1] / ours[1] for ours, theirs in turns),
        "keepless_first_token_ms": median(ours for ours, _ in firsts),
        "engine_first_token_ms": median(theirs for _, theirs in firsts),
        "added_first_token_ms": median(ours - theirs for ours, theirs in firsts),
    }


def starting(repeats: int) -> Figures:
    """Seconds from the start of `serve` (on a folder that is there, weights in the page cache) to a first answer."""
    folder = _folder("starting")
    taken = []
    with _served("llama", folder, 2) as told:
        key = told["api_key"]
    for _ in range(repeats):
        began = time.perf_counter()
        with _served("llama", folder, 2) as told:
            body = json.dumps(_TALE | {"max_tokens": 1, "stream": False, "stream_options": None}).encode()
            with urllib.request.urlopen(_request(told | {"api_key": key}, "/chat/completions", body)) as answer:
                answer.read()
            taken.append(time.perf_counter() - began)
    return {"seconds": statistics.median(taken), "most": max(taken)}


class _Unix(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, place: Path) -> None:
        super().__init__("engine")
        self._place = place

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._place))


class _Asker:
    """Asks one side for the tale, streamed."""

    def __init__(self, connect: object, key: str) -> None:
        self._connect, self._key = connect, key

    def ask(self, most: int = 128) -> tuple[float, float]:
        """Milliseconds to the first token, and tokens a second from then on."""
        connection = self._connect()
        head = {"authorization": f"Bearer {self._key}", "content-type": "application/json"}
        began = time.perf_counter()
        connection.request("POST", "/v1/chat/completions", json.dumps(_TALE | {"max_tokens": most}), head)
        answer = connection.getresponse()
        first = last = 0.0
        tokens = 0
        for line in answer:
            if line.startswith(b"data: {"):
                event = json.loads(line[6:])
                tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
                if event["choices"] and event["choices"][0]["delta"].get("content"):
                    last = time.perf_counter()
                    first = first or last
        connection.close()
        return (first - began) * 1000, (tokens - 1) / max(last - first, 1e-9)

    def at_once(self, count: int) -> float:
        """Tokens a second of several streams together."""
        with ThreadPoolExecutor(count) as pool:
            return sum(rate for _, rate in pool.map(lambda _: self.ask(), range(count)))


@contextmanager
def _served(engine: str, folder: Path, threads: int) -> Iterator[dict[str, str]]:
    parallel = 4 if engine == "llama" else 1
    model = (
        f'[[models]]\nid = "model"\nengine = "{engine}"\nthreads = {threads}\nparallel = {parallel}\npreload = true\n'
    )
    (folder / "keepless.toml").write_text(model)
    command = [sys.executable, "-m", "keepless", "serve", "--json", "--port", "0", "--config"]
    command += [str(folder / "keepless.toml"), "--data-dir", str(folder / "data")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def _alone(engine: str, place: Path, threads: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", _ALONE[engine], str(place), str(threads)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def _folder(name: str) -> Path:
    folder = OUT / "run" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _request(told: dict[str, str], path: str, body: bytes, kind: str = "application/json") -> urllib.request.Request:
    head = {"authorization": f"Bearer {told['api_key']}", "content-type": kind}
    return urllib.request.Request(told["url"] + "/v1" + path, body, head)


def _compare(request: urllib.request.Request, alone: subprocess.Popen[str], repeats: int) -> Figures:
    ours, theirs, amount = [], [], 0.0
    for turn in range(repeats + 1):
        began = time.perf_counter()
        with urllib.request.urlopen(request, timeout=600) as answer:
            answer.read()
        took = time.perf_counter() - began
        alone.stdin.write("\n")
        alone.stdin.flush()
        other, amount = (float(number) for number in alone.stdout.readline().split())
        if turn:  # the first makes both warm
            ours.append(took)
            theirs.append(other)
    one, two = statistics.median(ours), statistics.median(theirs)
    return {
        "amount": amount,  # seconds of audio; texts
        "keepless_s": one,
        "library_s": two,
        "keepless_s_per_unit": one / amount,
        "library_s_per_unit": two / amount,
        "ratio": statistics.median(a / b for a, b in zip(ours, theirs, strict=True)),
    }
