"""The engine of one tuned model: llama with an adapter that exists in memory only.

Holds: `in_memory` (kept weights -> an anonymous file), `TunedProcess` (one life of one engine: it is never started
again, the next request loads it anew, through the vault's door). Leaves out: which models are loaded, and for how
long (tuned).

The base's weights are mapped from their file, so all engines of a base share them. The adapter is an anonymous file in
memory, sealed, handed over as a descriptor: it has no name, no disk ever holds it, and it is gone with the last process
that has it open, which after the start is none; what the engine has read of it is gone with the engine.
"""

import contextlib
import fcntl
import mmap
import os
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from keepless.config import ModelConfig
from keepless.content import Content, Purpose
from keepless.inference.embedded.adapter import Base
from keepless.inference.embedded.adapter_gguf import to_gguf
from keepless.inference.embedded.llama import LlamaProcess

__all__ = ["TunedProcess", "in_memory"]

_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def in_memory(weights: Content, base: Base) -> int:
    """An adapter as the engine takes it, out of how it is kept: an anonymous file that nobody can change.

    The caller closes it. Raises `GgufError` when it is none of this base's.
    """
    adapter = to_gguf(weights.reveal(Purpose.LOAD), base)
    descriptor = os.memfd_create("adapter", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.truncate(descriptor, len(adapter))
        with mmap.mmap(descriptor, len(adapter)) as memory:
            memory[:] = adapter
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class TunedProcess(LlamaProcess):
    """One engine. `adapter`: a descriptor, which it closes. `ended` is called once, in a thread of its own.

    See `Supervised`.
    """

    adapter = True

    def __init__(
        self, model: ModelConfig, directory: Path, *, name: str, adapter: int, ended: Callable[[], None]
    ) -> None:
        super().__init__(model, directory, name=name)
        self._descriptor: int | None = adapter
        self._ended: Final = ended
        self._begun = False

    def kill(self) -> None:
        """End it now, without waiting for that. Idempotent."""
        self._stopping.set()
        with self._lock:
            if self._pid is not None:
                os.kill(self._pid, signal.SIGKILL)

    @property
    def private_bytes(self) -> int:
        """Memory that it shares with nobody; 0 when that cannot be known."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            resident, shared = Path(f"/proc/{self.pid}/statm").read_text("ascii").split()[1:3]
            return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
        return 0

    def _prepare(self) -> Sequence[int]:
        super()._prepare()
        return () if self._descriptor is None else (self._descriptor,)

    def _wanted(self) -> bool:
        first, self._begun = not self._begun, True
        return first and super()._wanted()

    def _pause(self, delay_s: float) -> None:
        """There is no other start."""

    def _hello(self, control: socket.socket) -> None:
        try:
            super()._hello(control)
        finally:
            self._let_go()

    def _run(self) -> None:
        try:
            super()._run()
        finally:
            self._let_go()
            self._said.set()
            self.socket.unlink(missing_ok=True)
            self._ended()

    def _let_go(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
