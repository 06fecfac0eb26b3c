"""An engine that is started when somebody connects: the supervisor owns the listening socket, the child takes from it.

Holds: `ActivatedProcess`. Leaves out: starting again and its pauses (supervised), the child (child).

Who connects while no child is there waits in the socket's own queue: nothing is lost between two children. During a
pause of a second or more, who connects is told BUSY; once no start will ever succeed, MISSING.
"""

import contextlib
import os
import select
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from keepless.config import ModelConfig
from keepless.inference.embedded.child import has_left, say
from keepless.inference.embedded.engine import ChildSettings
from keepless.inference.embedded.frames import Mishap
from keepless.inference.embedded.supervised import Supervised

__all__ = ["ActivatedProcess"]

_BACKLOG: Final = 1024
_PATIENCE_S: Final = 1.0


class ActivatedProcess(Supervised):
    """The engine of one model, run by `module`. `content_limit`: the largest content of a request, bytes.

    The socket listens from the start. See `Supervised`.
    """

    def __init__(
        self,
        model: ModelConfig,
        directory: Path,
        *,
        module: str,
        content_limit: int,
        key: str | None = None,
        name: str = "engine",
    ) -> None:
        super().__init__(model, directory, key=key, name=name)
        self.module = module
        self._content_limit: Final = content_limit
        self._listening: Final = socket.socket(socket.AF_UNIX)
        self._wake: Final = os.eventfd(0)
        self._preload = model.preload
        self.socket.unlink(missing_ok=True)
        self._listening.bind(str(self.socket))
        self.socket.chmod(0o600)
        self._listening.listen(_BACKLOG)

    def stop(self) -> None:
        """See `Supervised`."""
        self._stopping.set()
        os.eventfd_write(self._wake, 1)
        super().stop()
        self._listening.close()

    def _settings(self) -> bytes:
        return msgspec.json.encode(ChildSettings(model=self.model, key=self.key, content_limit=self._content_limit))

    def _prepare(self) -> Sequence[int]:
        return (self._listening.fileno(),)

    def _wanted(self) -> bool:
        if self._preload:
            self._preload = False
            return super()._wanted()
        self._called(None)
        return super()._wanted()

    def _pause(self, delay_s: float) -> None:
        if delay_s < _PATIENCE_S:
            super()._pause(delay_s)
        else:
            self._turn_away(Mishap.BUSY, delay_s)

    def _give_up(self) -> None:
        self._turn_away(Mishap.MISSING, None)

    def _called(self, timeout_s: float | None) -> bool:
        """Wait until somebody connects, or the end; whether somebody does."""
        poll = select.poll()
        poll.register(self._listening, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        ready = {descriptor for descriptor, _ in poll.poll(None if timeout_s is None else timeout_s * 1000)}
        return self._listening.fileno() in ready

    def _turn_away(self, mishap: Mishap, for_s: float | None) -> None:
        """Tell everybody who connects why there is no answer."""
        until = None if for_s is None else time.monotonic() + for_s
        self._listening.setblocking(False)
        while not self._stopping.is_set():
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return
            if self._called(left):
                with contextlib.suppress(OSError):
                    connection, _ = self._listening.accept()
                    with connection:
                        if say(connection, mishap):
                            has_left(connection, _PATIENCE_S)
