"""An engine for tests of the framework: it does what the header says with the content. Run as an engine's child."""

import ctypes
import os
import time
from pathlib import Path

from keepless.content import Content, Purpose
from keepless.errors import Code, Problem
from keepless.inference.embedded.child import Channel, NotLoadedError, Work, run
from keepless.inference.embedded.engine import ChildSettings, Word
from keepless.inference.embedded.frames import Cost


def load(settings: ChildSettings) -> Work:
    if settings.model.path is not None:
        raise NotLoadedError(Word(settings.model.path))
    return answer


def answer(header: bytes, content: Content, channel: Channel) -> Cost:
    body = content.reveal(Purpose.INFERENCE)
    what = header.decode()
    if what == "refuse":
        raise Problem(400, Code.INVALID_VALUE, "No.", param="file")
    if what == "raise":
        raise RuntimeError(body.decode())
    if what == "memory":
        bytearray(1 << 40)
    channel.head("text/plain")
    channel.data(body)
    if what == "exit":
        os._exit(9)
    if what == "stuck":
        time.sleep(600)
    if what == "stuck-with-lock":  # a library that does not let the interpreter go
        ctypes.PyDLL(None).sleep(600)
    if what == "hold":
        while True:
            channel.progress()
            time.sleep(0.02)
    if what == "raise-late":
        raise RuntimeError(body.decode())
    if what == "flood":
        for _ in range(64):
            channel.data(body * 100)
    if what == "seen":
        names = ",".join(sorted(os.environ))
        limits = Path("/proc/self/limits").read_text().encode()
        channel.data(b"|" + names.encode() + b"|" + os.readlink("/proc/self/fd/2").encode() + b"|" + limits)
    return Cost(prompt=1, completion=2, audio_ms=3)


if __name__ == "__main__":
    run(load)
