"""A training run as who orders it sees it: an order and examples in, events out, an adapter at the end.

    with training(order, dataset, validation, resume) as said:
        for event in said:
            match event: ...

Holds: `training`, `Run` and `is_missing`. Leaves out: torch (only the process imports it), retention (what is told is
`Content`; the caller keeps it through the vault's door or not at all).

The steps: 1. A process is started with nothing of ours but one socket: no descriptor, no variable, no folder. 2. It is
told the order, the examples and, to go on where an earlier run stopped, a checkpoint. 3. It tells `Prepared`, then
`Progress` after each step, `Checkpoint` now and then and when asked for (`save`), `Finished` at the end. Whatever else
happens is a `TrainingError` with a code of a closed list. Leaving the block, and `stop`, end the process at once.

The kernel ends the process when the thread that started it ends: the thread that enters the block must live as long.
"""

import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import msgspec

import keepless
from keepless.content import Content, Purpose
from keepless.training.order import (
    Checkpoint,
    Event,
    Fault,
    Finished,
    Order,
    Prepared,
    Progress,
    TrainingError,
)
from keepless.training.wire import NUMBERS, GoneError, Kind, WireError, receive, send

__all__ = ["Run", "is_missing", "training"]

_MODULE: Final = "keepless.training.process"
_PACKAGES: Final = ("torch", "transformers", "peft", "gguf")  # of the extra `finetune`
_FOLDERS: Final = (Path(keepless.__file__).parent.parent,)  # beside the installation's, where the process is found
_LAST_S: Final = 10.0  # for a process that has closed its socket to end
_NOWHERE: Final = "/nonexistent"
_ENVIRONMENT: Final = {
    "PATH": os.defpath,
    "LANG": "C.UTF-8",
    # Libraries that would call home, or keep caches: they find no folder, and may write to none (confined).
    **dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME", "HF_HOME", "TORCH_HOME", "MPLCONFIGDIR"), _NOWHERE),
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "critical",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCHINDUCTOR_CACHE_DIR": "/",  # wants to be there already; nothing can be made in it
    "OMP_WAIT_POLICY": "passive",  # threads that wait do so asleep: spinning costs a busy machine many times the work
    "CUDA_CACHE_DISABLE": "1",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # what makes its sums come out the same each time
}


def is_missing() -> bool:
    """Whether this machine cannot train: a package is not there (they are found, not imported)."""
    return any(find_spec(name) is None for name in _PACKAGES)


@contextmanager
def training(
    order: Order, dataset: Content, validation: Content | None = None, resume: Content | None = None
) -> Iterator["Run"]:
    """Start a run; ends it when the block is left.

    `dataset`, `validation`: JSONL of chat examples that have been checked. `resume`: an earlier `Checkpoint`'s content.
    Raises `TrainingError`.
    """
    if is_missing():
        raise TrainingError(Fault.TRAINER_MISSING)
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            run = Run(ours, _spawn(theirs.fileno(), order.threads))
        # The process reads once it has loaded its libraries, which is long after `stop` may be wanted.
        teller = threading.Thread(target=run.tell, args=(order, dataset, validation, resume), daemon=True)
        teller.start()
        try:
            yield run
        finally:
            run.end()
            teller.join()


