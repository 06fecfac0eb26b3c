"""Audio that a line of a batch names by the id of a file: read from the vault, whole, into memory and nowhere else.

Holds: `StoredAudio`. Leaves out: who may name one (audio_params: lines alone), what becomes of it (audio_urls).

A file of the batch's own project that may be used now: another project's, an ended or a deleted one is 404 all the
same, one of a feature that is off 403. At most `_AT_ONCE` are read at a time in one process, so that what is being read
fits into memory beside the rest.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial
from typing import Final

from keepless.accounts.principal import Principal
from keepless.content import Content, Purpose
from keepless.errors import Code, ErrorType, KeeplessError, Problem
from keepless.files.service import Files
from keepless.gateway.audio_params import no_such_file, too_large
from keepless.ids import Id
from keepless.log import Event, failure
from keepless.outbound.fetch import BusyError, Fetched
from keepless.vault.errors import NotKeptError

__all__ = ["StoredAudio"]

_AT_ONCE: Final = 8


class StoredAudio:
    """Reads files of at most `most_bytes` in threads of `executor`. Called on the event loop's thread."""

    def __init__(self, files: Files, executor: Executor, *, most_bytes: int) -> None:
        self._files: Final = files
        self._executor: Final = executor
        self._most_bytes: Final = most_bytes
        self._running: Final[set[asyncio.Future[Content]]] = set()

    def start(self, file_id: Id, principal: Principal, fetched: Fetched) -> Callable[[], None]:
        """Read; `fetched` is called once, later, with the file or a `Problem`. What ends it without a call.

        Raises `BusyError`.
        """
        if len(self._running) >= _AT_ONCE:
            raise BusyError
        owner = principal.organization.id, principal.project.id
        reading = asyncio.get_running_loop().run_in_executor(self._executor, self._read, file_id, *owner)
        self._running.add(reading)
        reading.add_done_callback(partial(self._done, fetched))

        def cancel() -> None:
            reading.cancel()

        return cancel

    def _done(self, fetched: Fetched, reading: "asyncio.Future[Content]") -> None:
        self._running.discard(reading)
        if reading.cancelled():
            return
        error = reading.exception()
        found: bytes | KeeplessError
        if error is None:
            found = reading.result().reveal(Purpose.INFERENCE)
        elif isinstance(error, Problem):
            found = error
        else:
            failure(Event.SERVER_FAILED, error)
            found = _unreadable()
        fetched(found)

    def _read(self, file_id: Id, organization_id: Id, project_id: Id) -> Content:
        """In a thread. Raises `Problem`, and whatever the vault raises."""
        try:
            reader = self._files.open(file_id, organization_id, project_id, Purpose.INFERENCE)
            if reader.size > self._most_bytes:
                raise too_large(self._most_bytes, "file_id")
            return reader.read(0, reader.size)
        except NotKeptError:  # it ended while it was read
            raise no_such_file() from None
        except Problem as problem:
            raise (no_such_file() if problem.status == 404 else problem) from None


def _unreadable() -> Problem:
    return Problem(
        503,
        Code.STORE_FAILED,
        "The file cannot be read at the moment. Please try again shortly.",
        type=ErrorType.SERVER,
        param="file_id",
        headers={"retry-after": "1"},
    )
