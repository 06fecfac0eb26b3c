"""The log: one JSON object a line on standard error, with values of closed types only.

Holds: `Event` (the closed list of what can be said), `emit` and `failure`. Leaves out: levels, formatters, redaction
and any way to log a text that was not written in this source tree. There is no flag that widens it.

A value is an int, float, bool, Enum member, `Id` or None. An exception becomes its class, its code when it is one of
ours, and the names of our own frames; never its text.
"""

import contextlib
import sys
import threading
import time
import traceback
from enum import Enum, StrEnum
from typing import Final, TextIO

import msgspec

from keepless.errors import Problem
from keepless.ids import Id

__all__ = ["Event", "LogValue", "emit", "failure", "redirect"]

_CLOSED: Final = (int, float, Enum, Id, type(None))
LogValue = int | float | bool | Enum | Id | None


class Event(StrEnum):
    """What happened. Grammar: `area:object:action`."""

    SERVER_STARTED = "server:process:started"
    SERVER_STOPPING = "server:process:stopping"
    SERVER_STOPPED = "server:process:stopped"
    REFUSAL_NOT_WRITTEN = "governance:refusal:not_written"
    SERVER_FAILED = "server:request:failed"
    PROCESS_NOT_STARTED = "server:process:not_started"
    WORKER_DIED = "server:worker:died"
    ENGINE_STARTED = "engine:process:started"
    ENGINE_DIED = "engine:process:died"
    ENGINE_RESTS = "engine:process:rests"
    UPSTREAM_FAILED = "engine:upstream:failed"
    LEASE_LOST = "policy:lease:lost"
    LEASE_GAINED = "policy:lease:gained"
    CONTROLS_CHANGED = "policy:controls:changed"
    CAPTURE_STORED = "incident:capture:stored"
    CAPTURE_REFUSED = "incident:capture:refused"
    CAPTURE_FAILED = "incident:capture:failed"
    CASE_OPENED = "incident:case:opened"
    CASE_FAILED = "incident:case:failed"
    JOBS_STARTED = "jobs:process:started"
    JOBS_STOPPING = "jobs:process:stopping"
    JOBS_DIED = "jobs:process:died"
    JOBS_STOPPED = "jobs:process:stopped"
    JOB_FAILED = "jobs:job:failed"
    JOBS_RESCUED = "jobs:job:rescued"
    LEDGER_FAILED = "usage:ledger:failed"
    LEDGER_GAP = "usage:ledger:gap"
    SWEEP_DONE = "expiry:sweep:done"
    SWEEP_FAILED = "expiry:sweep:failed"
    SWEEP_PAUSED = "expiry:sweep:paused"
    PURGE_DONE = "expiry:purge:done"
    KEK_DESTROYED = "expiry:kek:destroyed"
    ORPHAN_DESTROYED = "expiry:orphan:destroyed"
    LOCATION_CHECKED = "vault:location:checked"
    LOCATION_RED = "vault:location:red"
    WEBHOOK_FAILED = "webhook:delivery:failed"
    WEBHOOK_GIVEN_UP = "webhook:delivery:given_up"
    LOG_FORK_REFUSED = "receipts:log:fork_refused"
    FORGET_FAILED = "expiry:counts:failed"
    CLOCK_JUMPED = "clock:wall:jumped"
    CLOCK_FAILED = "clock:floor:failed"
    COMMAND_FAILED = "command:run:failed"


class _Sink:
    """Where the lines go; one for a process."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.lock: Final = threading.Lock()


_sink: Final = _Sink(sys.stderr)
_ENCODER: Final = msgspec.json.Encoder(enc_hook=str)  # only an Id ever needs the hook


def redirect(stream: TextIO) -> None:
    """Write to another text stream (a test's, or one opened by the operator's supervisor)."""
    _sink.stream = stream


def emit(event: Event, **values: LogValue) -> None:
    """Write one line. Raises TypeError (with fixed text) for a value that is not of a closed type."""
    _write({"at": time.time_ns() // 1_000_000, "event": event}, values)


def failure(event: Event, error: BaseException, **values: LogValue) -> None:
    """Write one line about an exception: its class, its code when it is ours, and our own frames; never its text."""
    line: dict[str, object] = {
        "at": time.time_ns() // 1_000_000,
        "event": event,
        "error": type(error).__name__,
        "frames": [
            f"{frame.f_code.co_name}:{number}"
            for frame, number in traceback.walk_tb(error.__traceback__)
            if "keepless" in frame.f_code.co_filename
        ][-6:],
    }
    if isinstance(error, Problem):
        line["code"] = error.code
    _write(line, values)


def _write(line: dict[str, object], values: dict[str, LogValue]) -> None:
    if type(line["event"]) is not Event or not all(isinstance(value, _CLOSED) for value in values.values()):
        raise TypeError("the log takes an Event and values of closed types only")
    text = _ENCODER.encode({**line, **values}).decode("ascii", "replace")
    with _sink.lock, contextlib.suppress(OSError, ValueError):
        # A full disk or a closed stream must not take a request down, and there is nowhere else to say it.
        _sink.stream.write(text + "\n")
        _sink.stream.flush()