class Run:
    """A training run: iterate over it, or `wait` for one event at a time. `stop` and `save`: from any thread."""

    def __init__(self, connection: socket.socket, pid: int) -> None:
        self.pid: Final = pid
        self._connection: Final = connection
        self._telling: Final = threading.Lock()
        self._lock: Final = threading.Lock()
        self._stopped = False
        self._code: int | None = None  # how the process ended, once it has been waited for
        self._done = False

    def __iter__(self) -> Iterator[Event]:
        """Every event up to `Finished`. Raises `TrainingError`."""
        while not self._done:
            event = self.wait(None)
            if event is not None:
                yield event

    def wait(self, timeout_s: float | None) -> Event | None:
        """The next event; None when there is none in time, or none any more. Raises `TrainingError`."""
        if self._done:
            return None
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        if not poll.poll(None if timeout_s is None else timeout_s * 1000):
            return None
        try:
            event = _event(*receive(self._connection))
        except (WireError, msgspec.MsgspecError) as error:
            raise self._died(gone=isinstance(error, GoneError)) from None
        self._done = isinstance(event, Finished)
        return event

    def save(self) -> None:
        """Ask for a checkpoint after the step in work; it comes as an event like the others."""
        with self._telling, suppress(WireError):  # a process that has gone is found by `wait`
            send(self._connection, Kind.SAVE)

    def stop(self) -> None:
        """End the process at once; who waits for its events gets `TrainingError` (STOPPED)."""
        with self._lock:
            self._stopped = True
            if self._code is None:
                os.kill(self.pid, signal.SIGKILL)

    # -- for `training` -----------------------------------------------------------------------------------------------

    def tell(self, order: Order, dataset: Content, validation: Content | None, resume: Content | None) -> None:
        """Hand the order and the examples over."""
        nothing = Content(b"")
        with self._telling, suppress(WireError):  # a process that has gone is found by `wait`
            send(self._connection, Kind.ORDER, msgspec.json.encode(order))
            send(self._connection, Kind.EXAMPLES, dataset.reveal(Purpose.TRAIN))
            send(
                self._connection, Kind.VALIDATION, (nothing if validation is None else validation).reveal(Purpose.TRAIN)
            )
            send(self._connection, Kind.RESUME, (nothing if resume is None else resume).reveal(Purpose.TRAIN))

    def end(self) -> None:
        """Be sure that the process is gone. Idempotent."""
        with self._lock:
            if self._code is None:
                os.kill(self.pid, signal.SIGKILL)
                self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def _died(self, *, gone: bool) -> TrainingError:
        """Why nothing more comes."""
        self._done = True
        if gone:
            # Not killed before it has ended by itself: a process that was ended by its own watch should say so.
            _wait_for(self.pid, _LAST_S)
        self.end()
        if self._stopped:
            return TrainingError(Fault.STOPPED)
        if self._code == -signal.SIGALRM:
            return TrainingError(Fault.TRAINER_STUCK)
        return TrainingError(Fault.TRAINER_DIED)


def _wait_for(pid: int, timeout_s: float) -> None:
    """Until a child has ended, which it is not asked to; without reaping it."""
    watched = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(watched, select.POLLIN)
        poll.poll(timeout_s * 1000)
    finally:
        os.close(watched)


def _event(kind: Kind, payload: bytearray) -> Event:
    """Raises `TrainingError` for a fault, `WireError` for what is no event."""
    if kind is Kind.PREPARED:
        return msgspec.json.decode(payload, type=Prepared)
    if kind is Kind.PROGRESS:
        return msgspec.json.decode(payload, type=Progress)
    if kind in (Kind.CHECKPOINT, Kind.FINISHED) and len(payload) > NUMBERS.size:
        step, tokens = NUMBERS.unpack_from(payload)
        content = Content(bytes(memoryview(payload)[NUMBERS.size :]))
        if kind is Kind.CHECKPOINT:
            return Checkpoint(step=step, content=content)
        return Finished(step=step, tokens=tokens, content=content)
    if kind is Kind.FAULT:
        raise TrainingError(msgspec.json.decode(payload, type=Fault))
    raise WireError


def _spawn(control: int, threads: int) -> int:
    """Start the process with nothing of ours but its socket: no descriptor, no variable, nothing to write to."""
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-B", "-P", "-m", _MODULE],
        {
            **_ENVIRONMENT,
            "PYTHONPATH": os.pathsep.join(map(str, _FOLDERS)),
            "OMP_NUM_THREADS": str(threads),
            "OPENBLAS_NUM_THREADS": "1",
        },
        file_actions=[
            (os.POSIX_SPAWN_DUP2, control, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        ],
        setpgroup=0,
        setsigmask=(),
        setsigdef=(signal.SIGTERM, signal.SIGALRM),
    )
