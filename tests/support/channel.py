"""Who an engine tells its answer to, without a socket."""

from keepless.inference.embedded.child import Channel, GoneError


class FakeChannel(Channel):
    """Records. After `leave_after` calls the client has left."""

    def __init__(self, leave_after: int | None = None) -> None:
        self.heads: list[tuple[str, int]] = []
        self.pieces: list[bytes] = []
        self.signs = 0  # of life
        self._left = leave_after
        self._begun = False

    @property
    def gone(self) -> bool:
        return self._left == 0

    def head(self, content_type: str, status: int = 200) -> None:
        assert not self.heads
        self._count()
        self._begun = True
        self.heads.append((content_type, status))

    def data(self, data: bytes) -> None:
        assert self.heads
        assert data
        self._count()
        self.pieces.append(data)

    def progress(self) -> None:
        self._count()
        self.signs += 1

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def _count(self) -> None:
        if self._left == 0:
            raise GoneError
        if self._left is not None:
            self._left -= 1
