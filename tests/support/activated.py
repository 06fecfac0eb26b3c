"""The framework of embedded engines with an engine that does what it is told."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keepless.config import Engine, ModelConfig, UpstreamRetention
from keepless.content import Content
from keepless.inference.backend import Backend, Call
from keepless.inference.embedded.activated import ActivatedProcess
from keepless.inference.embedded.frames import pack
from keepless.inference.embedded.pulse import Pulse
from keepless.inference.embedded.socket_backend import SocketBackend
from tests.support.sinks import Recorder

ECHO = "tests.support.echo_process"


class EchoProcess(ActivatedProcess):
    """Finds the tests' own engine; the engines of Keepless see only what is installed."""

    folders = (*ActivatedProcess.folders, Path(__file__).parents[2])


def model(**changes) -> ModelConfig:
    known = {"engine": Engine.FLITE, "retention": UpstreamRetention.ZERO, "parallel": 2, "queue": 2}
    return ModelConfig(id="echo", **{**known, **changes})


@contextmanager
def echo(directory: Path, *, pulse: Pulse | None = None, **changes) -> Iterator[ActivatedProcess]:
    """A supervisor whose engine has not started."""
    process = EchoProcess(model(**changes), directory / "run", module=ECHO, content_limit=1_000_000)
    process.pulse = pulse
    process.start()
    try:
        yield process
    finally:
        process.stop()


def way_to(process: ActivatedProcess) -> SocketBackend:
    return SocketBackend(process.model, process.socket, process.key)


def asked(header: str, content: bytes = b"hello", **more) -> Call:
    return Call("/echo", Content(pack(header.encode(), content)), False, "req_" + "a" * 24, **more)


async def told(backend: Backend, header: str, content: bytes = b"hello", **more) -> Recorder:
    recorder = Recorder()
    backend.start(asked(header, content, **more), recorder)
    return await recorder.over()
