"""A transparency log for tests: a fixed key, and a head store in memory that can be made to lose its memory."""

import contextlib
import threading
from collections.abc import Iterator

from keepless.clock import Clock
from keepless.db import Database
from keepless.receipts.checkpoint import Ed25519Signer
from keepless.receipts.log import Log

ORIGIN = "keepless.test/log"


class MemoryHeads:
    """A `HeadStore` in memory."""

    def __init__(self) -> None:
        self.stored: tuple[int, bytes] | None = None
        self.writes = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        with self._lock:
            yield

    def head(self) -> tuple[int, bytes] | None:
        return self.stored

    def set_head(self, size: int, root: bytes) -> None:
        self.stored = (size, root)
        self.writes += 1


class FixedClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now_ms: int = 1_764_000_000_000) -> None:
        self.ms = now_ms

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000


def make_log(database: Database, clock: Clock | None = None, heads: MemoryHeads | None = None) -> Log:
    """A log with a key that is the same in every run."""
    signer = Ed25519Signer(bytes(range(32)))
    return Log(database, clock or FixedClock(), signer, heads or MemoryHeads(), ORIGIN)
