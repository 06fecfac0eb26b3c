"""What a process does to itself before it touches content: no core dump, no debugger, private files, one heap."""

import asyncio
import contextlib
import ctypes
import logging
import os
import resource
import sys
import threading
from typing import Final

from keepless import log
from keepless.log import Event

__all__ = ["harden", "leave_no_core", "raise_file_limit", "silence", "silence_loop"]

_PR_SET_DUMPABLE: Final = 4
_M_ARENA_MAX: Final = -8


def harden() -> None:
    """Forbid core dumps and tracing by other processes of the same user; new files are for this user only.

    Before there are threads: from then on they share one heap. One for each, as glibc has it, is for threads that
    allocate at the same time; ours wait for the interpreter's lock, and each heap keeps what was free in it.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    leave_no_core()
    os.umask(0o077)
    with contextlib.suppress(AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def leave_no_core() -> None:
    """Of this process alone neither a core dump nor a trace: for commands, whose limits and files are the user's."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def raise_file_limit() -> None:
    """Allow as many open sockets as the system lets us."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def silence() -> None:
    """Let nothing but our own log speak: an exception's text, or a library's log line, may quote a customer."""
    logging.disable(logging.CRITICAL)
    sys.excepthook = lambda _, error, __: log.failure(Event.SERVER_FAILED, error)
    threading.excepthook = lambda args: _unhandled(args.exc_value)
    sys.unraisablehook = lambda args: _unhandled(args.exc_value)


def silence_loop(loop: asyncio.AbstractEventLoop) -> None:
    """The same for callbacks of an event loop."""
    loop.set_exception_handler(lambda _, context: _unhandled(context.get("exception")))


def _unhandled(error: BaseException | None) -> None:
    if error is not None:
        log.failure(Event.SERVER_FAILED, error)
