"""How each embedded engine is, told by its supervisor to every process that serves: a line of shared memory each.

Holds: `State` (the closed words), `Pulse` (one engine's line), `Pulses` (all of them, an anonymous memory file that is
inherited by number). Leaves out: who tells (supervised), who shows it (`/readyz`, `/metrics`, `/models`).
"""

import mmap
import os
from enum import StrEnum
from struct import Struct
from typing import Final

__all__ = ["Pulse", "Pulses", "State"]

_NUMBER: Final = Struct("<I")
_LINE: Final = 2 * _NUMBER.size  # the state's place among the words, how often it crashed


class State(StrEnum):
    """How an engine is. Only the last one never changes again."""

    RESTING = "resting"  # no process: the next request starts it
    STARTING = "starting"
    RUNNING = "running"
    CRASHED = "crashed"  # it ended by itself, and has not come up again yet
    MISSING = "missing"  # its program or weights are not on this machine: no start will succeed


_STATES: Final = tuple(State)


class Pulse:
    """One engine's line. Written by its supervisor's thread alone."""

    __slots__ = ("_at", "_memory")

    def __init__(self, memory: mmap.mmap, at: int) -> None:
        self._memory: Final = memory
        self._at: Final = at

    @property
    def state(self) -> State:
        """What was told last (`resting` before anything was)."""
        number: int = _NUMBER.unpack_from(self._memory, self._at)[0]
        return _STATES[number]

    @property
    def crashes(self) -> int:
        """How often it ended by itself."""
        return int(_NUMBER.unpack_from(self._memory, self._at + _NUMBER.size)[0])

    def tell(self, state: State) -> None:
        """It is so now."""
        if state is State.CRASHED:
            _NUMBER.pack_into(self._memory, self._at + _NUMBER.size, self.crashes + 1)
        _NUMBER.pack_into(self._memory, self._at, _STATES.index(state))


class Pulses:
    """Those of `count` engines; `fd`: the memory that another process made."""

    def __init__(self, count: int, fd: int | None = None) -> None:
        size = max(1, count) * _LINE
        self.fd: Final = os.memfd_create("keepless-engines") if fd is None else fd
        if fd is None:
            os.ftruncate(self.fd, size)
        self._memory: Final = mmap.mmap(self.fd, size)
        self._all: Final = [Pulse(self._memory, number * _LINE) for number in range(count)]

    def __getitem__(self, number: int) -> Pulse:
        return self._all[number]
