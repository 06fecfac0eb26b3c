"""What a serving process does beside answering: sweeps and questions to the location, on one thread of its own.

Holds: `Housekeeping`. Leaves out: what a sweep does (expiry; only one process at a time gets the turn), the processes.
"""

import threading
from typing import Final

from keepless import log
from keepless.app.compose import Deployment
from keepless.log import Event

__all__ = ["LOCATION_CHECK_S", "Housekeeping"]

LOCATION_CHECK_S: Final = 3600.0
_RETRY_S: Final = 60.0  # a location that is red or unknown is asked again sooner
_FIRST_SWEEP_S: Final = 1.0


class Housekeeping:
    """One thread; `nudge` makes it sweep now (a purge was asked for)."""

    def __init__(self, deployment: Deployment, *, sweeps: bool = True) -> None:
        self._deployment: Final = deployment
        self._sweeps: Final = sweeps
        self._stopping: Final = threading.Event()
        self._wake: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._run, name="housekeeping", daemon=True)

    def start(self) -> None:
        """Ask the location once, so that the first request finds a verdict, then begin."""
        self._deployment.location.check()
        self._thread.start()

    def nudge(self) -> None:
        """Sweep soon."""
        self._wake.set()

    def stop(self) -> None:
        """End after the step that is being done."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(10)

    def _run(self) -> None:
        clock, location = self._deployment.clock, self._deployment.location
        asked = clock.monotonic()
        pause = _FIRST_SWEEP_S
        while not self._stopping.is_set():
            self._wake.wait(pause)
            self._wake.clear()
            if self._stopping.is_set():
                return
            pause = self._deployment.settings.sweep_seconds
            if clock.monotonic() - asked >= (LOCATION_CHECK_S if location.writable() else _RETRY_S):
                asked = clock.monotonic()
                location.check()
            if self._sweeps:
                try:
                    self._deployment.sweeper.sweep_once()
                except Exception as error:  # the next sweep finishes what this one could not
                    log.failure(Event.SWEEP_FAILED, error)
