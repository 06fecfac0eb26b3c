"""Speech by Debian's `flite`: each piece of a text by a process of its own, its samples through memory only.

Holds: `Flite` (says a text, piece by piece, as 16-bit mono samples), `SpeechFailedError`. Leaves out: which voices
there are (voices), cutting a text (sentences), formats (sound), the engine's own process (flite_process).

A process a piece: what one customer wrote is in no memory that another's text meets, and a text that makes the voice
crash or run away ends its own process. The text goes in through a pipe (`ps` shows arguments), the samples come out of
an anonymous memory file: flite goes back in its output to write lengths, so a pipe will not do, and a file would be a
copy on disk. While a piece is sent the next one is already being spoken. A piece whose process failed is said once more
by another one, because nothing of it has been sent yet; one that ran away is not.
"""

import contextlib
import os
import resource
import select
import shutil
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from typing import Final

from keepless.errors import KeeplessError
from keepless.inference.embedded.voices import VOICES

__all__ = ["RATE", "Flite", "SpeechFailedError", "Utterance"]

RATE: Final = 16_000  # of every voice, samples a second
_HEADER: Final = 44  # bytes of RIFF before the samples
_READ: Final = 64 * 1024
_AHEAD: Final = 1  # pieces being spoken while one is sent
_WALL_S: Final = 300.0  # for what sleeps; what runs away meets _CPU_S, and a busy machine is no reason to break off
_TURN_S: Final = 0.5
_CPU_S: Final = 45
_MEMORY: Final = 1024**3
_OUTPUT: Final = 128 * 1024**2  # bytes
_RAN_AWAY: Final = frozenset({-signal.SIGKILL, -signal.SIGXCPU, -signal.SIGXFSZ})  # exit codes: another try ends alike


class SpeechFailedError(KeeplessError):
    """A voice did not say a piece of text."""


class Flite:
    """The voices. `program` None: flite where the system has it. Raises `SpeechFailedError` when it has none."""

    def __init__(self, program: str | None = None) -> None:
        found = program or shutil.which("flite", path=os.defpath)
        if found is None:
            raise SpeechFailedError("flite is not installed")
        self._program: Final = found

    def say(
        self, texts: Iterable[str], *, voice: str, speed: float, idle: Callable[[], None] = lambda: None
    ) -> Generator[bytes, None, None]:
        """The samples of each text, in order. Ending the iterator early ends the processes.

        `idle` is called every half second while a piece is not said yet; what it raises ends the processes too. Raises
        as `Utterance`.
        """
        running: deque[Utterance] = deque()
        try:
            for text in texts:
                running.append(Utterance(self._program, text, VOICES[voice], 1.0 / speed))
                if len(running) > _AHEAD:
                    yield from _spoken(running, idle)
            while running:
                yield from _spoken(running, idle)
        finally:
            for utterance in running:
                utterance.close()


class Utterance:
    """One process that says one piece of text. `stretch`: how many times as long as usual it takes."""

    def __init__(self, program: str, text: str, voice: str, stretch: float) -> None:
        self.again: Final = partial(Utterance, program, text, voice, stretch)  # another one, from the beginning
        self._code: int | None = None  # once it has ended
        self._memory: Final = os.memfd_create("speech", os.MFD_CLOEXEC)
        reading, writing = os.pipe()
        try:
            self._pid: int | None = _spawn(program, voice, stretch, reading, self._memory)
        except OSError:
            os.close(writing)
            os.close(self._memory)
            raise SpeechFailedError("flite cannot be started") from None
        finally:
            os.close(reading)
        _limit(self._pid)
        with os.fdopen(writing, "wb", buffering=0) as stdin, contextlib.suppress(BrokenPipeError):
            # A piece is smaller than a pipe's buffer: this never waits.
            stdin.write(text.encode("ascii", "replace") + b"\n")

    def said(self, idle: Callable[[], None]) -> bool:
        """Wait until the piece is said; False when another try may say it. Raises `SpeechFailedError`."""
        self._code = self._wait(_WALL_S, idle)
        if self._code in _RAN_AWAY:
            raise SpeechFailedError("flite ran away")
        return self._code == 0

    def samples(self) -> Iterator[bytes]:
        """Those of a piece that was `said`, in blocks. Raises `SpeechFailedError`."""
        if self._code != 0:
            raise SpeechFailedError("flite failed")
        at = _HEADER
        while block := os.pread(self._memory, _READ, at):
            at += len(block)
            yield block

    def close(self) -> None:
        """End it if it still runs, and let its samples go."""
        self._wait(0, lambda: None)
        os.close(self._memory)

    def _wait(self, seconds: float, idle: Callable[[], None]) -> int | None:
        """Its exit code; it is ended when it takes longer."""
        if self._pid is None:
            return None
        until = time.monotonic() + seconds
        ended = select.poll()
        descriptor = os.pidfd_open(self._pid)
        try:
            ended.register(descriptor, select.POLLIN)
            while not ended.poll(_TURN_S * 1000 if seconds else 0):
                if time.monotonic() >= until:
                    os.kill(self._pid, signal.SIGKILL)
                    break
                idle()
        finally:
            os.close(descriptor)
        pid, self._pid = self._pid, None
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _spawn(program: str, voice: str, stretch: float, reading: int, memory: int) -> int:
    """Start flite with nothing of ours but the text's pipe and the memory for its samples: no variable, no file."""
    options = [program, "-voice", voice, "--setf", f"duration_stretch={stretch:.4f}"]
    return os.posix_spawn(
        program,
        [*options, "-f", "/dev/stdin", "-o", "/dev/stdout"],
        {},
        file_actions=[
            (os.POSIX_SPAWN_DUP2, reading, 0),
            (os.POSIX_SPAWN_DUP2, memory, 1),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        ],
        setsigmask=(),
    )


def _spoken(running: deque[Utterance], idle: Callable[[], None]) -> Iterator[bytes]:
    if not running[0].said(idle):
        failed, running[0] = running[0], running[0].again()
        failed.close()
        running[0].said(idle)
    yield from running[0].samples()
    running.popleft().close()


def _limit(pid: int) -> None:
    """Bounds for a text that makes a voice run away; an ended process needs none."""
    for limit, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, _CPU_S),
        (resource.RLIMIT_AS, _MEMORY),
        (resource.RLIMIT_FSIZE, _OUTPUT),
    ):
        with contextlib.suppress(ProcessLookupError, ValueError):
            resource.prlimit(pid, limit, (most, most))
