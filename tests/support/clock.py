"""A clock that tests move by hand."""

from keepless.clock import Clock


class FakeClock(Clock):
    """Wall time in Unix ms and a monotonic reading, both moved by `advance_ms` (only the wall when `jump_ms`)."""

    def __init__(self, now_ms: int = 1_790_000_000_000) -> None:
        self.wall_ms = now_ms
        self.tick = 1000.0

    def now_ms(self) -> int:
        return self.wall_ms

    def monotonic(self) -> float:
        return self.tick

    def advance_ms(self, by: int) -> None:
        self.wall_ms += by
        self.tick += max(by, 0) / 1000

    def jump_ms(self, by: int) -> None:
        self.wall_ms += by
