"""A child process kept running: started with nothing of ours, told its settings, started again when it dies.

Holds: `Supervised`, the base of each engine's supervisor. Leaves out: when it is started (a subclass: at once, or when
somebody connects), what it is told, how requests reach it.

A child that dies is started again after 0.1 s, then twice as long each time up to 10 s. A word that says that no start
will ever succeed (weights or program missing or changed) ends it for good. The settings, the access key with them, go
through a socket that is the child's standard input, never through arguments or the environment.
"""

import contextlib
import os
import secrets
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import keepless
from keepless.config import ModelConfig
from keepless.errors import ConfigError
from keepless.inference.embedded.engine import FINAL, Word
from keepless.inference.embedded.pulse import Pulse, State
from keepless.log import Event, emit, failure

__all__ = ["Supervised"]

_FIRST_DELAY_S: Final = 0.1
_LAST_DELAY_S: Final = 10.0
_SETTLED_S: Final = 30.0  # an engine that lived this long starts the delays anew
_LOAD_S: Final = 120.0
_STOP_S: Final = 5.0
_SOCKET_PATH_LIMIT: Final = 107  # bytes, sockaddr_un
_WORDS: Final = {word.value.encode("ascii"): word for word in Word}
_ENVIRONMENT: Final = {
    "PATH": os.defpath,
    "LANG": "C.UTF-8",
    "OMP_WAIT_POLICY": "passive",
    # Libraries of the engines that would call home or look for weights elsewhere.
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ORT_DISABLE_TELEMETRY": "1",
}


