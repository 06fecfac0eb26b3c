"""The engine whisper: its features are the library's, and its process writes nothing, calls nobody and says nothing."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from faster_whisper.feature_extractor import FeatureExtractor

from keepless.config import Engine, ModelConfig
from keepless.content import Content
from keepless.inference.embedded.child import GoneError
from keepless.inference.embedded.engine import ChildSettings
from keepless.inference.embedded.frames import Frames, Kind, frame, pack
from keepless.inference.embedded.hearing import Hearing
from keepless.inference.embedded.whisper_process import BlockFeatures, load
from tests.support.channel import FakeChannel
from tests.support.spoken import SENTENCE, heard_wrong, spoken

MODEL = ModelConfig(id="whisper-base", engine=Engine.WHISPER, threads=1, parallel=1)
SECRET = "zebrafish"
CHILD = [sys.executable, "-B", "-m", "keepless.inference.embedded.whisper_process"]
CALLS = "open,openat,openat2,creat,rename,renameat,renameat2,link,linkat,mkdir,mkdirat,truncate,memfd_create,connect"
STRACE = ["strace", "-f", "-qq", "-s", "4096", "-e", f"trace={CALLS}"]


def test_features_in_blocks_are_those_of_the_library() -> None:
    waveform = np.random.default_rng(7).normal(0, 0.1, 16_000 * 131 + 77).astype(np.float32)
    library = FeatureExtractor()
    blocks = BlockFeatures(library)
    for samples in (waveform, waveform[:16_000], waveform[: 16_000 * 60]):
        np.testing.assert_allclose(blocks(samples), library(samples), atol=2e-5)
    assert blocks.nb_max_frames == library.nb_max_frames


def told(path: Path, header: bytes, content: bytes) -> tuple[list[Kind], bytes]:
    """One request on the socket: the kinds of its answer but signs of life, and its data."""
    frames, kinds, data = Frames(1_000_000), [], b""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(100)
        sock.connect(str(path))
        sock.sendall(frame(Kind.KEY, b"the-key") + pack(header, content))
        while piece := sock.recv(65536):
            for kind, payload in frames.feed(piece):
                if kind is not Kind.PROGRESS:
                    kinds.append(kind)
                data += payload if kind is Kind.DATA else b""
            if kinds[-1:] in ([Kind.END], [Kind.FAILURE]):
                break
    return kinds, data


def test_it_writes_no_file_and_calls_nobody(tmp_path: Path) -> None:
    trace, at = tmp_path / "trace", tmp_path / "s"
    ours, theirs = socket.socketpair()
    with ours, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(at))
        listening.listen()
        # The child takes its listening socket from descriptor 3.
        script = f"import os; os.dup2({listening.fileno()}, 3); os.execv({sys.executable!r}, {CHILD!r})"
        with theirs:
            process = subprocess.Popen(
                [*STRACE, "-o", str(trace), sys.executable, "-c", script],
                stdin=theirs,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[listening.fileno()],
                env={**os.environ, "HF_HUB_OFFLINE": "1", "ORT_DISABLE_TELEMETRY": "1"},
            )
        ours.settimeout(100)
        ours.sendall(msgspec.json.encode(ChildSettings(model=MODEL, key="the-key", content_limit=10_000_000)) + b"\n")
        assert ours.makefile("rb").readline() == b"ready\n"
        header = msgspec.json.encode(Hearing(request_id="req_1", language="en", prompt=SECRET))
        kinds, heard = told(at, header, spoken())
        assert kinds == [Kind.HEAD, Kind.DATA, Kind.END]
        assert heard_wrong(SENTENCE, msgspec.json.decode(heard)["text"]) <= 0.35
        assert told(at, header, SECRET.encode())[0] == [Kind.HEAD, Kind.DATA, Kind.END]
        ours.close()
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert said == b""
    lines = trace.read_text().splitlines()
    assert any("libctranslate2" in line for line in lines), "the trace saw nothing"
    writing = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TMPFILE|creat\(|rename|link(at)?\(|mkdir")
    # Locks between processes of the threading library: empty, in memory, and unlinked at once.
    wrote = [line for line in lines if writing.search(line) and "/dev/shm/" not in line]
    assert wrote == []
    assert [line for line in lines if "connect(" in line and "AF_INET" in line] == []
    assert SECRET not in trace.read_text()


class LeavesAtTheFirstWords(FakeChannel):
    def data(self, data: bytes) -> None:
        super().data(data)
        self._left = 0


def test_a_client_that_leaves_stops_the_work_within_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real model: of a recording of two windows one is encoded and decoded."""
    work = load(ChildSettings(model=MODEL, key="the-key", content_limit=10_000_000))
    steps: list[str] = []

    def counted(name: str) -> None:
        step = getattr(work._model, name)

        def done(*args, **kwargs):
            found = step(*args, **kwargs)
            steps.append(name)
            return found

        monkeypatch.setattr(work._model, name, done)

    counted("encode")
    counted("generate_with_fallback")
    header = msgspec.json.encode(Hearing(request_id="req_1", language="en", stream=True))
    recording = Content(spoken(" ".join([SENTENCE] * 6)))
    channel = LeavesAtTheFirstWords()
    with pytest.raises(GoneError):
        work(header, recording, channel)
    assert steps == ["encode", "generate_with_fallback"]
    assert len(channel.pieces) == 1
    with pytest.raises(GoneError):  # on its way to the first window
        work(header, recording, FakeChannel(2))
    assert len(steps) == 2