class Supervised:
    """The engine of one model. `directory` becomes (and must be) private to this user.

    Raises `ConfigError` when the directory is not. `key`: what workers show to the engine; made when not given.
    """

    module = ""  # of the child, run as a program
    folders: Sequence[Path] = (Path(keepless.__file__).parent.parent,)  # beside the installation's, where it is found

    def __init__(self, model: ModelConfig, directory: Path, *, key: str | None = None, name: str = "engine") -> None:
        self.model: Final = model
        self.key: Final = key or secrets.token_urlsafe(32)
        self.socket: Final = directory.absolute() / f"{name}.sock"
        self.word: Word | None = None  # what the engine said last
        self.pulse: Pulse | None = None  # where the other processes read how it is
        self.restarts = 0
        if len(os.fsencode(self.socket)) > _SOCKET_PATH_LIMIT:
            raise ConfigError("the path of the engine's socket is too long for a unix socket: use a shorter data_dir")
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = directory.lstat()
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o077:
            raise ConfigError("the engine's directory must belong to this user and have mode 0700")
        self._lock: Final = threading.Lock()
        self._pid: int | None = None
        self._up: Final = threading.Event()
        self._said: Final = threading.Event()
        self._stopping: Final = threading.Event()
        # The thread that starts the child must live as long: the kernel ends the child when it ends.
        self._thread: Final = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin, once; returns before the engine is ready."""
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether the engine is up."""
        return self._up.is_set()

    @property
    def pid(self) -> int | None:
        """The engine's process id, None while there is none."""
        return self._pid

    def wait_ready(self, timeout_s: float) -> bool:
        """Wait until the engine is up or has said that it never will be; whether it is up."""
        self._said.wait(timeout_s)
        return self._up.is_set()

    def stop(self) -> None:
        """End the engine for good; returns when it is gone and its socket removed. Idempotent."""
        self._stopping.set()
        for number in (signal.SIGTERM, signal.SIGKILL):
            with self._lock:
                if self._pid is not None:
                    os.kill(self._pid, number)
            if self._thread.is_alive():
                self._thread.join(_STOP_S)
        self.socket.unlink(missing_ok=True)

    # -- what a subclass says ---------------------------------------------------------------------------------------

    def _settings(self) -> bytes:
        """What the child is told, one line of JSON."""
        raise NotImplementedError

    def _prepare(self) -> Sequence[int]:
        """Before a start: descriptors that the child gets as 3, 4 and so on."""
        return ()

    def _wanted(self) -> bool:
        """Wait until the engine is to be started; False when it never is."""
        return not self._stopping.is_set()

    def _pause(self, delay_s: float) -> None:
        """Between two starts."""
        self._stopping.wait(delay_s)

    def _give_up(self) -> None:
        """No start will ever succeed."""

    def _tell(self, state: State) -> None:
        """It is so now. Who crashed is said to have crashed until it is up again; who is missing stays so."""
        if self.pulse is None:
            return
        before = self.pulse.state
        if before is not State.MISSING and not (before is State.CRASHED and state is State.STARTING):
            self.pulse.tell(state)

    # -- the thread -------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        delay = _FIRST_DELAY_S
        while self._wanted():
            self._tell(State.STARTING)
            began = time.monotonic()
            code = self._life()
            if self._stopping.is_set():
                return
            if self.word in FINAL:
                self._tell(State.MISSING)
                emit(Event.ENGINE_DIED, word=self.word, restarts=self.restarts)
                self._said.set()
                self._give_up()
                return
            if code == 0 and self.word is Word.READY:
                self._tell(State.RESTING)
                emit(Event.ENGINE_RESTS)
                delay = _FIRST_DELAY_S
                continue
            self._tell(State.CRASHED)
            emit(Event.ENGINE_DIED, restarts=self.restarts)
            if time.monotonic() - began > _SETTLED_S:
                delay = _FIRST_DELAY_S
            self._pause(delay)
            delay = min(2 * delay, _LAST_DELAY_S)
            self.restarts += 1

    def _life(self) -> int:
        """As `_once`; a machine on which no process can be started at the moment is like an engine that crashes."""
        try:
            return self._once()
        except OSError as error:  # no descriptor, memory or process left
            failure(Event.PROCESS_NOT_STARTED, error)
            return 1

    def _once(self) -> int:
        """One life of the engine, from start to end; its exit code."""
        self.word = None
        passed = self._prepare()
        code = 0
        ours, theirs = socket.socketpair()
        with ours:
            with theirs, self._lock:
                if self._stopping.is_set():
                    return code
                self._pid = _spawn(self.module, theirs.fileno(), passed, self.model.threads, self.folders)
            try:
                self._hello(ours)
                # Until the child has ended, without reaping it: its id stays its own for `stop`.
                os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOWAIT)
            finally:
                self._up.clear()
                self._said.clear()
                with self._lock:
                    pid, self._pid = self._pid, None
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return code

    def _hello(self, control: socket.socket) -> None:
        control.settimeout(_LOAD_S)
        with contextlib.suppress(OSError):
            control.sendall(self._settings() + b"\n")
            self.word = _WORDS.get(control.makefile("rb").readline(64).strip())
        if self.word is not Word.READY:
            os.kill(self._pid or 0, signal.SIGKILL)
        else:
            self._up.set()
            self._said.set()
            self._tell(State.RUNNING)
            emit(Event.ENGINE_STARTED, pid=self._pid, restarts=self.restarts)


def _spawn(module: str, control: int, passed: Sequence[int], threads: int, folders: Sequence[Path]) -> int:
    """Start the child with nothing of ours but its sockets: no descriptor, no variable, nothing to write to."""
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-B", "-P", "-m", module],  # -P: nothing is imported from where the server happens to run
        {**_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(map(str, folders)), "OPENBLAS_NUM_THREADS": str(threads)},
        file_actions=[
            (os.POSIX_SPAWN_DUP2, control, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            *((os.POSIX_SPAWN_DUP2, descriptor, 3 + number) for number, descriptor in enumerate(passed)),
        ],
        # Its own group: a Ctrl-C at the terminal ends the server, which lets running answers finish first.
        setpgroup=0,
        setsigmask=(),
        setsigdef=(signal.SIGTERM,),
    )
